"""Exports over HTTP: kept by clients as long as they are the same, whole, and safe to train on."""

import json
from io import StringIO

import pytest
from django.core.management import call_command

from feedback import imports
from feedback.actions import rankings
from feedback.models import Prompt, Ranking, Reliability, ReliabilityReport
from feedback.queue import leases
from tests.factories import URL, rank_next, rows_of

pytestmark = pytest.mark.django_db

EXPORTS = ["preferences", "preferences?format=rankings", "preferences?format=table", "demonstrations", "skips"]


def add_one_of_each(ann, work):
    """A ranking, a demonstration and a skip."""
    work(2)
    ranking = rank_next(ann, comment="the second one is made up")
    imports.add_demonstration(ann, ranking.comparison.prompt, "as I would say it")
    rankings.skip_comparison(ann, leases.lease_next(ann).pk, reason="not my language")


@pytest.mark.parametrize("export", EXPORTS)
def test_a_reader_that_has_the_lines_already_is_answered_304(as_manager, ann, work, export):
    add_one_of_each(ann, work)
    first = as_manager.get(f"{URL}/{export}")
    assert rows_of(as_manager.get(f"{URL}/{export}", headers={"if-none-match": '"another"'})) == rows_of(first)
    again = as_manager.get(f"{URL}/{export}", headers={"if-none-match": first["ETag"]})
    assert (again.status_code, again.content, again["ETag"]) == (304, b"", first["ETag"])
    assert again.get("Accord-Cursor") == first.get("Accord-Cursor")
    assert first["Cache-Control"] == again["Cache-Control"] == "private, no-cache"


@pytest.mark.parametrize("export", EXPORTS)
def test_the_etag_changes_with_new_rankings_and_decisions(as_manager, ann, work, export):
    before = as_manager.get(f"{URL}/{export}")["ETag"]
    add_one_of_each(ann, work)
    assert as_manager.get(f"{URL}/{export}", headers={"if-none-match": before}).status_code == 200


def test_the_etag_changes_with_the_data_of_a_prompt(as_manager, ann, work):
    add_one_of_each(ann, work)
    before = as_manager.get(f"{URL}/preferences")["ETag"]
    Prompt.objects.update(metadata={"topic": "parcels"})
    assert as_manager.get(f"{URL}/preferences")["ETag"] != before


@pytest.mark.slow
def test_the_etag_depends_on_the_parameters_of_the_request(as_manager, ann, work):
    add_one_of_each(ann, work)
    queries = ["", "?split=all", "?format=table", "?format=rankings", "?after=1", "?weights=reliability"]
    tags = {as_manager.get(f"{URL}/preferences{query}")["ETag"] for query in queries}
    assert len(tags) == len(queries) - 1  # without a report of reliability all weigh the same


@pytest.mark.slow
@pytest.mark.parametrize("path", ["", *(f"/{each}" for each in EXPORTS), "/members", "/figures"])
def test_every_get_address_answers_head_with_the_same_headers_and_no_body(as_manager, ann, work, path):
    add_one_of_each(ann, work)
    asked, read = as_manager.head(URL + path), as_manager.get(URL + path)
    assert asked.status_code == 200
    assert b"".join(asked) == b""
    differing = {"Content-Length": "", "X-Request-Id": ""}
    if path == "/figures":
        differing["ETag"] = ""  # their `as_of` is the time of the request
    assert {**asked.headers, **differing} == {**read.headers, **differing}


def test_a_head_request_creates_nothing(as_manager, project):
    assert as_manager.head("/api/v1/projects").status_code == 200
    assert as_manager.head(f"{URL}/prompts").status_code == 405


def test_a_cursor_beyond_the_record_is_refused(as_manager, ann, work):
    work(1)
    rank_next(ann)
    assert as_manager.get(f"{URL}/preferences?after=1").status_code == 200
    answer = as_manager.get(f"{URL}/preferences?after=2")
    assert answer.status_code == 400
    assert '"after" is 2, but the record ends at 1' in answer.json()["message"]


@pytest.mark.slow
def test_pairs_for_trainers_are_of_training_prompts_unless_requested_otherwise(as_manager, ann, work):
    work(30)
    while rank_next(ann):
        pass
    splits = {
        query: {row["split"] for row in rows_of(as_manager.get(f"{URL}/preferences?{query}"))}
        for query in ("", "split=all", "split=held_out", "format=rankings", "format=table")
    }
    both = {"train", "held_out"}
    assert splits == {
        "": {"train"},
        "split=all": both,
        "split=held_out": {"held_out"},
        "format=rankings": both,
        "format=table": both,
    }


@pytest.fixture
def described(ann, project):
    """A ranking of a prompt of which everything is known."""
    completions = [
        {"text": "Friday.", "source": "a", "sampling": {"temperature": 0.7}},
        {"text": "No idea.", "source": "b"},
    ]
    row = {"prompt": "When?", "external_id": "t-1", "references": ["On Friday."], "metadata": {"topic": "parcels"}}
    added = imports.add_prompts(project, [row | {"completions": completions}])
    imports.add_comparisons(project, added.completion_ids)
    project.strength_points = 4
    project.save()
    return rank_next(ann, comment="the second one says nothing", strength=3)


@pytest.mark.slow
def test_an_exported_ranking_has_all_imported_data_of_its_prompt(as_manager, described):
    (row,) = rows_of(as_manager.get(f"{URL}/preferences?format=rankings"))
    assert row["external_id"] == "t-1"
    assert row["references"] == ["On Friday."]
    assert row["metadata"] == {"topic": "parcels"}
    assert row["sampling"] == [{"temperature": 0.7}, {}]
    assert row["comment"] == "the second one says nothing"
    assert row["created_at"] == described.created_at.isoformat()


def test_a_pair_names_its_sources_its_strength_and_its_prompt(as_manager, described):
    (row,) = rows_of(as_manager.get(f"{URL}/preferences?split=all"))
    texts = {"Friday.": "a", "No idea.": "b"}
    assert row["chosen_source"] == texts[row["chosen"][0]["content"]]
    assert row["rejected_source"] == texts[row["rejected"][0]["content"]]
    assert (row["strength"], row["external_id"]) == (3, "t-1")
    assert row["created_at"] == described.created_at.isoformat()


def types_of(row):
    return {name: type(value) for name, value in row.items()}


def test_a_tables_columns_have_their_types_from_the_first_row_on(as_manager, ann, described, work):
    work(1)
    rank_next(ann)  # nothing is known of this one
    bare, full = sorted(rows_of(as_manager.get(f"{URL}/preferences?format=table")), key=lambda row: row["external_id"])
    assert types_of(bare) == types_of(full)
    assert type(None) not in types_of(bare).values()
    assert [] not in bare.values() and {} not in bare.values()
    assert (bare["strength"], bare["reliability"], bare["flags_json"], bare["metadata_json"]) == (0, 0.875, "[]", "{}")
    assert json.loads(full["metadata_json"]) == {"topic": "parcels"}
    assert [json.loads(each) for each in full["sampling_json"]] == [{"temperature": 0.7}, {}]


def test_reasons_of_skips_are_exported_under_a_pseudonym(as_manager, ann, work):
    add_one_of_each(ann, work)
    (row,) = rows_of(as_manager.get(f"{URL}/skips"))
    assert (row["reason"], row["annotator"]) == ("not my language", f"annotator-{ann.user_id}")
    assert row["prompt_id"] in Prompt.objects.values_list("pk", flat=True)


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["equal", "reliability"])
def test_the_command_writes_the_lines_of_the_api(as_manager, ann, project, work, weights):
    work(30)
    while rank_next(ann):
        pass
    project.ranking_weights = weights
    project.save()
    report = ReliabilityReport.objects.create(project=project, until=30, spread=1.0)
    Reliability.objects.create(
        report=report, annotator=ann.user, value=0.7, low=0.6, high=0.8, shared=Ranking.objects.count(), gold=0
    )
    for format in ("rankings", "trl", "table"):
        out = StringIO()
        call_command("export", "support", "--format", format, stdout=out, stderr=StringIO())
        rows = [json.loads(line) for line in out.getvalue().splitlines()]
        assert rows == rows_of(as_manager.get(f"{URL}/preferences?format={format}"))
        assert {round(row["weight"], 9) for row in rows} == {0.4 if weights == "reliability" else 1.0}


def test_parameters_may_be_sent_with_their_defaults_as_generated_clients_do(as_manager, project):
    assert as_manager.get(f"{URL}/preferences?annotator=&source=&tag=&after=0&gzip=false").status_code == 200
    row = b'{"prompt": "Where?"}'
    assert as_manager.post(f"{URL}/imports?name=&judge=", row, content_type="text/plain").status_code == 201
