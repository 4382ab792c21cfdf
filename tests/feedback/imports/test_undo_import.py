"""Undo of an import: rows that nobody has worked on are removed; the answer lists the others."""

import threading
from io import StringIO
from time import sleep
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.utils import timezone

from feedback import imports
from feedback.actions import rankings
from feedback.archive import Archived
from feedback.errors import Conflict, Invalid
from feedback.export import ranking_record
from feedback.models import Comparison, Completion, Import, Lease, Project, Prompt, Ranking, Source
from feedback.queue import claim, leases
from tests.factories import URL, client_of, lines, rank_next
from tests.feedback.test_concurrency import run_concurrently, wait_until_blocked

pytestmark = [pytest.mark.slow, pytest.mark.django_db]


def rows(*names, answers=("a", "b")):
    return [{"prompt": name, "completions": list(answers)} for name in names]


def run_import(project, prompts, how=Import.How.COMMAND, **settings):
    with imports.record_import(project, how) as record:
        imports.add_prompts(project, prompts, **{"compare": True, "made_by_import": record, **settings})
    return record


def remaining_rows():
    return Prompt.objects.count(), Completion.objects.count(), Comparison.objects.count()


def reasons(undone):
    return {(kept.kind, kept.reason): kept.count for kept in undone.stayed}


def test_an_import_that_nobody_has_worked_on_is_removed_completely(project, manager):
    kept = run_import(project, rows("kept"))
    record = run_import(project, [{"prompt": "x", "external_id": "x-1", "completions": ["a", "b"]}, *rows("y", "z")])
    assert record.counts == {"prompts": 3, "completions": 6, "comparisons": 3, "demonstrations": 0, "completed": 0}
    undone = imports.undo_import(record, manager)
    assert undone.removed == {"prompts": 3, "completions": 6, "comparisons": 3}
    assert undone.stayed == []
    assert remaining_rows() == (1, 2, 1)
    record.refresh_from_db()
    assert (record.undone_by, record.undone_at is not None) == (manager, True)
    assert Prompt.objects.get().made_by_import == kept
    run_import(project, [{"prompt": "another", "external_id": "x-1"}])  # the name is free again


def test_an_import_sent_again_changes_nothing_and_the_first_one_undoes_it(project):
    first = run_import(project, rows("x", "y"))
    assert run_import(project, rows("x", "y")).pk is None
    assert Import.objects.get() == first
    imports.undo_import(first, None)
    assert remaining_rows() == (0, 0, 0)


def test_a_refused_import_leaves_no_trace(project):
    with pytest.raises(Invalid):
        run_import(project, [*rows("x"), {"prompt": 3}])
    assert not Import.objects.exists()


def test_an_import_is_undone_once(project, manager):
    record = run_import(project, rows("x"))
    imports.undo_import(record, manager)
    with pytest.raises(Conflict, match="undone before"):
        imports.undo_import(record, manager)


def test_ranked_skipped_and_leased_comparisons_stay_and_the_answer_gives_the_reasons(project, ann, cole):
    record = run_import(project, rows("one", "two", "three", "four", "five"))
    ranked = rank_next(ann)
    skipped = leases.lease_next(ann)
    rankings.skip_comparison(ann, skipped.pk, reason="no idea")
    held = leases.lease_next(ann)
    lapsed = leases.lease_next(cole)
    Lease.objects.filter(pk=lapsed.pk).update(expires_at=timezone.now(), lapsed_at=timezone.now())
    Comparison.objects.filter(pk=lapsed.comparison_id).update(open_slots=1)
    undone = imports.undo_import(record, None)
    stay = {each.comparison_id for each in (ranked, skipped, held, lapsed)}
    assert set(Comparison.objects.values_list("pk", flat=True)) == stay
    assert undone.removed["comparisons"] == 5 - len(stay)
    counted = reasons(undone)
    assert counted["comparisons", "ranked"] == 1
    assert sum(counted[kind, why] for kind, why in counted if kind == "comparisons") == len(stay)
    assert counted["completions", "used"] == 2 * len(stay)
    assert counted["prompts", "answered"] == len(stay)
    assert "1 comparison stays: it was ranked." in [kept.message for kept in undone.stayed]
    assert rankings.record_ranking(
        ann, held.pk, [1, 2], idempotency_key=uuid4(), seconds=1
    )  # on screen, and still welcome
    assert rankings.record_ranking(cole, lapsed.pk, [1, 2], idempotency_key=uuid4(), seconds=1)  # late
    assert len(list(ranking_record.rankings(project, 0, ranking_record.sequence_cutoff(project)))) == 3


def test_completions_that_another_imports_comparisons_show_stay(project):
    first = run_import(project, rows("x", "y"), compare=False)
    ids = list(Completion.objects.filter(prompt__external_id=None).order_by("pk").values_list("pk", flat=True))[:2]
    with imports.record_import(project, Import.How.API) as second:
        imports.add_comparisons(project, [ids], made_by_import=second)
    undone = imports.undo_import(first, None)
    assert undone.removed == {"comparisons": 0, "completions": 2, "prompts": 1}
    assert reasons(undone) == {("completions", "used"): 2, ("prompts", "answered"): 1}
    assert remaining_rows() == (1, 2, 1)
    assert imports.undo_import(second, None).removed == {"comparisons": 1, "completions": 0, "prompts": 0}


def test_prompts_that_a_round_has_answered_stay(project):
    record = run_import(project, rows("x", "y"))
    source = imports.get_source(project, "round-0001", Source.Kind.CHECKPOINT)
    prompt = Prompt.objects.first()
    imports.add_completions(project, source, [{"prompt_id": prompt.pk, "text": "of the round"}])
    undone = imports.undo_import(record, None)
    assert undone.removed == {"comparisons": 2, "completions": 4, "prompts": 1}
    assert reasons(undone) == {("prompts", "answered"): 1}
    assert Completion.objects.get().text == "of the round"


def test_a_completion_that_a_round_has_written_too_stays(project):
    source = imports.get_source(project, "base", Source.Kind.CHECKPOINT)
    record = run_import(project, [{"prompt": "x", "completions": [{"text": "same", "source": "base"}]}])
    imports.add_completions(project, source, [{"prompt_id": Prompt.objects.get().pk, "text": "same"}])
    undone = imports.undo_import(record, None)
    assert reasons(undone) == {("completions", "shared"): 1, ("prompts", "answered"): 1}
    assert remaining_rows() == (1, 1, 0)


def test_data_that_an_import_added_to_known_prompts_stays_and_is_reported(project):
    run_import(project, [{"prompt": "x"}])
    record = run_import(project, [{"prompt": "x", "metadata": {"topic": "y"}}])
    undone = imports.undo_import(record, None)
    assert reasons(undone) == {("prompts", "completed"): 1}
    assert Prompt.objects.get().metadata == {"topic": "y"}


def test_gold_is_undone_like_other_comparisons(project):
    added = imports.add_prompts(project, rows("x"))
    with imports.record_import(project, Import.How.API) as record:
        gold = [{"completion_ids": added.completion_ids[0], "ranks": [1, 2]}]
        imports.add_gold(project, gold, made_by_import=record)
    assert imports.undo_import(record, None).removed == {"comparisons": 1, "completions": 0, "prompts": 0}


def test_an_archived_project_keeps_its_imports(project):
    record = run_import(project, rows("x"))
    Project.objects.update(archived_at=timezone.now())
    with pytest.raises(Archived):
        imports.undo_import(record, None)
    assert remaining_rows() == (1, 2, 1)


def test_over_the_api_an_import_is_named_listed_and_undone(project, manager):
    api = client_of(manager)
    added = api.post(f"{URL}/prompts", lines(*rows("x", "y")), content_type="application/x-ndjson").json()
    (listed,) = api.get(f"{URL}/imports").json()
    assert listed["id"] == added["import_id"]
    assert (listed["how"], listed["actor"], listed["undone_at"]) == ("api", "mona", None)
    made = {name: count for name, count in listed["counts"].items() if count}
    assert made == {"prompts": 2, "completions": 4, "comparisons": 2}
    answer = api.delete(f"{URL}/imports/{listed['id']}")
    assert answer.status_code == 200
    assert answer.json() == {
        "removed": {"prompts": 2, "completions": 4, "comparisons": 2, "rankings": 0, "skips": 0},
        "stayed": [],
    }
    again = api.delete(f"{URL}/imports/{listed['id']}")
    assert (again.status_code, again.json()["message"]) == (409, "This import was undone before.")
    assert api.get(f"{URL}/imports").json()[0]["undone_by"] == "mona"


def test_each_address_that_takes_rows_names_its_import(project, manager):
    api = client_of(manager)

    def send(path, *given):
        return api.post(f"{URL}/{path}", lines(*given), content_type="application/x-ndjson").json()

    (prompt_id,) = send("prompts?compare=false", {"prompt": "x"})["prompt_ids"]
    answers = send("completions?source=old", *({"prompt_id": prompt_id, "text": text} for text in "ab"))
    compared = send("comparisons", {"completion_ids": answers["completion_ids"]})
    gold = send("gold", {"completion_ids": answers["completion_ids"], "ranks": [1, 2]})
    assert send("comparisons", {"completion_ids": answers["completion_ids"]})["import_id"] is None
    counts = [Import.objects.get(pk=answer["import_id"]).counts for answer in (answers, compared, gold)]
    assert [(each["completions"], each["comparisons"]) for each in counts] == [(2, 0), (0, 1), (0, 1)]


def test_only_managers_of_the_project_can_undo_an_import(project, annotator, stranger):
    record = run_import(project, rows("x"))
    assert client_of(annotator).delete(f"{URL}/imports/{record.pk}").status_code == 403
    assert client_of(stranger).delete(f"{URL}/imports/{record.pk}").status_code == 404
    elsewhere = client_of(stranger).delete(f"/api/v1/projects/other/imports/{record.pk}")
    assert (elsewhere.status_code, elsewhere.json()["code"]) == (404, "not_found")
    assert remaining_rows() == (1, 2, 1)


@pytest.mark.usefixtures("plain_static_files")
def test_the_page_lists_imports_and_undoes_one(client, project, manager, ann):
    record = run_import(project, rows("x", "y"), Import.How.PAGE)
    rank_next(ann)
    client.force_login(manager)
    assert b"Last imports" in client.get("/projects/support/prompts/").content
    page = client.post(f"/projects/support/imports/{record.pk}/undo/", follow=True).content.decode()
    assert "Removed: prompts 1, completions 2, comparisons 1." in page
    assert "1 comparison stays: it was ranked." in page
    assert "undone by mona" in page
    assert client.post(f"/projects/support/imports/{record.pk}/undo/").status_code == 409


def test_the_undo_command_undoes_an_import_of_the_command_load(project, tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_bytes(lines(*rows("x")))
    out = StringIO()
    call_command("load", "support", file, stdout=out)
    record = Import.objects.get()
    assert f"undo_import support {record.pk}" in out.getvalue()
    call_command("undo_import", "support", record.pk, stdout=out)
    assert "Removed: 1 comparisons, 2 completions, 1 prompts." in out.getvalue()
    with pytest.raises(CommandError, match="undone before"):
        call_command("undo_import", "support", record.pk)
    with pytest.raises(CommandError, match="no import 0"):
        call_command("undo_import", "support", 0)


@pytest.mark.django_db(transaction=True)
def test_a_comparison_that_is_being_ranked_meanwhile_stays(project, ann):
    record = run_import(project, rows("x", "y"))
    taken, finish = threading.Event(), threading.Event()

    def take_slowly():
        with transaction.atomic():
            leases.lease_next(ann)
            taken.set()
            assert finish.wait(timeout=120)

    def undo():
        assert taken.wait(timeout=120)
        try:
            return imports.undo_import(record, None)
        finally:
            finish.set()

    _taken, undone = run_concurrently([take_slowly, undo])
    assert undone.removed["comparisons"] == 1
    assert reasons(undone)["comparisons", "held"] == 1
    lease = Lease.objects.get()
    assert rankings.record_ranking(ann, lease.pk, [1, 2], idempotency_key=uuid4(), seconds=1)


@pytest.mark.django_db(transaction=True)
def test_rankings_made_while_an_import_is_undone_are_kept(project, ann, cole):
    record = run_import(project, rows(*(f"question {n}" for n in range(40))))

    def work(member):
        count = 0
        while rank_next(member):
            count += 1
        return count

    def undo():
        sleep(0.1)
        return imports.undo_import(record, None)

    by_ann, by_cole, undone = run_concurrently([lambda: work(ann), lambda: work(cole), undo])
    assert Ranking.objects.count() == by_ann + by_cole == Comparison.objects.count()
    assert undone.removed["comparisons"] + Comparison.objects.count() == 40


@pytest.mark.django_db(transaction=True)
def test_an_import_waits_for_an_undo_in_progress_and_is_then_complete(project):
    record = run_import(project, rows("x"))
    undone = threading.Event()

    def undo_slowly():
        with transaction.atomic():
            imports.undo_import(record, None)
            undone.set()
            wait_until_blocked()

    def import_again():
        assert undone.wait(timeout=120)
        return run_import(project, rows("x"))

    again = run_concurrently([undo_slowly, import_again])[1]
    assert again.counts == {"prompts": 1, "completions": 2, "comparisons": 1, "demonstrations": 0, "completed": 0}
    assert remaining_rows() == (1, 2, 1)


@pytest.mark.django_db(transaction=True)
def test_no_lease_refers_to_a_comparison_that_is_being_removed(project, ann):
    record = run_import(project, rows("x"))
    undone, looked = threading.Event(), threading.Event()

    def undo_slowly():
        with transaction.atomic():
            imports.undo_import(record, None)
            undone.set()
            assert looked.wait(timeout=120)

    def look():
        assert undone.wait(timeout=120)
        try:
            return claim.first_in_queue(ann)
        finally:
            looked.set()

    assert run_concurrently([undo_slowly, look])[1] is None


@pytest.mark.django_db(transaction=True)
def test_an_import_undone_twice_at_once_is_undone_once(project):
    record = run_import(project, rows("x"))

    def undo():
        try:
            return imports.undo_import(record, None)
        except Conflict:
            return None

    assert sum(each is not None for each in run_concurrently([undo, undo])) == 1


def test_undoing_takes_as_many_statements_for_many_rows_as_for_one(project, django_assert_max_num_queries):
    record = run_import(project, rows(*(f"question {n}" for n in range(500))))
    with django_assert_max_num_queries(25):
        assert imports.undo_import(record, None).removed["prompts"] == 500
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")  # nothing refers to what is gone
