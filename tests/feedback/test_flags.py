"""Flags have a meaning: information, not for training, or review."""

from uuid import uuid4

import pytest
from django.db import IntegrityError, transaction
from django.urls import reverse

from feedback.actions import projects, rankings, review_undo, reviews
from feedback.errors import Conflict, Forbidden, Invalid, NotFound
from feedback.export import formats, ranking_record
from feedback.models import Project, Ranking
from feedback.reports import preference_export, review_cases
from feedback.web.forms import ProjectSettingsForm
from feedback.web.presenters import present_flags
from tests.factories import adjudicate, rank_next


@pytest.fixture
def flags(project) -> Project:
    project.flags, project.information_flags, project.review_flags = ["private"], ["typo"], ["odd"]
    projects.save_settings(project)
    return project


def exported(project, **options) -> list[list[str]]:
    return [row["flags"] for row in formats.lines(project, "rankings", **options)]


def test_only_flags_not_for_training_keep_a_ranking_out_of_exports(flags, ann, work):
    work(5)
    for chosen in ([], ["typo"], ["odd"], ["all bad"], ["private", "typo"]):
        assert rank_next(ann, flags=chosen).flags == chosen
    assert exported(flags) == [[], ["typo"], ["odd"], ["all bad"]]
    assert len(exported(flags, include_flagged=True)) == 5
    assert len(list(preference_export.export(flags, "trl", split="all").rows)) == 4
    assert len(list(preference_export.export(flags, "trl", split="all", include_flagged=True).rows)) == 5


@pytest.mark.slow
def test_a_reader_by_cursor_learns_that_a_ranking_got_a_flag(flags, ann, work):
    work(1)
    ranking = rank_next(ann)
    cursor = ranking_record.sequence_cutoff(flags)
    fields = {"idempotency_key": uuid4(), "seconds": 1.0, "flags": ["private"]}
    rankings.revise_ranking(ann, ranking.pk, [1, 2], **fields)
    for name in ("trl", "rankings", "table"):
        (row,) = formats.lines(flags, name, after=cursor)
        assert (row["retracted"], row["revision"]) == ("flagged", 2)
    assert list(formats.lines(flags, "trl")) == []


@pytest.mark.slow
def test_the_tag_of_an_export_changes_with_the_meaning_of_a_flag(flags, ann, work):
    work(1)
    rank_next(ann, flags=["typo"])
    before = preference_export.export(flags, "trl").etag
    flags.information_flags, flags.flags = [], ["private", "typo"]
    projects.save_settings(flags)
    assert preference_export.export(flags, "trl").etag != before
    assert exported(flags) == []


def test_a_flag_that_left_the_settings_means_not_for_training(flags, ann, work):
    work(1)
    rank_next(ann, flags=["private"])
    flags.flags = []
    projects.save_settings(flags)
    assert exported(flags) == []


def test_a_flag_has_one_meaning(flags):
    flags.information_flags = ["typo", "Private"]
    with pytest.raises(Invalid, match='"Private" is in two lists'):
        projects.save_settings(flags)
    flags.information_flags = ["private"]
    with pytest.raises(IntegrityError), transaction.atomic():
        flags.save()
    flags.information_flags = [f"flag {number}" for number in range(11)]
    with pytest.raises(Invalid, match="13 flags in all, more than the maximum of 12"):
        projects.save_settings(flags)


def test_a_flag_in_two_lists_is_an_error_at_its_field(flags):
    values = ProjectSettingsForm(instance=flags).initial
    values = {name: ", ".join(value) if isinstance(value, list) else value for name, value in values.items()}
    form = ProjectSettingsForm(values | {"review_flags": "odd, typo"}, instance=flags)
    assert list(form.errors) == ["review_flags"] and "in two lists" in str(form.errors["review_flags"])


def test_annotators_see_the_meaning_of_each_flag(flags):
    meanings = {flag.name: (flag.key, flag.meaning) for flag in present_flags(flags)}
    assert meanings == {
        "all bad": ("B", ""),
        "all good": ("V", ""),
        "private": ("F", "not for training"),
        "typo": ("H", ""),
        "odd": ("J", "a reviewer looks at it"),
    }


def test_a_comparison_with_a_flag_for_review_waits_for_a_reviewer(flags, ann, cole, mona, work):
    work(2, wanted_rankings=2)
    ranking = rank_next(ann, flags=["odd", "typo"])
    rank_next(ann, flags=["typo"])
    (waiting,) = review_cases.flagged(flags)
    assert (waiting.pk, waiting.flags, waiting.flagged_by) == (ranking.comparison_id, ["odd", "typo"], "ann")
    review = reviews.keep(mona, waiting.pk)
    assert not review_cases.flagged(flags) and exported(flags) == [["odd", "typo"], ["typo"]]
    with pytest.raises(Conflict, match="undone already"):
        review_undo.undo(mona, review_undo.undo(mona, review.pk).pk)
    assert review_cases.flagged(flags)
    reviews.keep(mona, waiting.pk)
    while (theirs := rank_next(cole, flags=["odd"])) and theirs.comparison_id != waiting.pk:
        pass
    assert waiting.pk in [comparison.pk for comparison in review_cases.flagged(flags)]  # flagged again


def test_a_decision_removes_a_comparison_from_the_flagged_list(flags, ann, mona, work):
    work(2)
    flagged = [rank_next(ann, flags=["odd"]) for _ in range(2)]
    reviews.discard(mona, flagged[0].pk, reason="odd indeed")
    adjudicate(mona, flagged[1].comparison, [1, 2])
    assert not review_cases.flagged(flags)


def test_only_reviewers_may_keep_and_only_flagged_comparisons(flags, ann, mona, work):
    comparison = work(1)[0]
    rank_next(ann)
    with pytest.raises(Forbidden):
        reviews.keep(ann, comparison.pk)
    with pytest.raises(Conflict, match="no flag for review"):
        reviews.keep(mona, comparison.pk)
    with pytest.raises(NotFound):
        reviews.keep(mona, comparison.pk + 1)


@pytest.mark.slow
def test_the_reviewers_pages_list_and_decide(flags, ann, mona, work, client, plain_static_files):
    work(1)
    ranking = rank_next(ann, flags=["odd"])
    client.force_login(mona.user)
    assert "odd" in client.get(reverse("review-flagged", args=["support"])).content.decode()
    case = reverse("review-case", args=["support", ranking.comparison_id])
    assert "Keep it as it is" in client.get(case).content.decode()
    kept = client.post(reverse("review-keep", args=["support", ranking.comparison_id]), follow=True)
    assert "Kept as it is." in kept.content.decode() and "Nothing flagged" in kept.content.decode()
    assert "kept a flagged comparison" in client.get(reverse("review-decisions", args=["support"])).content.decode()
    assert Ranking.objects.get().standing == "counts"
