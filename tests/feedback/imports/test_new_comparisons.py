"""Comparisons of stored completions: which are made, which are refused, and their settings."""

import pytest

from feedback import imports
from feedback.errors import Invalid
from feedback.models import Comparison, ComparisonItem, Completion

pytestmark = pytest.mark.django_db


def completions(project, texts, prompt="a"):
    (ids,) = imports.add_prompts(project, [{"prompt": prompt, "completions": texts}]).completion_ids
    return ids


def test_texts_that_look_the_same_are_merged(project):
    ids = completions(project, ["one", "one ", "two", {"text": "one", "source": "another"}])
    compared = imports.add_comparisons(project, [ids])
    assert Comparison.objects.get(pk=compared.ids[0]).texts() == ["one", "two"]


def test_groups_without_two_different_texts_are_reported(project):
    same = completions(project, ["one", "one\n"])
    different = completions(project, ["one", "two"], prompt="b")
    compared = imports.add_comparisons(project, [same, different, []])
    assert [each is not None for each in compared.ids] == [False, True, False]
    assert (len(compared.created), compared.alike) == (1, 2)


def test_nine_is_the_most(project):
    ids = completions(project, [str(index) for index in range(10)])
    assert imports.add_comparisons(project, [ids[:9]]).created
    with pytest.raises(Invalid, match="Group 1 has 10 different completions"):
        imports.add_comparisons(project, [ids])


def test_a_comparison_is_of_one_prompt(project):
    mixed = completions(project, ["one"]) + completions(project, ["two"], prompt="b")
    with pytest.raises(Invalid, match="different prompts"):
        imports.add_comparisons(project, [mixed])


def test_completions_of_another_project_are_not_found(project, stranger):
    ids = completions(stranger.memberships.get().project, ["one", "two"])
    with pytest.raises(Invalid, match="There is no completion"):
        imports.add_comparisons(project, [ids])


@pytest.mark.parametrize("ids", [[0, 1], ["1", "2"], [2**64, 1], [True, 2]])
def test_invalid_ids_are_refused(project, ids):
    with pytest.raises(Invalid):
        imports.add_comparisons(project, [ids])


@pytest.mark.parametrize("wish", [{"wanted_rankings": 0}, {"wanted_rankings": 101}, {"priority": 40000}])
def test_numbers_of_rankings_and_priorities_out_of_range_are_refused(project, wish):
    with pytest.raises(Invalid):
        imports.add_comparisons(project, [completions(project, ["a", "b"])], **wish)


def test_a_comparison_wants_the_projects_number_of_rankings_unless_set_otherwise(project):
    project.wanted_rankings = 3
    ids = completions(project, ["one", "two"])
    first, second = (
        Comparison.objects.get(pk=imports.add_comparisons(project, [ids], again=True, **wish).ids[0])
        for wish in ({}, {"wanted_rankings": 5, "priority": 2})
    )
    assert (first.wanted_rankings, first.open_slots, first.priority) == (3, 3, 0)
    assert (second.wanted_rankings, second.open_slots, second.priority) == (5, 5, 2)


def test_indented_text_is_another_text_and_blanks_at_the_end_are_not(project):
    ids = completions(project, ["return x", "    return x", "return x\n"])
    (comparison_id,) = imports.add_comparisons(project, [ids]).ids
    texts = ComparisonItem.objects.filter(comparison=comparison_id).values_list("completion__text", flat=True)
    assert set(texts) == {"return x", "    return x"}
    texts = Completion.objects.filter(pk__in=ids).order_by("pk").values_list("text", flat=True)
    assert list(texts) == ["return x", "    return x", "return x\n"]
