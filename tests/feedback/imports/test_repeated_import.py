"""An import of rows that are partly known: nothing is stored twice, and what is new is recorded or refused."""

import pytest

from feedback import imports
from feedback.errors import Invalid
from feedback.models import Comparison, Completion, Prompt

pytestmark = pytest.mark.django_db

ROW = {
    "prompt": "a",
    "completions": ["x", "y"],
    "external_id": "1",
    "references": ["r"],
    "metadata": {"topic": "t"},
}


@pytest.mark.slow
def test_the_same_rows_again_make_no_comparison_again(project):
    first = imports.add_prompts(project, [ROW, {"prompt": "b", "completions": ["x", "y"]}], compare=True)
    again = imports.add_prompts(project, [ROW, {"prompt": "b", "completions": ["y", "x"]}], compare=True)
    assert (first.compared, first.compared_before) == (2, 0)
    assert (again.created, again.changed, again.compared, again.compared_before) == (0, 0, 0, 2)
    assert again.comparison_ids == first.comparison_ids
    assert Comparison.objects.count() == 2


def test_a_row_that_occurs_twice_in_one_file_makes_one_comparison(project):
    added = imports.add_prompts(project, [ROW, ROW], compare=True)
    assert (added.compared, added.compared_before) == (1, 1)
    assert len(set(added.comparison_ids)) == Comparison.objects.count() == 1


def test_known_completions_are_compared_again_on_request(project):
    imports.add_prompts(project, [ROW], compare=True)
    assert imports.add_prompts(project, [ROW], compare=True, again=True).compared == 1
    assert Comparison.objects.count() == 2


def test_other_completions_of_a_known_prompt_make_a_comparison(project):
    imports.add_prompts(project, [ROW], compare=True)
    added = imports.add_prompts(project, [{"prompt": "a", "completions": ["x", "y", "z"]}], compare=True)
    assert (added.compared, added.compared_before) == (1, 0)


def test_gold_of_the_same_texts_is_no_comparison_to_rank(project):
    (ids,) = imports.add_prompts(project, [ROW]).completion_ids
    imports.add_gold(project, [{"completion_ids": ids, "ranks": [1, 2]}])
    assert imports.add_prompts(project, [ROW], compare=True).compared == 1


def test_a_prompt_may_have_several_external_ids_and_answers_to_each(project):
    rows = [{"prompt": "a", "external_id": "row-1"}, {"prompt": "a", "external_id": "row-2"}]
    added = imports.add_prompts(project, rows)
    assert added.created == 1 and len(set(added.prompt_ids)) == 1
    source = imports.get_source(project, "model", "import")
    sent = [{"external_id": name, "text": f"to {name}"} for name in ("row-1", "row-2")]
    imports.add_completions(project, source, sent)
    assert set(Completion.objects.values_list("prompt", flat=True)) == set(added.prompt_ids)
    with pytest.raises(Invalid, match='row-2" belongs to another prompt already'):
        imports.add_prompts(project, [{"prompt": "b", "external_id": "row-2"}])


def test_references_and_metadata_of_a_known_prompt_are_recorded(project):
    imports.add_prompts(project, [{"prompt": "a"}])
    more = {"prompt": "a", "references": ["r", "s"], "metadata": {"page": 3}, "external_id": "9"}
    assert imports.add_prompts(project, [ROW, more]).changed == 1
    prompt = Prompt.objects.get()
    assert (prompt.references, prompt.metadata) == (["r", "s"], {"topic": "t", "page": 3})
    assert (prompt.external_id, set(prompt.external_ids.values_list("value", flat=True))) == ("1", {"1", "9"})
    assert imports.add_prompts(project, [ROW, more]).changed == 0


def test_tags_of_a_known_prompt_are_added_to_its_tags(project):
    imports.add_prompts(project, [{"prompt": "a", "metadata": {"tags": ["x", "y"]}}])
    more = {"prompt": "a", "metadata": {"tags": ["y", "z"]}}
    assert imports.add_prompts(project, [more, more]).changed == 1
    assert Prompt.objects.get().metadata == {"tags": ["x", "y", "z"]}
    with pytest.raises(Invalid, match='another value of the metadata "tags"'):
        imports.add_prompts(project, [{"prompt": "a", "metadata": {"tags": "w"}}])


def test_contradicting_metadata_is_refused_by_line_and_nothing_is_stored(project):
    imports.add_prompts(project, [ROW])
    other = {"prompt": "a", "metadata": {"topic": "other"}, "external_id": "2"}
    with pytest.raises(Invalid, match=r'Line 2: .*another value of the metadata "topic": t'):
        imports.add_prompts(project, [{"prompt": "new"}, other])
    assert Prompt.objects.count() == 1 and not Prompt.objects.get().external_ids.filter(value="2").exists()


def test_all_bad_lines_are_counted_and_the_first_twenty_reported(project):
    with pytest.raises(Invalid, match=r"\(500 lines cannot be used.\)") as refused:
        imports.add_prompts(project, [{"prompt": 3}] * 500)
    assert len(refused.value.details["errors"]) == 20
