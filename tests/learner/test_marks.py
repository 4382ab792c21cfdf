"""Marked spans: aligned to tokens by their characters, learned beside the rankings, and without effect when off."""

import json

import pytest
import torch
from safetensors.torch import load_file

from tests.learner.worlds.chat import phi3
from tests.learner.worlds.words import VALUES, ranking_rows, reward_job, words_folder, words_tokenizer
from training.learner import reward
from training.learner.models.packing import PromptGroup
from training.learner.models.reward_model import new_reward_model
from training.learner.preferences.marks import (
    BAD,
    GOOD,
    NONE,
    MarkTargets,
    count_left_out,
    read_marks,
    token_classes,
)
from training.learner.preferences.ranking_data import read_rankings
from training.learner.runtime.config import RewardConfig
from training.learner.runtime.jobdir import BadInput
from training.learner.text.control_tokens import encode_text
from training.learner.text.offsets import encode_with_offsets

pytestmark = pytest.mark.slow

SETTINGS = RewardConfig(model="m", marks_weight=1.0)
QUICK = {"learning_rate": 3e-3, "epochs": 2, "batch_rankings": 8, "ensemble_heads": 0}


def row(*completions, spans=(), weight=1.0, prompt=1, split="train"):
    return {"prompt_id": prompt, "split": split, "messages": [{"role": "user", "content": "order"}],
            "completions": list(completions), "ranks": list(range(1, len(completions) + 1)), "annotator": "a",
            "weight": weight, "spans": list(spans)}  # fmt: skip


def span(completion, start, end, mark="bad"):
    return {"completion": completion, "start": start, "end": end, "mark": mark}


def marked_words(rows):
    """Mark the words that the hidden utility counts."""
    for one in rows:
        one["spans"] = []
        for place, text in enumerate(one["completions"]):
            start = 0
            for word in text.split():
                if word in VALUES:
                    mark = "good" if VALUES[word] > 0 else "bad"
                    one["spans"].append(span(place, start, start + len(word), mark))
                start += len(word) + 1
    return rows


@pytest.mark.parametrize("text", ["thanks, help no", "Zoë: 你好 😀\n\nbye", "  wait", "a <eos> b", ""])
def test_offsets_are_of_the_tokens_that_are_learned_and_cover_every_character(text):
    tokenizer = words_tokenizer()
    tokens, offsets = encode_with_offsets(tokenizer, text)
    assert tokens == encode_text(tokenizer, text)
    assert {place for start, end in offsets for place in range(start, end)} >= {
        place for place, character in enumerate(text) if not character.isspace()
    }
    for token, (start, end) in zip(tokens, offsets, strict=True):
        piece = tokenizer.decode([token])
        assert "\ufffd" in piece or piece.strip() == text[start:end].strip()


def test_exactly_the_tokens_of_the_marked_characters_are_marked():
    tokenizer = words_tokenizer()
    text = "Zoë 😀 thanks never bye"
    (key, weight), *others = read_marks(
        tokenizer, [row("no", text, spans=[span(1, 6, 12, "good"), span(1, 19, 22)])], SETTINGS
    ).items()
    assert not others
    tokens, classes = list(key[1]), weight.argmax(1).tolist()
    assert tokens == [*encode_text(tokenizer, text), tokenizer.eos_token_id]
    good = [token for token, mark in zip(tokens, classes, strict=False) if mark == GOOD]
    bad = [token for token, mark in zip(tokens, classes, strict=False) if mark == BAD]
    # the blank before "thanks" is a token of its own and not marked, that before "bye" is in the token of the word
    assert good == tokenizer("thanks").input_ids and bad == tokenizer(" bye").input_ids
    assert len(classes) == len(tokens) - 1 and classes.count(NONE) == len(classes) - len(good + bad)


def test_a_token_has_the_mark_of_most_of_its_marked_characters():
    spans = [(0, 2, GOOD), (2, 5, BAD), (6, 7, GOOD), (7, 8, BAD)]
    assert token_classes([(0, 5), (5, 6), (6, 8), (0, 0)], spans) == [BAD, NONE, GOOD, NONE]
    # of two marks with as many characters the first one, whatever is marked before the token
    assert token_classes([(1, 3), (4, 8)], [(0, 1, GOOD), (4, 6, BAD), (6, 8, GOOD)]) == [NONE, BAD]


def test_marks_of_several_people_are_added_by_weight_and_people_without_marks_do_not_count():
    tokenizer = words_tokenizer()
    rows = [
        row("thanks", "no", spans=[span(0, 0, 6, "good")], weight=2.0),
        row("thanks", "no", spans=[span(0, 0, 6)]),
        row("thanks", "no"),
        row("bye", "no", spans=[span(0, 0, 3)], prompt=2, split="held_out"),
    ]
    (weight,) = read_marks(tokenizer, rows, SETTINGS).values()
    assert (weight == torch.tensor([0.0, 2.0, 1.0])).all()


def test_marks_beyond_the_maximum_length_are_left_out():
    short = RewardConfig(model="m", marks_weight=1.0, max_completion_tokens=1)
    text = "thanks never"
    ((key, weight),) = read_marks(words_tokenizer(), [row(text, "no", spans=[span(0, 0, 12)])], short).items()
    assert len(key[1]) == 1 and len(weight) == 1


def test_the_loss_is_the_mean_cross_entropy_of_the_tokens_and_starts_at_the_entropy_of_the_shares():
    tokenizer = words_tokenizer()
    rows = [row("thanks", "no", spans=[span(0, 0, 6, "good")], weight=2.0), row("thanks", "bye", prompt=1)]
    comparisons = read_rankings(tokenizer, rows, SETTINGS).train
    targets = MarkTargets(read_marks(tokenizer, rows, SETTINGS), comparisons)
    marked = targets.of(comparisons)
    assert sorted({group for group, _, _ in marked.tokens}) == [0, 1]  # the completion of both comparisons
    head = targets.new_head(2)
    loss = targets.loss(head, torch.zeros(len(marked.tokens), 2), marked) / 3  # the weight of the rankings
    count = float(targets.totals.sum())
    assert float(loss) == pytest.approx(-torch.tensor((count + 1) / (count + 3)).log().item(), abs=1e-6)


def test_states_of_tokens_are_those_of_the_sequences_cut_after_them(tmp_path):
    model = new_reward_model(str(words_folder(tmp_path / "policy")), heads=0, seed=0)
    groups = [PromptGroup((5, 6), ((7, 8, 9), (10, 11))), PromptGroup((12,), ((13, 14),))]
    tokens = [(0, 0, 1), (1, 0, 0), (0, 1, 1)]
    features, states = model.features_and_states(groups, tokens)
    torch.testing.assert_close(features, model.features(groups))
    cut = [PromptGroup((5, 6), ((7, 8),)), PromptGroup((12,), ((13,),)), PromptGroup((5, 6), ((10, 11),))]
    torch.testing.assert_close(states, torch.cat([model.features([group]) for group in cut]), atol=1e-5, rtol=1e-5)


def test_a_run_learns_the_marks_and_saves_no_head_of_them(tmp_path):
    job = reward_job(tmp_path / "job", marked_words(ranking_rows(24)), **QUICK | {"epochs": 3}, marks_weight=1.0)
    reward.main(job)
    losses = [json.loads(line)["mark_loss"] for line in (job / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < 0.9 * losses[0]
    assert not any("mark" in file.name for file in (job / "model").iterdir())


def test_marks_change_nothing_while_they_are_off(tmp_path):
    plain = ranking_rows(12)
    jobs = [reward_job(tmp_path / "plain", plain, **QUICK)]
    jobs.append(reward_job(tmp_path / "marked", marked_words(ranking_rows(12)), **QUICK))
    jobs.append(reward_job(tmp_path / "none", plain, **QUICK, marks_weight=1.0))
    for job in jobs:
        reward.main(job)
        assert "mark_loss" not in (job / "metrics.jsonl").read_text()
        expected, actual = (load_file(folder / "model" / "model.safetensors") for folder in (jobs[0], job))
        assert all(torch.equal(expected[part], actual[part]) for part in expected)


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        (span(2, 0, 1), "by index, not 2"),
        (span(0, 1, 9), "0 ≤ start < end ≤ 6, not 1 and 9"),
        (span(0, 2, 2), "not 2 and 2"),
        (span(0, 0, 1, "ugly"), "good or bad, not 'ugly'"),
        ("good", "spans must be a list of objects"),
    ],
)
def test_a_span_outside_of_its_completion_is_refused_by_row(bad, sentence):
    with pytest.raises(BadInput, match=r"rankings.jsonl, row 1 \(prompt_id 1\): ") as refusal:
        read_marks(words_tokenizer(), [row("thanks", "no", spans=[bad])], SETTINGS)
    assert sentence in str(refusal.value)


TURNS = [
    {"role": "assistant", "content": "order number"},
    {"role": "user", "content": "order seven"},
    {"role": "assistant", "content": "thanks, soon"},
]
DIALOGUE = "Assistant:\norder number\n\nUser:\norder seven\n\nAssistant:\nthanks, soon"


def dialogue_row(*spans, text=DIALOGUE):
    return row(text, "no", spans=spans) | {"turns": [TURNS, None]}


def span_of(words, mark="bad"):
    start = DIALOGUE.index(words)
    return span(0, start, start + len(words), mark)


@pytest.mark.parametrize("make", [words_tokenizer, phi3])
def test_marks_in_a_dialogue_are_of_the_tokens_of_the_policys_turns(make):
    """A mark may begin in one turn and end in another: the tokens in between, and the user's, have no class."""
    tokenizer = make()
    start = DIALOGUE.index("number")
    across = span(0, start, DIALOGUE.index("soon"), "good")
    marked = read_marks(tokenizer, [dialogue_row(across, span_of("soon"))], SETTINGS)
    ((key, weight),) = marked.items()
    (comparison,) = read_rankings(tokenizer, [dialogue_row()], SETTINGS).train
    assert key == (comparison.group.prompt, comparison.group.completions[comparison.rankings[0].places[0]])
    words = dict.fromkeys((NONE, GOOD, BAD), "")
    for token, classes in zip(key[1], weight.tolist(), strict=False):
        if any(classes):
            words[classes.index(1.0)] += tokenizer.decode([token])
    assert {mark: "".join(text.split()) for mark, text in words.items()} == {
        NONE: "order", GOOD: "numberthanks,", BAD: "soon"
    }  # fmt: skip


def test_marks_in_the_users_turns_are_left_out_and_counted():
    rows = [dialogue_row(span_of("seven"), span_of("soon"), span_of("User:")), dialogue_row(span_of("seven"))]
    assert count_left_out(rows) == 3
    (weight,) = read_marks(words_tokenizer(), rows, SETTINGS).values()
    tokens = [encode_text(words_tokenizer(), turn["content"]) for turn in TURNS[::2]]
    assert weight.sum() == sum(map(len, tokens))  # the second row has no mark that is read
    held_out = {**rows[0], "split": "held_out"}
    assert count_left_out([held_out, row("a", "b", spans=[span(0, 0, 1)])]) == 0


def test_a_marked_dialogue_whose_text_has_other_turns_is_refused():
    with pytest.raises(BadInput, match=r"row 1 .*each turn under a line with its role"):
        read_marks(words_tokenizer(), [dialogue_row(span(0, 0, 4), text=DIALOGUE[1:])], SETTINGS)
