"""Filters of exports: who ranked, what was compared, how far people agree; ties, aggregation and resampling."""

import json
from io import StringIO
from uuid import uuid4

import pytest
from django.core.management import call_command

from feedback import imports
from feedback.actions import rankings
from feedback.errors import Invalid, NotFound
from feedback.export import aggregation, formats, ranking_record, resampling
from feedback.models import Ranking, Reliability, ReliabilityReport, User
from feedback.reports import preference_export
from feedback.reports.export_filters import Filters
from tests.factories import URL, add_work, adjudicate, client_of, membership, person, rank_by_position, rows_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def two(ann, project):
    """Ann and Ben rank three comparisons of two: they agree on the first, oppose on the second; Ben ties the third."""
    ben = membership(person(project, "ben", "annotator"), project)
    made = add_work(project, 3, wanted_rankings=2)
    for comparison, of_ann, of_ben in zip(made, ([1, 2], [1, 2], [2, 1]), ([1, 2], [2, 1], [1, 1]), strict=True):
        for member, ranks in ((ann, of_ann), (ben, of_ben)):
            rank_one(member, comparison, ranks)
    return ben, [comparison.pk for comparison in made]


def rank_one(member, comparison, ranks):
    """Rank one comparison, the others being out of the queue meanwhile."""
    others = comparison.project.comparisons.exclude(pk=comparison.pk)
    others.update(priority=-1)
    ranking = rank_by_position(member, ranks)
    others.update(priority=0)
    assert ranking.comparison_id == comparison.pk


def exported(project, **options):
    options = {"split": "all", **options}
    return list(preference_export.export(project, "rankings", **options).rows)


def chosen(project, **filters):
    """The comparisons and annotators of the rankings that the filters leave."""
    return [(row["comparison_id"], row["annotator"]) for row in exported(project, filters=Filters(**filters))]


def report(project, values):
    """A report of the whole record with the reliability of each member."""
    made = ReliabilityReport.objects.create(project=project, until=ranking_record.sequence_cutoff(project), spread=1.0)
    for member, value in values.items():
        fields = {"value": value, "low": 0, "high": 1, "shared": 1, "gold": 0}
        Reliability.objects.create(report=made, annotator=member.user, **fields)
    return made


@pytest.mark.slow
def test_rankings_of_one_annotator_are_chosen_by_username_or_pseudonym(two, project):
    ben, ids = two
    name = ranking_record.pseudonym(ben.user_id)
    assert chosen(project, annotator="ben") == chosen(project, annotator=name) == [(pk, name) for pk in ids]
    for nobody in ("annotator-0", "zoe", "annotator-" + "9" * 40):
        with pytest.raises(Invalid, match="Nobody with the name"):
            chosen(project, annotator=nobody)


@pytest.mark.slow
def test_rankings_are_chosen_by_source_round_and_tag(ann, project):
    for number, tags in enumerate((["code", "short"], "code", []), start=1):
        completions = [
            {"text": "a", "source": f"s{number}", "sampling": {"round": number}},
            {"text": "b", "source": "base"},
        ]
        row = {"prompt": f"p{number}", "metadata": {"tags": tags}, "completions": completions}
        imports.add_prompts(project, [row], compare=True)
        rank_by_position(ann, [1, 2])
    first, second, third = [row["comparison_id"] for row in sorted(exported(project), key=lambda row: row["prompt_id"])]
    name = ranking_record.pseudonym(ann.user_id)
    assert chosen(project, source="s2") == [(second, name)]
    assert chosen(project, round=3) == [(third, name)]
    assert {pk for pk, _name in chosen(project, tag="code")} == {first, second}
    assert chosen(project, tag="short", source="base") == [(first, name)]
    assert chosen(project, tag="cod") == chosen(project, round=4) == []
    with pytest.raises(Invalid, match="no source"):
        chosen(project, source="s4")


@pytest.mark.slow
def test_imported_rankings_are_distinguished_from_those_made_here(two, project):
    ben, _ids = two
    assert len(chosen(project, imported=False)) == 6
    User.objects.filter(pk=ben.user_id).update(is_imported=True, is_active=False)
    assert {name for _pk, name in chosen(project, imported=True)} == {ranking_record.pseudonym(ben.user_id)}
    assert len(chosen(project, imported=False)) == 3


@pytest.mark.slow
def test_agreement_is_that_of_the_record_up_to_the_cursor(two, ann, project):
    _ben, (same, opposed, tied) = two
    assert {pk for pk, _name in chosen(project, min_agreement=0.5)} == {same, tied}
    assert len(chosen(project, min_agreement=0)) == 6
    add_work(project, 1)
    rank_by_position(ann, [1, 2])  # nobody else ranks it
    until = ranking_record.sequence_cutoff(project)
    assert len(chosen(project, min_agreement=0)) == 6
    before = exported(project, until=until, filters=Filters(min_agreement=0.5))
    revised = Ranking.objects.get(comparison=opposed, annotator=ann.user)
    rankings.revise_ranking(ann, revised.pk, in_shown_order(revised, [2, 1]), **fresh())
    assert {pk for pk, _name in chosen(project, min_agreement=0.5)} == {same, opposed, tied}
    assert exported(project, until=until, filters=Filters(min_agreement=0.5)) == before


def in_shown_order(ranking, ranks):
    return [ranks[position] for position in ranking.display_order]


def fresh():
    return {"idempotency_key": uuid4(), "seconds": 1.0}


def test_agreement_equals_the_stored_disagreement(project):
    people = [membership(person(project, f"p{index}", "annotator"), project) for index in range(4)]
    (comparison,) = add_work(project, 1, size=3, wanted_rankings=4)
    for member, ranks in zip(people, ([1, 2, 3], [1, 1, 2], [3, 2, 1], [2, 1, 3]), strict=True):
        rank_by_position(member, ranks)
    comparison.refresh_from_db()
    # a–b: 1 for, 2 against of 3; a–c: 3 and 1 of 6; b–c: 3 and 1 of 6 → (2 + 3 + 3) / (3 + 6 + 6)
    assert comparison.disagreement == pytest.approx(8 / 15)
    assert len(chosen(project, min_agreement=7 / 15 - 1e-9)) == 4
    assert chosen(project, min_agreement=7 / 15 + 1e-9) == []


@pytest.mark.slow
def test_rankings_of_reliable_annotators_are_chosen_and_those_that_settled_a_comparison(two, ann, mona, project):
    ben, ids = two
    report(project, {ben: 0.6})  # Ann has no estimate: the prior's 0.875
    assert {name for _pk, name in chosen(project, min_reliability=0.8)} == {ranking_record.pseudonym(ann.user_id)}
    assert chosen(project, min_reliability=0.9) == []
    assert len(chosen(project, min_reliability=0.6)) == 6
    adjudicate(mona, project.comparisons.get(pk=ids[1]), [1, 2])
    assert [pk for pk, _name in chosen(project, min_reliability=0.9, min_agreement=0.9)] == [ids[1]]


@pytest.mark.slow
def test_a_report_that_is_made_later_does_not_change_an_earlier_export(two, ann, project):
    ben, _ids = two
    report(project, {ben: 0.6})
    until = ranking_record.sequence_cutoff(project)
    options = {"until": until, "weights": "reliability"}
    before = preference_export.export(project, "trl", **options)
    lines = list(before.rows)
    add_work(project, 1)
    rank_by_position(ann, [1, 2])
    report(project, {ben: 0.9})
    after = preference_export.export(project, "trl", **options)
    assert (list(after.rows), after.etag) == (lines, before.etag)
    with pytest.raises(NotFound):
        preference_export.export(project, "trl", reliability_as_of=until - 1, weights="reliability")


@pytest.mark.slow
def test_ties_are_left_out_or_written_as_rows(two, project):
    ben, ids = two
    names = ranking_record.pseudonym(ben.user_id)
    assert len(exported(project)) == 6
    assert (ids[2], names) not in [
        (row["comparison_id"], row["annotator"]) for row in exported(project, ties="omitted")
    ]
    for name, default, other in (("trl", 5, 7), ("arena", 6, 5), ("hh", 5, 7)):
        choice = {"trl": "rows", "hh": "rows", "arena": "omitted"}[name]
        assert len(list(formats.lines(project, name))) == default
        assert len(list(formats.lines(project, name, ties=choice))) == other
    first, second = [row for row in formats.lines(project, "trl", ties="rows") if row["weight"] == 0.5]
    assert (first["chosen"], first["rejected"]) == (second["rejected"], second["chosen"])
    with pytest.raises(Invalid, match="cannot express ties"):
        preference_export.export(project, "kto", ties="rows")


def test_a_tie_that_is_written_as_rows_retracts_nothing(two, ann, project):
    _ben, ids = two
    cursor = ranking_record.sequence_cutoff(project)
    revised = Ranking.objects.get(comparison=ids[0], annotator=ann.user)
    rankings.revise_ranking(ann, revised.pk, [1, 1], **fresh())
    for ties, kinds in (("rows", [False, False]), ("omitted", [True])):
        lines = list(formats.lines(project, "trl", cursor, ties=ties))
        assert ["retracted" in line for line in lines] == kinds
    (line,) = formats.lines(project, "rankings", cursor, ties="omitted")
    assert line["retracted"] == "tied"


@pytest.mark.slow
def test_one_row_a_comparison_is_the_vote_of_its_annotators(two, ann, project):
    ben, ids = two
    rows = exported(project, aggregated=True)
    assert [(row["comparison_id"], row["ranks"]) for row in rows] == list(
        zip(ids, ([1, 2], [1, 1], [2, 1]), strict=True)
    )
    assert {row["annotator"] for row in rows} == {aggregation.EVERYBODY}
    report(project, {ann: 0.9, ben: 0.6})  # weights 0.8 and 0.2
    rows = exported(project, aggregated=True, weights="reliability")
    assert [(row["ranks"], row["weight"]) for row in rows] == [([1, 2], 1.0), ([1, 2], 1.0), ([2, 1], 1.0)]


@pytest.mark.slow
def test_aggregated_rankings_are_whole_wherever_a_page_ends(two, project, monkeypatch):
    whole = exported(project, aggregated=True)
    monkeypatch.setattr(ranking_record, "PAGE_SIZE", 1)
    assert exported(project, aggregated=True) == whole


def test_a_consensus_counts_by_borda():
    def ranking(ranks, weight=1.0, **fields):
        empty = {"flags": [], "ratings": {}, "strength": None, "seconds": 1.5, "sequence": 1}
        return {**empty, "ranks": ranks, "weight": weight, **fields}

    # Counts of three completions: 2 + 0 − 2 = 0; 0 + 2 + 2 = 4; −2 − 2 + 0 = −4
    votes = [[1, 2, 3], [2, 1, 3], [3, 1, 2]]
    assert aggregation.consensus([ranking(ranks) for ranks in votes])["ranks"] == [2, 1, 3]
    of_one = ranking([1, 2], 0.3, flags=["odd"], ratings={"kind": [4, None]}, strength=3)
    of_other = ranking([1, 2], 0.1, ratings={"kind": [1, None]}, strength=1, sequence=2)
    both = aggregation.consensus([of_one, of_other])
    assert (both["weight"], both["seconds"], both["flags"], both["sequence"]) == (0.4, 3.0, [], 2)
    assert (both["ratings"], both["strength"]) == ({"kind": [2.5, None]}, 2)
    assert aggregation.consensus([ranking([1, 2], 0.0), ranking([1, 2], 0.0)])["ranks"] == [1, 2]


@pytest.mark.slow
def test_resampling_repeats_a_ranking_in_proportion_to_its_weight():
    for weight in (0.0, 0.1, 0.5, 0.9, 1.0):
        copies = [resampling.copies_of(number, weight) for number in range(4000)]
        assert sum(copies) / len(copies) == pytest.approx(resampling.COPIES * weight, abs=0.04)
        assert max(copies) - min(copies) <= 1
    assert copies == [4] * 4000


@pytest.mark.slow
def test_resampled_rows_are_the_same_again_and_weigh_one(two, ann, project):
    ben, _ids = two
    report(project, {ann: 1.0, ben: 0.5})
    rows = exported(project, weights="resample")
    assert [row["annotator"] for row in rows] == [ranking_record.pseudonym(ann.user_id)] * 12
    assert {row["weight"] for row in rows} == {1.0}
    assert exported(project, weights="resample") == rows


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"aggregated": True},
        {"weights": "resample"},
        {"filters": Filters(min_agreement=0.5)},
        {"filters": Filters(min_reliability=0.5)},
    ],
)
def test_choices_that_later_rankings_change_have_no_cursor(two, project, options):
    with pytest.raises(Invalid, match="cursor"):
        preference_export.export(project, "rankings", after=1, **options)
    preference_export.export(project, "rankings", **options)


@pytest.mark.slow
def test_page_api_and_command_take_the_same_filters(two, manager, project, client):
    query = {"format": "rankings", "annotator": "ben", "source": "source-0", "imported": "false", "ties": "omitted"}
    api = rows_of(client_of(manager).get(f"{URL}/preferences", query))
    client.force_login(manager)
    page = rows_of(client.get("/projects/support/export/file/", query | {"imported": "no"}))
    out = StringIO()
    options = [f"--{name}={value}" for name, value in query.items() if name != "imported"]
    call_command("export", "support", *options, "--no-imported", stdout=out, stderr=StringIO())
    assert api == page == [json.loads(line) for line in out.getvalue().splitlines()]
    assert len(api) == 2
