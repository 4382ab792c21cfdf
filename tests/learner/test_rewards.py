"""Reward terms: the right tokens go to the reward model, and every completion gets its weighted sum."""

import json

import pytest
import torch

from tests.learner.worlds.letters import policy_folder
from tests.learner.worlds.words import words_folder
from training.learner import sample
from training.learner.models.loading import load_tokenizer
from training.learner.models.reward_model import (
    load_reward_model,
    new_reward_model,
    save_reward_model,
    score,
    score_groups,
)
from training.learner.preferences.ranking_data import read_rankings
from training.learner.reward_terms import Answer, make_metric
from training.learner.rewards.reward_function import reward_function
from training.learner.runtime.config import PpoConfig, RewardConfig, SampleConfig
from training.learner.runtime.jobdir import BadInput, JobDirectory
from training.learner.text import bpe
from training.learner.text.messages import decode_completion, encode_completion, encode_prompt

pytestmark = pytest.mark.slow

MESSAGES = [{"role": "user", "content": "wait parcel"}]


@pytest.fixture
def scorer(tmp_path):
    """A reward model's folder whose scores differ; and its tokenizer, which is the policy's too."""
    words_folder(tmp_path / "policy")
    model = new_reward_model(str(tmp_path / "policy"), heads=1, seed=0)
    torch.nn.init.normal_(model.head.weight)
    save_reward_model(model, load_tokenizer(str(tmp_path / "policy")), tmp_path / "scorer")
    return tmp_path / "scorer"


def answer(tokenizer, text, ended=True):
    tokens = encode_completion(tokenizer, text)[: None if ended else -1]
    return Answer({"messages": MESSAGES}, encode_prompt(tokenizer, MESSAGES, 50), tokens, text, ended)


def settings(*terms, **changes):
    return PpoConfig(model="m", rewards=list(terms), **changes)


def test_a_text_has_the_same_score_for_any_tokens_that_the_policy_sampled(scorer):
    model, tokenizer = load_reward_model(str(scorer))
    prompt, whole = encode_prompt(tokenizer, MESSAGES, 50), encode_completion(tokenizer, "parcel")
    pieces = [*tokenizer.encode("parc"), *tokenizer.encode("el")]  # which no encoder would choose
    written = [whole, [*pieces, 1], pieces, [*pieces, tokenizer.pad_token_id]]
    answers = [
        Answer({"messages": MESSAGES}, prompt, tokens, decode_completion(tokenizer, tokens), tokens[-1] == 1)
        for tokens in written
    ]
    assert {answer.text for answer in answers} == {"parcel"}
    free = settings({"name": "reward_model"}, reward_model=str(scorer), missing_eos_penalty=0.0)
    expected = score(model, [[*prompt, *whole]]).expand(4)
    torch.testing.assert_close(reward_function(free, tokenizer)(answers), expected)
    # where the policy's own tokens were scored already, that holds of those that the model reads
    as_written = score(model, [[*answer.prompt, *answer.completion] for answer in answers])
    assert as_written.unique().numel() == 4
    torch.testing.assert_close(reward_function(free, tokenizer)(answers, as_written), expected)


def test_leading_white_space_is_read_alike_in_training_and_in_ppo(scorer):
    model, tokenizer = load_reward_model(str(scorer))
    texts = ["thanks", "  thanks", "\n\nthanks", "thanks\n"]
    row = {"prompt_id": 1, "split": "train", "messages": MESSAGES, "completions": texts, "ranks": [1, 2, 3, 4]}
    (comparison,) = read_rankings(tokenizer, [row], RewardConfig(model="m")).train
    trained = score_groups(model, [comparison.group]).mean
    places = comparison.rankings[0].places
    in_ppo = reward_function(settings({"name": "reward_model"}, reward_model=str(scorer)), tokenizer)(
        [answer(tokenizer, text) for text in texts]
    )
    torch.testing.assert_close(in_ppo, trained[list(places)])
    assert in_ppo.unique().numel() == 4


def test_the_reward_model_reads_the_lengths_that_it_was_trained_with(scorer):
    model, tokenizer = load_reward_model(str(scorer))
    model.network.config.reward_longest = [3, 2]
    save_reward_model(model, tokenizer, scorer)
    written = answer(tokenizer, "thanks for the parcel")
    scored = reward_function(settings({"name": "reward_model"}, reward_model=str(scorer)), tokenizer)([written])
    read = [*encode_prompt(tokenizer, MESSAGES, 3), *encode_completion(tokenizer, written.text, 2)]
    torch.testing.assert_close(scored, score(model, [read]))


def test_with_another_tokenizer_the_text_is_encoded_as_the_reward_model_learned_it(scorer):
    model, own = load_reward_model(str(scorer))
    other = bpe.learn_tokenizer(["wait parcel thanks"] * 3, 270)
    reward = reward_function(
        settings({"name": "reward_model"}, reward_model=str(scorer), missing_eos_penalty=0.0), other
    )
    for ended in (True, False):
        written = answer(other, "thanks for the parcel", ended)
        expected = score(model, [[*encode_prompt(own, MESSAGES, 50), *encode_completion(own, written.text)]])
        assert float(reward([written])[0]) == pytest.approx(float(expected), abs=1e-6)


def test_terms_are_weighted_added_clipped_and_a_missing_end_costs(scorer):
    tokenizer = load_tokenizer(str(scorer))
    terms = ({"name": "length", "target": 2, "weight": 3.0}, {"name": "missing_eos", "weight": 0.5})
    two, four = "abcd"[:2], "abcd"
    assert [len(tokenizer.encode(text)) for text in (two, four)] == [2, 4]
    answers = [Answer({}, [5], [7, 8, 1], two, True), Answer({}, [5], [7, 8, 9, 7], four, False)]
    free = reward_function(settings(*terms, missing_eos_penalty=1.0), tokenizer)(answers)
    assert free.tolist() == [0.0, 3 * -1.0 - 0.5 - 1.0]
    clipped = reward_function(settings(*terms, missing_eos_penalty=1.0, score_clip=2.0), tokenizer)(answers)
    assert clipped.tolist() == [0.0, -2.0 - 1.0]


@pytest.mark.parametrize(
    ("term", "sentence"),
    [
        ({"name": "niceness"}, "there is no reward term 'niceness'; there are"),
        ({"name": "length"}, "the reward term length needs the setting target"),
        ({"name": "missing_eos", "target": 3}, "has no setting 'target'"),
        ({"name": "python", "function": "no.such:thing"}, "cannot import 'no.such:thing'"),
        ({"name": "python", "function": "tests.learner.worlds.letters:nothing"}, "cannot import"),
        ({"name": "python"}, "the reward term python needs the setting function"),
        ({"name": "python", "function": ".tests.learner.worlds.letters:reward"}, "cannot import"),
        (
            {"name": "python", "function": "tests.learner.worlds.letters:MAX_LENGTH"},
            "'tests.learner.worlds.letters:MAX_LENGTH' is not callable",
        ),
    ],
)
def test_an_invalid_reward_term_is_refused_with_a_sentence(scorer, term, sentence):
    with pytest.raises(BadInput, match=sentence):
        reward_function(settings(term), load_tokenizer(str(scorer)))


def sampling_job(folder, **config):
    folder.mkdir()
    rows = [{"prompt_id": 9 - i, "messages": [{"role": "user", "content": text}]}
            for i, text in enumerate(["wait", "parcel please help", "no"])]  # fmt: skip
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {"max_completion_tokens": 12, "completions_per_prompt": 3} | config
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def lines(folder):
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


def test_samples_come_in_the_prompts_order_with_their_scores(tmp_path, scorer):
    folder = sampling_job(tmp_path / "job", model=str(tmp_path / "policy"), reward_model=str(scorer))
    sample.main(folder)
    rows, result = lines(folder), JobDirectory(folder).result()
    assert [(row["prompt_id"], row["index"]) for row in rows] == [(p, i) for p in (9, 8, 7) for i in range(3)]
    assert set(rows[0]) == {"prompt_id", "index", "text", "ended", "tokens", "score"}
    assert all(row["tokens"] == 12 or row["ended"] for row in rows)
    assert result["score_mean"] == pytest.approx(sum(row["score"] for row in rows) / 9) and result["samples"] == 9


def test_samples_do_not_depend_on_the_batch_and_have_no_score_without_a_reward_model(tmp_path):
    words_folder(tmp_path / "policy")
    for size in (1, 4, 64):
        sample.main(sampling_job(tmp_path / str(size), model=str(tmp_path / "policy"), batch_completions=size))
    assert lines(tmp_path / "1") == lines(tmp_path / "4") == lines(tmp_path / "64")
    assert {row["score"] for row in lines(tmp_path / "1")} == {None}


def test_a_completion_is_decoded_with_its_white_space_and_without_the_end_token():
    tokenizer = bpe.learn_tokenizer(["thanks"], 270)
    assert decode_completion(tokenizer, [*tokenizer.encode("  thanks\n"), tokenizer.eos_token_id]) == "  thanks\n"


def test_prompts_too_long_for_the_model_are_refused_before_sampling(tmp_path):
    policy_folder(tmp_path / "policy")
    folder = sampling_job(tmp_path / "job", model=str(tmp_path / "policy"), max_completion_tokens=200)
    with pytest.raises(BadInput, match="the model has room for 128"):
        sample.main(folder)


def test_samples_are_scored_by_the_terms_set_and_not_where_references_lack(tmp_path):
    words_folder(tmp_path / "policy")
    terms = [{"name": "similarity", "weight": 2}, {"name": "length", "target": 4}]
    folder = sampling_job(tmp_path / "job", model=str(tmp_path / "policy"), rewards=terms)
    prompts = [json.loads(line) for line in (folder / "prompts.jsonl").read_text().splitlines()]
    prompts[1]["references"] = ["wait parcel"]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in prompts))
    sample.main(folder)
    similarity, tokenizer = make_metric("similarity"), load_tokenizer(str(tmp_path / "policy"))
    for row in lines(folder):
        if row["prompt_id"] != 8:
            assert row["score"] is None
        else:
            length = -abs(len(tokenizer.encode(row["text"])) - 4) / 4
            assert row["score"] == pytest.approx(2 * similarity(row["text"], ["wait parcel"]) + length, abs=1e-5)


def test_samples_are_scored_by_a_reward_model_only_if_a_term_names_it():
    with pytest.raises(BadInput, match="set reward_model when, and only when, rewards has the term reward_model"):
        SampleConfig(model="m", reward_model="r", rewards=[{"name": "length", "target": 3}])
