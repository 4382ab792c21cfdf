"""Column maps: recognition by the first rows, odd cases of public formats, and refusals that name the field."""

import pytest

from feedback.errors import Invalid
from feedback.imports.maps import find, readers, shipped
from feedback.imports.maps.description import as_values, read_map, read_toml
from feedback.imports.maps.mapping import group_rows, map_row
from feedback.imports.maps.recognition import must_recognise, recognise
from feedback.imports.maps.values import FieldError

USER = [{"role": "user", "content": "Hi"}]
REPLY = [{"role": "assistant", "content": "Hello"}]
OTHER = [{"role": "assistant", "content": "No"}]
HH = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: And?\n\nAssistant:{}"
# A row of each format: the map that recognises it, and the ranks that it gives (None: no judgement).
ROWS = {
    "hh-rlhf": ({"chosen": HH.format(" Yes"), "rejected": HH.format(" No")}, [1, 2]),
    "trl": ({"prompt": USER, "chosen": REPLY, "rejected": OTHER}, [1, 2]),
    "trl-implicit-text": ({"chosen": "The sky is blue", "rejected": "The sky is green"}, [1, 2]),
    "sharegpt": ({"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}, None),
    "llamafactory-alpaca": ({"instruction": "Hi", "input": "Bob", "chosen": "a", "rejected": "b"}, [1, 2]),
    "openai-preference": (
        {"input": {"messages": USER}, "preferred_output": REPLY, "non_preferred_output": OTHER}, [1, 2],
    ),
    "helpsteer3": ({"context": USER, "response1": "a", "response2": "b", "overall_preference": -1}, [1, 2]),
    "arena": ({"winner": "tie (bothbad)", "conversation_a": USER + REPLY, "conversation_b": USER + OTHER}, [1, 1]),
    "nectar": (
        {"prompt": "\n\nHuman: Hi\n\nAssistant: ",
         "answers": [{"answer": "a", "rank": 2.0}, {"answer": "b", "rank": 1.0}]},
        [2, 1],
    ),
    "shp": ({"history": "Hi", "human_ref_A": "a", "human_ref_B": "b", "labels": 0}, [2, 1]),
    "webgpt": ([{"question": {"full_text": "Hi"}, "answer": "a", "score": -1}, {"answer": "b", "score": 1}], [2, 1]),
    "argilla-flat": (
        {"prompt": "Hi", "r1": "a", "r2": "b", "best.responses": [["r2", "r1"]], "best.responses.users": ["u"]},
        [2, 1],
    ),
    "alpaca": ({"instruction": "Hi", "output": "Hello"}, None),
    "prism": (
        {"conversation_id": "c", "user_id": "u", "conversation_history": [
            {"turn": 0, "role": "user", "content": "Hi"},
            {"turn": 0, "role": "model", "content": "a", "score": 10, "if_chosen": False},
            {"turn": 0, "role": "model", "content": "b", "score": 90, "if_chosen": True},
        ]},
        [2, 1],
    ),
}  # fmt: skip


def rows_of(row, name):
    made = find(name)
    flat = readers.flat_rows(made.reader, row, made.rules) if made.reader else [row]
    return [map_row(one, made) for one in flat]


@pytest.mark.parametrize("name", ROWS)
def test_a_row_is_recognised_and_gives_its_ranks(name):
    row, ranks = ROWS[name]
    assert must_recognise([row]).name == name
    (mapped,) = rows_of(row, name)
    assert (mapped.judgement and mapped.judgement.ranks) == ranks
    assert mapped.prompt.messages[-1]["role"] == "user"


def test_a_file_without_a_known_format_is_refused_with_its_columns():
    with pytest.raises(Invalid, match='these columns: "a", "b"'):
        must_recognise([{"a": 1, "b": 2}])


def test_a_transcript_splits_at_the_last_answer_which_may_be_empty():
    (mapped,) = rows_of({"chosen": HH.format(" Yes"), "rejected": HH.format("")}, "hh-rlhf")
    assert [message["content"] for message in mapped.prompt.messages] == ["Hi", "Hello", "And?"]
    assert [one.text for one in mapped.prompt.completions] == ["Yes", ""]


def test_transcripts_with_unequal_earlier_turns_are_refused():
    rejected = HH.format(" No").replace("Hello", "Good day")
    with pytest.raises(FieldError, match="differ before the last answer") as refused:
        rows_of({"chosen": HH.format(" Yes"), "rejected": rejected}, "hh-rlhf")
    assert refused.value.field == "chosen"


def test_two_turns_of_one_role_are_merged_or_refused_as_the_map_says():
    twice = "\n\nHuman: Hi\n\nHuman: You?\n\nAssistant: {}"
    row = {"chosen": twice.format("a"), "rejected": twice.format("b")}
    (mapped,) = rows_of(row, "hh-rlhf")
    assert mapped.prompt.messages == [{"role": "user", "content": "Hi\n\nYou?"}]
    strict = read_map(as_values(find("hh-rlhf")) | {"rules": {"repeated_role": "refuse"}})
    with pytest.raises(FieldError, match='role "user" follow one another'):
        map_row(row, strict)


def test_lists_as_json_inside_text_become_dialogues():
    row = {"prompt": '["Hi", "And?"]', "response_a": '["a", "a2"]', "response_b": '["b", "b2"]',
           "winner_model_a": 0, "winner_model_b": 0, "winner_tie": 1}  # fmt: skip
    (mapped,) = rows_of(row, "arena-55k")
    assert mapped.judgement.ranks == [1, 1]
    assert [turn["content"] for turn in mapped.prompt.completions[1].turns] == ["b", "And?", "b2"]
    with pytest.raises(FieldError, match="should hold a list as JSON") as refused:
        rows_of({**row, "response_b": "['b', 'b2']"}, "arena-55k")
    assert (refused.value.field, refused.value.value) == ("response_b", "['b', 'b2']")


def test_content_parts_are_joined_and_parts_without_text_are_refused():
    def side(*parts):
        return [
            {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
            {"role": "assistant", "content": list(parts)},
        ]

    text = {"type": "text", "text": "a"}
    row = {
        "winner": "model_b",
        "conversation_a": side(text, text),
        "conversation_b": side({"type": "text", "text": "b"}),
    }
    (mapped,) = rows_of(row, "arena")
    assert [one.text for one in mapped.prompt.completions] == ["aa", "b"]
    with pytest.raises(FieldError, match='part of the type "image_url"'):
        rows_of({**row, "conversation_a": side({"type": "image_url", "image_url": "x"})}, "arena")


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"role": "tool", "content": "7"}, 'role "tool"'),
        ({"role": "developer", "content": "Be brief."}, 'role "developer"'),
        ({"role": "assistant", "content": "x", "tool_calls": [{"id": 1}]}, "calls tools"),
        ({"role": "assistant", "content": None}, "has no text"),
    ],
)
def test_roles_and_contents_that_a_prompt_cannot_hold_are_refused(message, reason):
    with pytest.raises(FieldError, match=reason):
        rows_of({"prompt": [message, *USER], "chosen": REPLY, "rejected": OTHER}, "trl")


def test_a_map_may_give_a_role_another_name():
    own = read_map(as_values(find("trl")) | {"rules": {"roles": {"developer": "system"}}})
    mapped = map_row(
        {"prompt": [{"role": "developer", "content": "Be brief."}, *USER], "chosen": REPLY, "rejected": OTHER}, own
    )
    assert [message["role"] for message in mapped.prompt.messages] == ["system", "user"]


def test_every_message_of_a_tree_with_several_ranked_answers_is_a_comparison():
    def answer(name, rank, *replies, **more):
        return {"message_id": name, "role": "assistant", "text": name, "rank": rank, "replies": list(replies), **more}

    follow_up = {"message_id": "q2", "role": "prompter", "text": "And?", "replies": [answer("c", 1), answer("d", 0)]}
    root = {"message_id": "q", "role": "prompter", "text": "Hi", "replies": [answer("a", 0, follow_up), answer("b", 1)]}
    first, second = rows_of({"message_tree_id": "q", "prompt": root}, "openassistant")
    assert (first.judgement.ranks, first.judgement.judge) == ([1, 2], "consensus")
    assert [message["content"] for message in second.prompt.messages] == ["Hi", "a", "And?"]
    assert second.judgement.ranks == [2, 1]
    root["events"] = {"ranking": [{"user_id": "u", "ranked_message_ids": ["b", "a"]}]}
    (by_person, _second) = rows_of({"message_tree_id": "q", "prompt": root}, "openassistant")
    assert (by_person.judgement.ranks, by_person.judgement.judge) == ([2, 1], "u")


def test_neighbouring_rows_of_one_prompt_are_one_comparison():
    rows = [
        {"prompt": "c#", "response": "a", "helpfulness": 3, "verbosity": 0},
        {"prompt": "c#", "response": "b", "helpfulness": 4, "verbosity": 4},
        {"prompt": "d", "response": "c", "helpfulness": 1, "verbosity": 1},
    ]
    units = group_rows((([line], row) for line, row in enumerate(rows, start=1)), find("helpsteer2"))
    (lines, mapped), (_line, alone) = units
    assert (lines, mapped.judgement.ranks, mapped.judgement.ratings["verbosity"]) == ([1, 2], [2, 1], [1, 5])
    assert alone.judgement is None


def test_ratings_that_are_text_or_missing_are_read():
    def answer(text, score, rating):
        return {
            "response": text,
            "model": text,
            "fine-grained_score": score,
            "annotations": {"honesty": {"Rating": rating}},
        }

    row = {"instruction": "Hi", "models": [], "completions": [answer("a", 4.5, "5"), answer("b", 3, "N/A")]}
    (mapped,) = rows_of(row, "ultrafeedback")
    assert (mapped.judgement.ranks, mapped.judgement.ratings) == ([1, 2], {"honesty": [5, None]})


def test_a_ranker_leaves_items_out_only_if_the_map_says_so():
    task = {
        "data": {"prompt": "Hi", "items": [{"id": name, "body": name} for name in "abc"]},
        "annotations": [{"completed_by": 1, "result": [{"type": "ranker", "value": {"ranker": {"rank": ["c", "a"]}}}]}],
    }
    with pytest.raises(FieldError, match='"b" is not in the ranking'):
        rows_of(task, "label-studio")
    lenient = read_map(as_values(find("label-studio")) | {"rules": {"unlisted": "leave_out"}})
    (flat,) = readers.flat_rows("label-studio", task, lenient.rules)
    mapped = map_row(flat, lenient)
    assert [(one.text, rank) for one, rank in zip(mapped.prompt.completions, mapped.judgement.ranks, strict=True)] == [
        ("a", 2),
        ("c", 1),
    ]


def test_equal_texts_are_merged_unless_one_is_preferred_to_the_other():
    def row(*answers):
        return {
            "prompt": "\n\nHuman: Hi\n\nAssistant:",
            "answers": [{"answer": text, "rank": rank} for text, rank in answers],
        }

    (mapped,) = rows_of(row(("a", 1), ("a ", 1), ("b", 2)), "nectar")
    assert ([one.text for one in mapped.prompt.completions], mapped.judgement.ranks) == (["a", "b"], [1, 2])
    with pytest.raises(FieldError, match="the same text, and one is preferred"):
        rows_of(row(("a", 1), ("a", 2), ("b", 3)), "nectar")


def test_a_label_of_one_completion_is_kept_with_it_and_said_to_be_left_out():
    rows = [{"prompt": "Hi", "completion": "a", "label": True}, {"prompt": "Hi", "completion": "b", "label": False},
            {"prompt": "Ho", "completion": "c", "label": True}]  # fmt: skip
    (_lines, pair), (_line, alone) = group_rows((([n], row) for n, row in enumerate(rows, 1)), find("trl-kto"))
    assert pair.judgement.ranks == [1, 2]
    assert (alone.judgement, alone.left_out, alone.prompt.completions[0].sampling) == (
        None,
        ("label",),
        {"label": True},
    )


@pytest.mark.parametrize(
    ("toml", "reason"),
    [
        ('name = 1\ntitle = "X"', "another type"),
        ('name = "x"\ntitle = "X"\n[prompt]\ntxt = "q"', 'unknown key "prompt.txt"'),
        ('name = "x"\ntitle = "X"', "does not say where the prompt is"),
        ('name = "x"\ntitle = "X"\n[prompt]\ntext = "q"\nmessages = "m"', "two places of the prompt"),
        ('name = "x"\ntitle = "X"\n[prompt]\ntext = "q"\n[rules]\nunlisted = "drop"', '"refuse", "leave_out"'),
        ("name = ", "not TOML"),
    ],
)
def test_a_map_with_a_mistake_is_refused_with_the_key(toml, reason):
    with pytest.raises(Invalid, match=reason):
        read_toml(toml)


def test_every_shipped_map_is_the_same_after_it_was_stored():
    assert all(read_map(as_values(made)) == made for made in shipped().values())


def test_a_row_of_prompts_with_completions_is_accords_own():
    assert recognise([{"prompt": "Hi", "completions": ["a", "b"]}, {"messages": USER}]).name == "accord"
