"""A data folder of version 0.1, opened by this one: its database is migrated, and its rows keep their meaning."""

import json

import pytest
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from feedback.actions import members
from tests.factories import URL, client_of, lines, rank_next
from training.models import Checkpoint, LoopSettings, Round
from training.rounds import lifecycle
from training.rounds.results import Outcome
from training.rounds.schedule import configure
from training.rounds.start import start_round

# The last migrations of 0.1.
PREVIOUS = [("feedback", "0015_imports_to_undo"), ("training", "0004_paths_in_data_folder")]


def migrate(targets):
    # Pending events of deferred triggers would forbid to alter their tables in this transaction.
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
    MigrationExecutor(connection).migrate(targets)


def add_prompt(manager):
    rows, headers = lines({"prompt": "sent again"}), {"HTTP_IDEMPOTENCY_KEY": "k-1"}
    return client_of(manager).post(f"{URL}/prompts", rows, content_type="application/x-ndjson", **headers)


def latest():
    return [
        key for key in MigrationExecutor(connection).loader.graph.leaf_nodes() if key[0] in ("feedback", "training")
    ]


@pytest.fixture
def previous(project, base, comparisons, annotator, manager):
    """Rankings, a finished round and a failed one, and a stored response, in the tables of 0.1."""
    assert add_prompt(manager).status_code == 201
    for _ in range(6):
        rank_next(members.membership_of(annotator, project.slug), [1, 2, 2])
    configure(project, 500, {"round": {"extra_ranking_share": 0.25}})
    finished = start_round(project, manager)
    claim = lifecycle.claim(finished.pk, "gpu-1:1")
    prompt = project.prompts.order_by("pk")[0].pk
    samples = [{"prompt_id": prompt, "text": text, "sampling": {"round": finished.number}} for text in ("new", "newer")]
    lifecycle.finish(claim, Outcome(base.path, base.path, samples, []))
    failed = start_round(project, manager)
    lifecycle.fail(lifecycle.claim(failed.pk, "gpu-1:1"), "out of memory")
    migrate(PREVIOUS)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT settings -> 'round' FROM training_round UNION ALL SELECT settings FROM training_loopsettings"
        )
        assert all("second_opinions" in json.dumps(row) for row in cursor.fetchall())


@pytest.mark.full
@pytest.mark.slow
def test_a_database_of_the_previous_version_is_migrated_and_opened(previous, project, base, client, manager, annotator):
    migrate(latest())
    assert LoopSettings.objects.get().settings == {"round": {"extra_ranking_share": 0.25}}
    assert {row.settings["round"]["extra_ranking_share"] for row in Round.objects.all()} == {0.25}
    assert {row.verdict for row in Checkpoint.objects.all()} == {"waiting"}, "every checkpoint is checked once"
    assert add_prompt(manager)["Idempotency-Replayed"] == "true"
    client.force_login(manager)
    for page in (
        "console/",
        "rounds/new/?again=1",
        "rounds/1/",
        "rounds/1/samples/",
        "rounds/2/",
        "review/",
        "figures/",
    ):
        assert client.get(f"/projects/{project.slug}/{page}").status_code == 200, page
    rank_next(members.membership_of(annotator, project.slug))
    assert project.rankings.count() == 7
    Checkpoint.objects.update(verdict="exact_fast")
    failed = lifecycle.resume(Round.objects.get(status="failed"))
    lifecycle.finish(lifecycle.claim(failed.pk, "gpu-1:2"), Outcome(base.path, base.path, [], []))
    assert Round.objects.get(pk=failed.pk).status == "finished"
