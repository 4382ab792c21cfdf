"""Rows of imported prompts and completions, sources, demonstrations: all or nothing, a sentence for each bad line."""

import json

import pytest

from feedback import imports
from feedback.errors import Invalid
from feedback.imports.prompts import split_of
from feedback.models import Comparison, Completion, Prompt, Source
from feedback.web.forms import DemonstrationForm
from tests.factories import membership

pytestmark = pytest.mark.django_db

USER = {"role": "user", "content": "hello"}
ASSISTANT = {"role": "assistant", "content": "hi"}
SYSTEM = {"role": "system", "content": "be kind"}


def nested(levels):
    value = {}
    for _ in range(levels):
        value = {"a": value}
    return value


def test_a_plain_prompt_is_one_turn_of_the_user(project):
    added = imports.add_prompts(project, [{"prompt": "hello"}])
    prompt = Prompt.objects.get(pk=added.prompt_ids[0])
    assert prompt.messages == [USER]
    assert added.created == 1


def test_a_conversation_is_kept_whole(project):
    messages = [SYSTEM, USER, ASSISTANT, {"role": "user", "content": "more"}]
    row = {"messages": messages, "external_id": "a-1", "references": ["yes"], "metadata": {"topic": ["x", 1, None]}}
    imports.add_prompts(project, [row])
    prompt = Prompt.objects.get(external_id="a-1")
    assert (prompt.messages, prompt.references, prompt.metadata) == (messages, ["yes"], {"topic": ["x", 1, None]})


def test_an_upload_without_a_row_is_refused(project):
    with pytest.raises(Invalid, match="There are no rows"):
        imports.add_prompts(project, [])


def test_known_prompts_are_not_made_again(project):
    first = imports.add_prompts(project, [{"prompt": "a"}, {"prompt": "b"}])
    again = imports.add_prompts(project, [{"prompt": "b"}, {"prompt": "c"}, {"prompt": "b"}])
    assert again.created == 1
    assert again.prompt_ids[0] == again.prompt_ids[2] == first.prompt_ids[1]
    assert Prompt.objects.count() == 3


def test_the_same_prompt_lives_in_two_projects(project, stranger):
    elsewhere = stranger.memberships.get().project
    for each in (project, elsewhere):
        assert imports.add_prompts(each, [{"prompt": "a", "external_id": "1"}]).created == 1


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ("text", "must be an object, not a text"),
        (None, "must be an object, not null"),
        ([], "must be an object, not a list"),
        ({}, 'either "messages" or "prompt"'),
        ({"prompt": "a", "messages": [USER]}, 'either "messages" or "prompt"'),
        ({"prompt": 7}, "prompt must be a text, not a number"),
        ({"prompt": True}, "prompt must be a text, not true or false"),
        ({"prompt": ""}, "prompt is empty"),
        ({"prompt": " \n"}, "prompt is empty"),
        ({"prompt": "a\x00b"}, "NUL"),
        ({"prompt": "\ud83d"}, "surrogate"),
        ({"prompt": "x" * 1_000_001}, "1,000,001 characters"),
        ({"messages": []}, '"messages" is empty'),
        ({"messages": "hello"}, "must be a list, not a text"),
        ({"messages": [USER, ASSISTANT]}, "The last message must be the user's"),
        ({"messages": [SYSTEM]}, "The last message must be the user's"),
        ({"messages": [USER, USER]}, "alternate"),
        ({"messages": [USER, SYSTEM, USER]}, "alternate"),
        ({"messages": [ASSISTANT, USER]}, "alternate"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "system, user or assistant"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "system, user or assistant"),
        ({"messages": [{"role": "user"}]}, "content must be a text, not null"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "content must be a text, not a list"),
        ({"messages": [{"role": "user", "content": "x", "name": "y"}]}, 'unknown key "name"'),
        ({"messages": [USER, ASSISTANT] * 500 + [USER]}, "1001 messages"),
        ({"prompt": "a", "extra": 1}, 'unknown key "extra"'),
        ({"prompt": "a", "external_id": 5}, "external_id must be a text"),
        ({"prompt": "a", "external_id": ""}, "external_id is empty"),
        ({"prompt": "a", "external_id": "x" * 201}, "201 characters"),
        ({"prompt": "a", "references": "yes"}, '"references" must be a list'),
        ({"prompt": "a", "references": [1]}, "reference answer must be a text"),
        ({"prompt": "a", "metadata": []}, None),
        ({"prompt": "a", "metadata": [1]}, "metadata must be an object"),
        ({"prompt": "a", "metadata": {"x": "\x00"}}, "NUL"),
        ({"prompt": "a", "metadata": {"\ud800": 1}}, "surrogate"),
        ({"prompt": "a", "metadata": {"x": float("nan")}}, "not finite"),
        ({"prompt": "a", "metadata": {"x": "y" * 100_001}}, "100,"),
        ({"prompt": "a", "metadata": nested(30)}, "nested more than"),
        ({"prompt": "a", "completions": {"text": "b"}}, '"completions" must be a list'),
        ({"prompt": "a", "completions": [3]}, "A completion must be an object, not a number"),
        ({"prompt": "a", "completions": [{"source": "x"}]}, "text must be a text, not null"),
        ({"prompt": "a", "completions": [{"text": "b", "source": ""}]}, "source is empty"),
        ({"prompt": "a", "completions": [{"text": "b", "sampling": "hot"}]}, "sampling must be an object"),
        ({"prompt": "a", "completions": ["\x00"]}, "NUL"),
    ],
)
def test_invalid_rows_are_refused_by_line(project, row, sentence):
    rows = [{"prompt": "good"}, row]
    if sentence is None:  # an empty value is as good as none
        assert imports.add_prompts(project, rows).created == 2
        return
    with pytest.raises(Invalid, match=sentence) as refusal:
        imports.add_prompts(project, rows)
    assert refusal.value.details["errors"][0]["line"] == 2
    assert not Prompt.objects.exists()
    json.dumps(refusal.value.details)


def test_all_bad_lines_are_reported_at_once(project):
    with pytest.raises(Invalid, match=r"Line 1: .*\(3 lines") as refusal:
        imports.add_prompts(project, [{}, {"prompt": "good"}, {"prompt": ""}, 5])
    assert [error["line"] for error in refusal.value.details["errors"]] == [1, 3, 4]


def test_at_most_twenty_bad_lines_are_reported(project):
    with pytest.raises(Invalid) as refusal:
        imports.add_prompts(project, [{}] * 100)
    assert len(refusal.value.details["errors"]) == 20


def test_an_external_id_may_occur_only_once_in_the_rows(project):
    rows = [{"prompt": "a", "external_id": "1"}, {"prompt": "b", "external_id": "1"}]
    with pytest.raises(Invalid, match='Line 2: external_id "1" is already on line 1'):
        imports.add_prompts(project, rows)
    assert not Prompt.objects.exists()


def test_an_external_id_names_one_prompt_for_good(project):
    imports.add_prompts(project, [{"prompt": "a", "external_id": "1"}])
    assert imports.add_prompts(project, [{"prompt": "a", "external_id": "1"}]).created == 0
    with pytest.raises(Invalid, match="belongs to another prompt already"):
        imports.add_prompts(project, [{"prompt": "b", "external_id": "1"}])


def test_the_split_is_a_hash_of_the_messages_and_never_changes(project):
    imports.add_prompts(project, [{"prompt": f"question {index}"} for index in range(500)])
    held_out = Prompt.objects.filter(split="held_out").count()
    assert 60 < held_out < 140  # 20 % of 500, within four standard deviations
    digest = Prompt.objects.first().digest
    assert split_of(digest, 20) == split_of(digest, 20) == Prompt.objects.first().split
    assert split_of(digest, 0) == "train"


def test_completions_come_with_their_prompt_and_name_their_source(project):
    row = {"prompt": "a", "completions": ["one", {"text": "two", "source": "old model", "sampling": {"seed": 1}}]}
    added = imports.add_prompts(project, [row], compare=True)
    texts = dict(Completion.objects.values_list("text", "source__name"))
    assert texts == {"one": "import", "two": "old model"}
    assert Completion.objects.get(text="two").sampling == {"seed": 1}
    comparison = Comparison.objects.get(pk=added.comparison_ids[0])
    assert comparison.texts() == ["one", "two"]


def test_a_row_with_one_completion_makes_no_comparison(project):
    rows = [{"prompt": "a", "completions": ["one"]}, {"prompt": "b"}, {"prompt": "c", "completions": ["x", "x "]}]
    assert imports.add_prompts(project, rows, compare=True).comparison_ids == [None, None, None]
    assert not Comparison.objects.exists()


def test_more_than_nine_completions_cannot_be_compared(project):
    row = {"prompt": "a", "completions": [str(index) for index in range(10)]}
    with pytest.raises(Invalid, match="10 different completions, more than the maximum of 9"):
        imports.add_prompts(project, [row], compare=True)
    assert not Prompt.objects.exists()


def test_completions_find_their_prompt_by_either_id(project):
    ids = imports.add_prompts(project, [{"prompt": "a", "external_id": "x"}, {"prompt": "b"}]).prompt_ids
    source = imports.get_source(project, "checkpoint-1", Source.Kind.CHECKPOINT)
    rows = [
        {"external_id": "x", "text": "one"},
        {"prompt_id": ids[1], "text": "two"},
        {"prompt_id": ids[1], "text": ""},
    ]
    added = imports.add_completions(project, source, rows)
    stored = Completion.objects.in_bulk(added)
    assert [(stored[pk].prompt_id, stored[pk].text) for pk in added] == [
        (ids[0], "one"),
        (ids[1], "two"),
        (ids[1], ""),
    ]


def test_a_known_completion_keeps_its_id(project):
    (prompt_id,) = imports.add_prompts(project, [{"prompt": "a"}]).prompt_ids
    source = imports.get_source(project, "s", Source.Kind.IMPORT)
    row = {"prompt_id": prompt_id, "text": "one"}
    assert imports.add_completions(project, source, [row, row]) == imports.add_completions(project, source, [row]) * 2


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"text": "a"}, 'either "prompt_id" or "external_id"'),
        ({"prompt_id": 1, "external_id": "x", "text": "a"}, 'either "prompt_id" or "external_id"'),
        ({"prompt_id": "1", "text": "a"}, "whole number"),
        ({"prompt_id": True, "text": "a"}, "whole number"),
        ({"prompt_id": 2**70, "text": "a"}, "whole number"),
        ({"prompt_id": 2**62, "text": "a"}, "no such prompt"),
        ({"external_id": "nowhere", "text": "a"}, "no such prompt"),
        ({"prompt_id": 1, "text": None}, "text must be a text"),
        ({"prompt_id": 1, "text": "a", "score": 1}, "unknown key"),
    ],
)
def test_completions_that_cannot_be_used_are_refused_by_line(project, row, sentence):
    source = imports.get_source(project, "s", Source.Kind.IMPORT)
    with pytest.raises(Invalid, match=f"Line 1: .*{sentence}"):
        imports.add_completions(project, source, [row])


def test_prompts_of_another_project_are_not_found(project, stranger):
    elsewhere = stranger.memberships.get().project
    (prompt_id,) = imports.add_prompts(elsewhere, [{"prompt": "a"}]).prompt_ids
    source = imports.get_source(project, "s", Source.Kind.IMPORT)
    with pytest.raises(Invalid, match="no such prompt"):
        imports.add_completions(project, source, [{"prompt_id": prompt_id, "text": "a"}])
    theirs = imports.get_source(elsewhere, "s", Source.Kind.IMPORT)
    with pytest.raises(Invalid, match="another project"):
        imports.add_completions(project, theirs, [])


def test_a_demonstration_is_a_completion_that_a_person_wrote(project, annotator):
    (prompt_id,) = imports.add_prompts(project, [{"prompt": "a"}]).prompt_ids
    member, prompt = membership(annotator, project), Prompt.objects.get(pk=prompt_id)
    demonstration = imports.add_demonstration(member, prompt, "like this")
    assert demonstration.completion.author == annotator
    assert demonstration.completion.source.kind == Source.Kind.PERSON
    assert imports.add_demonstration(member, prompt, "like this") == demonstration
    with pytest.raises(Invalid, match="empty"):
        imports.add_demonstration(member, prompt, "  ")


def test_an_answer_that_a_person_wrote_keeps_its_blanks_and_has_plain_line_feeds():
    form = DemonstrationForm({"comparison": "1", "text": "    return x\r\n\r\nand so on\r\n"})
    assert form.is_valid() and form.cleaned_data["text"] == "    return x\n\nand so on\n"


def test_a_demonstration_answers_a_prompt_of_the_project(project, annotator, stranger):
    (prompt_id,) = imports.add_prompts(stranger.memberships.get().project, [{"prompt": "a"}]).prompt_ids
    with pytest.raises(Invalid, match="another project"):
        imports.add_demonstration(membership(annotator, project), Prompt.objects.get(pk=prompt_id), "x")


@pytest.mark.parametrize("name", ["person-5", "round-0001"])
def test_an_import_cannot_take_the_name_of_a_person_or_of_a_round_to_come(project, name):
    with pytest.raises(Invalid, match="another name"):
        imports.get_source(project, name, Source.Kind.IMPORT)
    assert not project.sources.exists()


def test_an_import_cannot_use_the_source_of_a_person(project):
    imports.get_source(project, "person-5", Source.Kind.PERSON)
    with pytest.raises(Invalid, match="another kind"):
        imports.get_source(project, "person-5", Source.Kind.IMPORT)


def test_completions_that_a_checkpoint_wrote_elsewhere_are_imported_under_its_name(project):
    checkpoint = imports.get_source(project, "round-0001", Source.Kind.CHECKPOINT)
    assert imports.get_source(project, "round-0001", Source.Kind.IMPORT) == checkpoint
