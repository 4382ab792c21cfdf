"""Messages to tokens: templates, truncation from the left, and refused rows."""

import pytest

from tests.learner.worlds.letters import letters_tokenizer
from training.learner.preferences.ranking_data import read_rankings
from training.learner.runtime.config import RewardConfig, SampleConfig, SftConfig
from training.learner.runtime.jobdir import BadInput
from training.learner.text import bpe
from training.learner.text.demonstrations import as_demonstration, encode_demonstration
from training.learner.text.messages import (
    budget_batches,
    decode_completion,
    encode_completion,
    encode_prompt,
    read_prompts,
    render,
    share,
    shuffled,
)

TALK = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Where is my parcel?"},
    {"role": "assistant", "content": "On its way."},
    {"role": "user", "content": "Since when?"},
]
TEXTS = ["Be kind. Where is my parcel?", "On its way. Since when?", "Ça va? 你好 🙂"] * 4


@pytest.fixture(scope="module")
def tokenizer():
    return bpe.learn_tokenizer(TEXTS, 300)


def settings(**changes):
    return SampleConfig(model="m", **changes)


def test_a_conversation_is_rendered_turn_by_turn(tokenizer):
    assert tokenizer.decode(render(tokenizer, TALK)) == (
        "<|system|>Be kind.<|end|><|user|>Where is my parcel?<|end|><|assistant|>On its way.<|end|>"
        "<|user|>Since when?<|end|><|assistant|>"
    )


def test_a_tokenizer_without_a_template_gets_the_plain_one(tokenizer):
    plain = bpe.learn_tokenizer(TEXTS, 300)
    plain.chat_template = None
    assert (
        plain.decode(render(plain, TALK[1:3]))
        == "User:\nWhere is my parcel?\n\nAssistant:\nOn its way.\n\nAssistant:\n"
    )


def test_messages_that_a_template_refuses_are_refused_in_its_words():
    picky = bpe.learn_tokenizer(TEXTS, 300)
    picky.chat_template = (
        "{% for message in messages %}{% if message['role'] == 'system' %}"
        "{{ raise_exception('System role not supported') }}{% endif %}{{ message['content'] }}{% endfor %}"
    )
    assert render(picky, TALK[1:])
    with pytest.raises(BadInput, match=r"messages with roles system, user, .*: System role not supported"):
        render(picky, TALK)


def test_any_text_survives_the_byte_level_tokenizer(tokenizer):
    for text in ("Ça va? 你好 🙂", "a\tb\n c", "naïve — œuvre"):
        tokens = encode_completion(tokenizer, text)
        assert tokens[-1] == tokenizer.eos_token_id and tokens.count(tokenizer.eos_token_id) == 1
        assert decode_completion(tokenizer, tokens) == text


def test_a_completion_is_cut_to_the_length_given(tokenizer):
    assert len(encode_completion(tokenizer, "On its way.", max_completion_tokens=3)) == 3


def test_an_over_long_prompt_loses_its_beginning_or_is_refused(tokenizer):
    whole = render(tokenizer, TALK)
    assert encode_prompt(tokenizer, TALK, 10) == whole[-10:]
    assert encode_prompt(tokenizer, TALK, len(whole), "refuse") == whole
    with pytest.raises(BadInput, match=f"{len(whole)} tokens, more than max_prompt_tokens"):
        encode_prompt(tokenizer, TALK, len(whole) - 1, "refuse")


def test_truncated_prompts_are_distinguished_from_whole_ones(tokenizer):
    rows = [{"messages": TALK}, {"messages": TALK[1:2]}]
    prompts = read_prompts(tokenizer, rows, settings(max_prompt_tokens=len(render(tokenizer, TALK[1:2]))))
    assert [prompt.truncated for prompt in prompts] == [True, False]


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([], "has no prompt"),
        ([{}], "row 1: messages must be a list"),
        ([{"messages": []}], "row 1: messages must be a list"),
        ([{"messages": [{"role": "user"}]}], "row 1: a message must have a role and a content"),
        ([{"messages": TALK}, {"messages": [{"role": "user", "content": 3}]}], "row 2: a message"),
        ([{"messages": TALK, "split": "heldout"}], "row 1: split must be train or held_out, not 'heldout'"),
    ],
)
def test_invalid_prompts_are_refused(tokenizer, rows, sentence):
    with pytest.raises(BadInput, match=sentence):
        read_prompts(tokenizer, rows, settings())


def test_a_prompt_that_the_chat_template_refuses_is_named_by_its_row_and_id():
    words = letters_tokenizer()
    words.chat_template = (
        "{% for message in messages %}{% if message['role'] == 'system' %}{{ raise_exception('no system role') }}"
        "{% endif %}{{ message['content'] }}{% endfor %}"
    )
    good = {"prompt_id": 7, "messages": [{"role": "user", "content": "a"}]}
    bad = {"prompt_id": 31, "messages": [{"role": "system", "content": "b"}, *good["messages"]]}
    refusal = r"row 2 \(prompt_id 31\): the chat template refuses messages with roles system, user: no system role"
    with pytest.raises(BadInput, match=r"prompts.jsonl, " + refusal):
        read_prompts(words, [good, bad], settings())
    answers = {"split": "train", "completions": ["a", "b"], "ranks": [1, 2]}
    with pytest.raises(BadInput, match=r"rankings.jsonl, " + refusal):
        read_rankings(words, [good | answers, bad | answers], RewardConfig(model="m"))
    with pytest.raises(BadInput, match=r"demonstrations.jsonl, row 2: the chat template refuses"):
        encode_demonstration(words, as_demonstration({**bad, "completion": "a"}, 2), SftConfig(model="m"))


def test_a_prompt_without_tokens_is_refused():
    with pytest.raises(BadInput, match="has no tokens"):
        read_prompts(letters_tokenizer(), [{"messages": [{"role": "user", "content": ""}]}], settings())


def test_batches_keep_to_their_budget_and_hold_everything_once():
    lengths = [5, 1, 9, 3, 3, 7, 20, 2]
    batches = budget_batches(lengths, 10)
    assert sorted(i for batch in batches for i in batch) == list(range(8))
    assert all(sum(lengths[i] for i in batch) <= 10 or len(batch) == 1 for batch in batches)
    assert budget_batches([], 10) == []


def test_orders_depend_on_seed_and_pass_alone():
    assert shuffled(20, 1, 0) == shuffled(20, 1, 0) != shuffled(20, 1, 1) != shuffled(20, 2, 1)
    assert sorted(shuffled(20, 1, 0)) == list(range(20))


def test_processes_share_everything_once():
    parts = [list(share(range(7), rank, 3)) for rank in range(3)]
    assert parts == [[0, 3, 6], [1, 4], [2, 5]]


def test_a_prompt_whose_roles_the_template_refuses_is_named_by_its_row():
    words = letters_tokenizer()
    words.chat_template = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}a"
    rows = [{"messages": [{"role": role, "content": "a"}]} for role in ("user", "system")]
    with pytest.raises(BadInput, match=r"prompts\.jsonl, row 2: .* refuses messages with roles system"):
        read_prompts(words, rows, settings())
