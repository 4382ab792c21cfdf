"""Import of files by `load`: real samples of public formats, people who judgement, errors by line, and undo."""

import json
import os
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError, transaction

from feedback import imports
from feedback.actions import members
from feedback.errors import Invalid, NotFound
from feedback.export import formats, ranking_record
from feedback.imports.maps import find
from feedback.models import Comparison, Completion, Import, Project, Prompt, Ranking, Skip, User
from feedback.quality.checks import all_checks
from feedback.quality.ranking_rows import RankingRow, read_rankings
from feedback.queue import leases
from feedback.reports import statistics
from tests.factories import rank_next

pytestmark = [pytest.mark.slow, pytest.mark.django_db]

SAMPLES = Path(__file__).resolve().parents[4] / "shared" / "formats"  # public files, not in the repository
# rows, prompts, completions, comparisons, rankings; counted in the files by hand or with jq
SAMPLE_COUNTS = {
    "alpaca_eval_outputs.json": ("alpaca-eval", 12, 12, 12, 0, 0),
    "arena_hard_answer_gpt4.jsonl": ("arena-hard-answers", 12, 12, 12, 0, 0),
    "arena_hard_question.jsonl": ("arena-hard", 12, 12, 0, 0, 0),
    "argilla_ranking_record.jsonl": ("argilla", 1, 1, 2, 1, 1),
    "chatbot_arena_rows.jsonl": ("arena", 2, 2, 4, 2, 2),
    "helpsteer2_rows.jsonl": ("helpsteer2", 2, 1, 2, 1, 1),
    "helpsteer3_row.jsonl": ("helpsteer3", 1, 1, 2, 1, 1),
    "hh_rlhf_tiny.json": ("trl", 1, 1, 2, 1, 1),
    "label_studio_pairwise_export.json": ("label-studio", 32, 32, 64, 32, 32),
    "label_studio_tasks.json": ("label-studio-tasks", 32, 32, 64, 32, 0),
    "llamafactory_dpo_en_demo.json": ("llamafactory-sharegpt", 12, 12, 24, 12, 12),
    "llamafactory_kto_en_demo.json": ("llamafactory-kto", 12, 12, 12, 0, 0),
    "llamafactory_v1_dpo_demo.jsonl": ("llamafactory-v1", 10, 10, 20, 10, 10),
    "mt_bench_question.jsonl": ("mt-bench", 12, 12, 0, 0, 0),
    "nectar_row.jsonl": ("nectar", 1, 1, 3, 1, 1),
    "oasst_en_100_message.jsonl": ("openassistant-messages", 12, 31, 70, 21, 21),
    "oasst_en_100_tree.jsonl": ("openassistant", 12, 31, 70, 21, 21),
    "openai_preference_row.jsonl": ("openai-preference", 1, 1, 2, 1, 1),
    "sharegpt_dummy_conversation.json": ("sharegpt", 12, 10, 12, 0, 0),
    "shp_row.jsonl": ("shp", 1, 1, 2, 1, 1),
    "stack_exchange_paired_tiny.json": ("stack-exchange", 12, 3, 11, 12, 12),
    "tinker_conversations.jsonl": ("openai-chat", 12, 12, 12, 0, 0),
    "torchtune_chat_tiny.json": ("sharegpt", 1, 1, 1, 0, 0),
    "trl_explicit.jsonl": ("trl", 1, 1, 2, 1, 1),
    "trl_implicit.jsonl": ("trl", 1, 1, 2, 1, 1),
    "ultrafeedback_binarized_row.jsonl": ("ultrafeedback-binarized", 1, 1, 2, 1, 1),
    "ultrafeedback_row.jsonl": ("ultrafeedback", 1, 1, 2, 1, 1),
    "webgpt_row.jsonl": ("webgpt", 1, 1, 2, 1, 1),
}
PAIR = {"prompt": "Why?", "chosen": "Because.", "rejected": "No."}
TASK = {"id": 7, "data": {"prompt": "Why?", "answer1": "Because.", "answer2": "No."}}


def annotation(selected="left", by=2, **fields):
    result = [{"type": "pairwise", "value": {"selected": selected}, "to_name": ["comparison"]}]
    return {"completed_by": by, "result": result, "lead_time": 12.5, "created_at": "2023-04-17T21:54:20Z", **fields}


def needs_samples():
    """Skip without the public files, but fail in CI, where they lie beside the checkout."""
    sentence = f"the public samples are not in {SAMPLES}"
    if not SAMPLES.exists():
        pytest.fail(sentence) if os.environ.get("CI") else pytest.skip(sentence)


@pytest.fixture
def load(tmp_path, project):
    """Load rows, or a file, and return the report."""

    def run(source, *options, slug=project.slug):
        file = source
        if not isinstance(source, Path):
            file = tmp_path / "rows.jsonl"
            file.write_text("".join(json.dumps(row) + "\n" for row in source))
        report = tmp_path / "report.json"
        out, err = StringIO(), StringIO()
        call_command("load", slug, str(file), "--json", str(report), *options, stdout=out, stderr=err)
        return json.loads(report.read_text())

    return run


@pytest.mark.full
@pytest.mark.parametrize("name", SAMPLE_COUNTS)
def test_a_real_sample_imports_with_its_counts_and_again_changes_nothing(load, name):
    needs_samples()
    map_name, rows, *made = SAMPLE_COUNTS[name]
    report = load(SAMPLES / name)
    assert (report["map"], report["rows"], report["imported"], report["errors"]) == (map_name, rows, rows, [])
    models = (Prompt, Completion, Comparison, Ranking)
    assert [model.objects.count() for model in models] == made
    again = load(SAMPLES / name)
    assert (again["imported"], again["unchanged"], again["import_id"]) == (0, rows, None)
    assert [model.objects.count() for model in models] == made


def test_the_pairs_of_label_studio_are_18_to_the_left_and_14_to_the_right(load):
    needs_samples()
    load(SAMPLES / "label_studio_pairwise_export.json")
    texts = {}
    for row in json.loads((SAMPLES / "label_studio_pairwise_export.json").read_text()):
        texts[row["data"]["prompt"], row["data"]["answer1"]] = row["annotations"][0]["result"][0]["value"]["selected"]
    left = right = 0
    for row in ranking_record.rankings(Project.objects.get()):
        best = row["completions"][row["ranks"].index(1)]
        is_left = texts.get((row["messages"][0]["content"], best)) == "left"
        left, right = left + is_left, right + (not is_left)
    assert (left, right) == (18, 14)
    assert Ranking.objects.order_by("pk")[0].seconds == 12.51


def test_annotations_of_label_studio_come_with_people_skips_and_gold(load):
    annotations = [
        annotation("left", by=2),
        annotation("right", by={"id": 3, "email": "eve@example.com"}),
        annotation(by=4, was_cancelled=True, result=[]),
        annotation("left", by=2, ground_truth=True),
    ]
    report = load([{**TASK, "annotations": annotations}])
    assert (report["imported"], report["error_count"]) == (1, 0)
    assert sorted(Ranking.objects.values_list("ranks", flat=True)) == [[1, 2], [2, 1]]
    people = User.objects.filter(is_imported=True)
    assert people.count() == 3
    assert not any("eve" in person.username or person.email for person in people)
    assert Skip.objects.count() == 1
    gold = Comparison.objects.get(gold_ranks__isnull=False)
    assert gold.gold_ranks == [1, 2]
    ranked = Comparison.objects.get(gold_ranks__isnull=True)
    assert (ranked.ranking_count, ranked.disagreement) == (2, 1.0)
    assert load([{**TASK, "annotations": annotations}])["unchanged"] == 1


def test_an_imported_person_cannot_sign_in_be_activated_or_become_a_member(load, project):
    load([{**TASK, "annotations": [annotation()]}])
    person = User.objects.get(is_imported=True)
    assert not person.has_usable_password() and not person.is_active
    with pytest.raises(IntegrityError, match="imported_person_cannot_sign_in"), transaction.atomic():
        User.objects.filter(pk=person.pk).update(is_active=True)
    with pytest.raises(NotFound, match="no user with the name"):
        members.add_member(project, person.username, "annotator")


def test_the_same_person_of_two_files_is_one_account(load):
    load([{**TASK, "annotations": [annotation()]}])
    load([{"id": 8, "data": {**TASK["data"], "prompt": "How?"}, "annotations": [annotation()]}])
    assert User.objects.filter(is_imported=True).count() == 1


def test_judgements_without_a_name_belong_to_one_person_of_the_map_or_of_the_option(load):
    load([PAIR])
    load([{**PAIR, "prompt": "How?"}])
    assert User.objects.filter(is_imported=True).count() == 1
    load([{**PAIR, "prompt": "When?"}], "--judge", "vendor")
    assert User.objects.filter(is_imported=True).count() == 2


def test_imported_rankings_are_exported_with_the_others_and_follow_the_cursor(load, project, ann, work):
    work(1)
    rank_next(ann)
    before = ranking_record.sequence_cutoff(project)
    load([PAIR])
    (row,) = ranking_record.rankings(project, after=before)
    assert row["sequence"] == before + 1
    assert (row["reason"], row["completions"][row["ranks"].index(1)]) == ("imported", "Because.")
    assert len(list(ranking_record.rankings(project))) == 2


def test_imported_rankings_take_no_slot_and_ask_nobody(load, project, ann):
    load([PAIR])
    assert leases.lease_next(ann) is None
    rows = [{"prompt": "Who?", "completions": ["You.", "I."]}]
    load(rows)
    load([{"prompt": "Who?", "chosen": "You.", "rejected": "I."}])
    comparison = Comparison.objects.get(prompt__messages=[{"role": "user", "content": "Who?"}])
    assert (comparison.wanted_rankings, comparison.open_slots, comparison.ranking_count) == (2, 1, 1)
    assert rank_next(ann) is not None


def test_agreement_ratings_and_checks_count_imported_people(load, project):
    tasks = [
        {
            "id": number,
            "data": {"prompt": f"{number}?", "answer1": "Yes.", "answer2": "No."},
            "annotations": [annotation("left", by=person) for person in range(3)],
        }
        for number in range(4)
    ]
    load(tasks)
    people = set(User.objects.filter(is_imported=True).values_list("pk", flat=True))
    assert set(all_checks.check_project(project)) == people
    assert {row.annotator_id for row in read_rankings(Ranking.objects.live_in(project))} == people
    figures = statistics.figures_of_everybody(project)
    assert [(one.role, one.done.total, one.done.seconds) for one in figures if one.user.is_imported] == [
        (None, 4, 12.5)
    ] * 3


def test_unknown_seconds_are_no_sign_of_haste():
    typical = [RankingRow(number, 1, (1, 2), display_order=(0, 1), seconds=3.0 + number % 5) for number in range(60)]
    untimed = [RankingRow(number, 2, (1, 2), reason="imported", display_order=(0, 1)) for number in range(60)]
    alone = all_checks.check_rankings(typical, 0.8)
    together = all_checks.check_rankings([*typical, *untimed], 0.8)
    assert (together[2].speed.is_flagged, together[2].speed.value) == (False, None)
    assert together[1].speed == alone[1].speed


def test_a_bad_row_is_reported_with_line_field_value_and_reason_and_stops_no_other(load):
    report = load([PAIR, {**PAIR, "chosen": 5}, {**PAIR, "prompt": "How?"}, {"prompt": "x", "chosen": "a"}])
    assert (report["rows"], report["imported"], report["error_count"]) == (4, 2, 2)
    first, second = report["errors"]
    assert (first["line"], first["field"], first["value"]) == (2, "chosen", "5")
    assert (second["line"], second["field"]) == (4, "rejected")
    assert second["reason"] == 'The row has no "rejected".'


def test_a_strict_import_stores_nothing_if_a_row_is_bad(load):
    with pytest.raises(CommandError, match=r'Line 2: .*"rejected"'):
        load([PAIR, {"prompt": "x", "chosen": "a"}], "--strict")
    assert not Prompt.objects.exists()
    assert not Import.objects.exists()


def test_a_row_of_a_known_format_in_an_unexpected_place_names_the_map_that_fits(load, project):
    row = {"context": [{"role": "user", "content": "Hi"}], "response1": "a", "response2": "b", "overall_preference": 0}
    with pytest.raises(CommandError):
        load([row], "--map", "trl")
    with pytest.raises(Invalid, match='looks like HelpSteer3: import the file with the map "helpsteer3"'):
        imports.add_prompts(project, [row])


def test_the_same_person_may_not_judge_the_same_texts_twice_in_different_ways(load):
    report = load([PAIR, PAIR, {"prompt": "Why?", "chosen": "No.", "rejected": "Because."}])
    assert (report["imported"], report["unchanged"], report["error_count"]) == (1, 1, 1)
    assert "another order" in report["errors"][0]["reason"]
    assert Ranking.objects.get().ranks == [1, 2]


def test_strength_of_another_scale_is_left_out_and_said(load):
    row = {"context": [{"role": "user", "content": "Hi"}], "response1": "a", "response2": "b", "overall_preference": 3}
    report = load([row])
    assert report["left_out"] == {"strength": 1}
    assert (Ranking.objects.get().ranks, Ranking.objects.get().strength) == ([2, 1], None)


def test_a_map_of_ones_own_keeps_a_strength_of_the_projects_scale(load, project, tmp_path):
    Project.objects.update(strength_points=4)
    own = tmp_path / "own.toml"
    own.write_text(
        'name = "own"\ntitle = "Own"\n[prompt]\ntext = "q"\n[completions]\ncolumns = ["a", "b"]\n'
        '[judgement]\nwinner = "best"\nvalues = { a = [1, 2], b = [2, 1] }\nstrength = "much"\nstrength_scale = 4\n'
    )
    load([{"q": "Hi", "a": "x", "b": "y", "best": "b", "much": 3}], "--map", str(own))
    assert (Ranking.objects.get().ranks, Ranking.objects.get().strength) == ([2, 1], 3)


def test_an_import_with_rankings_is_undone_as_one(load, project, manager):
    report = load(
        [{**TASK, "annotations": [annotation(), annotation(by=9, was_cancelled=True)]}, {**TASK, "annotations": []}]
    )
    undone = imports.undo_import(imports.find_import(project, report["import_id"]), manager)
    assert undone.removed == {"rankings": 1, "skips": 1, "comparisons": 1, "completions": 2, "prompts": 1}
    assert not Ranking.objects.exists() and not Prompt.objects.exists()
    assert load([{**TASK, "annotations": [annotation()]}])["imported"] == 1


def test_undone_rankings_that_an_export_has_read_are_retracted(load, project, manager):
    report = load([PAIR])
    cursor = ranking_record.sequence_cutoff(project)
    undone = imports.undo_import(imports.find_import(project, report["import_id"]), manager)
    assert [(kept.kind, kept.reason, kept.count) for kept in undone.stayed if kept.kind == "rankings"] == [
        ("rankings", "read", 1)
    ]
    (row,) = ranking_record.rankings(project, after=cursor)
    assert row["retracted"] == "withdrawn"
    assert not list(ranking_record.rankings(project))
    comparison = Comparison.objects.get()
    assert (comparison.ranking_count, comparison.open_slots) == (0, 0)
    assert load([PAIR])["imported"] == 1
    assert Ranking.objects.get(is_live=True).revision == 3


@pytest.mark.full
@pytest.mark.parametrize("name", ["rankings", "table", "trl"])
def test_an_export_imports_again_with_the_same_rankings(load, project, ann, cole, work, name):
    work(2, size=2)
    for member in (ann, cole):
        while rank_next(member, seconds=3.0):
            pass
    other = Project.objects.create(slug="other", name="Other")

    def rows(of):
        kept = ("messages", "completions", "ranks", "sources")
        return sorted(
            (json.dumps([row[field] for field in kept if field != "ranks"]), row["ranks"])
            for row in map(_by_text, ranking_record.rankings(of, details=True))
        )

    exported = [json.loads(json.dumps(row)) for row in formats.lines(project, name, split=None)]
    report = load(exported, slug="other")
    assert (report["map"], report["error_count"]) == (f"accord-{name}", 0)
    assert rows(other) == rows(project)
    assert report["imported"] == len(exported)


@pytest.mark.full
@pytest.mark.parametrize(
    ("name", "map_name"),
    [
        ("arena", "arena"),
        ("argilla", "argilla"),
        ("hh", "accord-trl-implicit"),
        ("label-studio", "label-studio"),
        ("openai-dpo", "openai-preference"),
    ],
)
def test_an_export_for_another_tool_imports_again_with_the_same_order(load, project, ann, work, name, map_name):
    work(2, size=2)
    while rank_next(ann, seconds=3.0):
        pass
    other = Project.objects.create(slug="other", name="Other")

    def orders(of):
        rows = map(_by_text, ranking_record.rankings(of))
        return sorted((row["messages"][0]["content"], row["completions"], row["ranks"]) for row in rows)

    exported = [json.loads(json.dumps(row)) for row in formats.lines(project, name, split=None)]
    report = load(exported, slug="other")
    assert (report["map"], report["errors"]) == (map_name, [])
    assert orders(other) == orders(project)
    if name in ("arena", "argilla", "label-studio"):
        assert set(Completion.objects.filter(prompt__project=other).values_list("source__name", flat=True)) == {
            "source-0",
            "source-1",
        }


def _by_text(row):
    order = sorted(range(len(row["ranks"])), key=lambda place: row["completions"][place])
    return row | {field: [row[field][place] for place in order] for field in ("completions", "ranks", "sources")}


def test_a_project_is_made_only_where_it_is_asked_for(load):
    with pytest.raises(CommandError, match='no project "new"'):
        load([PAIR], slug="new")
    ada = User.objects.create_superuser("ada")
    load([PAIR], "--create", slug="new")
    made = Project.objects.get(slug="new")
    assert made.prompts.count() == 1
    assert members.manager_of(ada, "new").is_manager  # or nobody could open its pages
    load([PAIR], "--create", slug="new")
    assert made.memberships.count() == 1


@pytest.mark.parametrize(
    ("rows", "slug", "said"),
    [([{"chosen": 3}], "new", "not recognised"), ([PAIR], "no slug", "cannot be a project's address")],
)
def test_no_project_is_made_where_nothing_can_be_imported(load, rows, slug, said):
    with pytest.raises(CommandError, match=said):
        load(rows, "--create", slug=slug)
    assert not Project.objects.exclude(slug="support").exists()


def test_the_help_of_the_command_names_every_map():
    assert find("shp").title == "SHP"
    with pytest.raises(Invalid, match="the maps are accord, "):
        find("shq")
