"""A file in another format is refused by the format's name, with what to do."""

import json

import pytest

from feedback import imports
from feedback.errors import Invalid
from feedback.export import formats
from feedback.export.formats import registry
from feedback.imports.lines import read_lines
from feedback.models import Prompt
from tests.factories import rank_next

pytestmark = pytest.mark.django_db

TURNS = [{"role": "user", "content": "Hi"}]
REPLY = [{"role": "assistant", "content": "Hello"}]
ROWS = {
    "HH-RLHF": {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello", "rejected": "\n\nHuman: Hi\n\nAssistant: No"},
    "TRL's preference format": {"prompt": TURNS, "chosen": REPLY, "rejected": REPLY},
    "TRL's KTO format": {"prompt": TURNS, "completion": REPLY, "label": True},
    "ShareGPT": {"id": "1", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
    "LLaMA-Factory": {"conversations": [], "chosen": {"from": "gpt", "value": "a"}, "rejected": {}},
    "OpenAI's preference format": {"input": {"messages": TURNS}, "preferred_output": REPLY, "non_preferred_output": []},
    "HelpSteer3": {"context": TURNS, "response1": "a", "response2": "b", "overall_preference": -1},
    "HelpSteer2": {"prompt": "Hi", "response": "a", "helpfulness": 3},
    "UltraFeedback": {"instruction": "Hi", "models": ["m"], "completions": [{"response": "a"}]},
    "a chatbot arena": {"question_id": 1, "conversation_a": TURNS, "conversation_b": TURNS, "winner": "tie"},
    "Nectar": {"prompt": "Human: Hi", "answers": [{"answer": "a", "rank": 1.0}]},
    "SHP": {"history": "Hi", "human_ref_A": "a", "human_ref_B": "b", "labels": 1},
    "an export of Label Studio": {"id": 1, "data": {"prompt": "Hi"}, "annotations": []},
    "an export of Argilla": {"fields": {"prompt": "Hi"}, "responses": {}},
    "OpenAssistant": {"message_tree_id": "1", "prompt": {"text": "Hi"}},
    "Alpaca": {"instruction": "Hi", "output": "Hello", "generator": "m"},
}


@pytest.mark.parametrize("name", ROWS)
def test_a_row_of_another_format_is_refused_by_its_name(project, name):
    with pytest.raises(Invalid) as refused:
        imports.add_prompts(project, [ROWS[name]])
    assert f"looks like {name}" in refused.value.message or f"{name}'s battles" in refused.value.message
    assert '"completions"' in refused.value.message
    assert not Prompt.objects.exists()


@pytest.mark.parametrize("format", registry.names())
def test_exports_of_accord_are_recognised_too(project, ann, work, format):
    work(1)
    rank_next(ann)
    (row,) = formats.lines(project, format)
    with pytest.raises(Invalid, match="looks like an export of Accord"):
        imports.add_prompts(project, [json.loads(json.dumps(row))])


@pytest.mark.parametrize("row", [{"prompt": "Hi", "completions": ["a", "b"]}, {"messages": TURNS}])
def test_rows_in_the_documented_format_are_accepted(project, row):
    assert imports.add_prompts(project, [row]).created == 1


@pytest.mark.parametrize("indent", [None, 1])
def test_a_json_array_is_refused_with_the_command_that_converts_it(project, indent):
    rows = [{"prompt": "Hi"}, {"prompt": "Ho"}]
    lines = (json.dumps(rows, indent=indent) + "\n").encode().splitlines(keepends=True)
    with pytest.raises(Invalid, match=r"jq -c '\.\[\]'"):
        imports.add_prompts(project, read_lines(lines))
