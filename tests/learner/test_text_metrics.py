"""Rewards without a reward model: similarity of a text to reference texts."""

import json

import pytest

from tests.learner.worlds.letters import letters_tokenizer, ppo_job
from training.learner import ppo
from training.learner.reward_terms import Answer, make_metric
from training.learner.reward_terms.text_metrics import squad_words
from training.learner.rewards.reward_function import reward_function
from training.learner.runtime.config import PpoConfig
from training.learner.runtime.jobdir import BadInput, JobDirectory


@pytest.mark.parametrize(
    ("name", "text", "references", "expected"),
    [
        ("exact_match", "The Eiffel Tower!", ["eiffel tower"], 1.0),
        ("exact_match", "Eiffel", ["eiffel tower"], 0.0),
        ("exact_match", "two", ["one", "two."], 1.0),
        # 2 of 3 words are right and 2 of 4 found: 2 · ⅔ · ½ / (⅔ + ½)
        ("token_f1", "green eggs, ham", ["green eggs without bacon"], 4 / 7),
        ("token_f1", "a the an", ["an"], 1.0),
        ("token_f1", "", ["word"], 0.0),
        ("token_f1", "dog dog", ["dog cat"], 0.5),  # a word counts as often as both have it
        # Lin 2004, §3: "police killed the gunman" and "police kill the gunman" share three of four words in order
        ("rouge_l", "police kill the gunman", ["police killed the gunman"], 0.75),
        ("rouge_l", "the gunman kill police", ["police killed the gunman"], 0.5),
        ("bleu", "the cat sat on the mat", ["the cat sat on the mat"], 1.0),
        ("bleu", "the the the", ["cat"], 0.0),
        # precisions 2/2 and 1/1, brevity exp(1 − 3/2)
        ("bleu", "the cat", ["the cat sat"], 0.6065306597),
        ("similarity", "the cat", ["the cat"], 1.0),
        ("similarity", "xyz", ["the cat"], 0.0),
        # characters a b: 1-grams P 1 R ⅔, 2-grams P 1 R ½; mean P 1, R 7/12; F2 = 5PR / (4P + R)
        ("similarity", "ab", ["abc"], 5 * (7 / 12) / (4 + 7 / 12)),
        ("similarity", "你好", ["再见", "你好"], 1.0),
    ],
)
def test_a_metric_has_the_value_computed_by_hand(name, text, references, expected):
    assert make_metric(name)(text, references) == pytest.approx(expected, abs=1e-6)


def test_words_are_normalised_as_by_squad():
    assert squad_words("  The  U.S.A., an “Anthem”; A-theory ") == ["usa", "“anthem”", "atheory"]


def test_settings_of_a_metric_reach_its_library():
    assert make_metric("rouge_l", use_stemmer=True)("police kills", ["police killed"]) == 1.0
    assert make_metric("bleu", tokenize="char")("ab", ["ab"]) == pytest.approx(1.0)


def reward_of(*terms):
    settings = PpoConfig(model="m", rewards=list(terms), missing_eos_penalty=0.0)
    return reward_function(settings, letters_tokenizer())


def test_metrics_are_terms_like_others():
    reward = reward_of({"name": "token_f1", "weight": 2.0}, {"name": "length", "target": 4})
    answers = [Answer({"references": ["b c"]}, [1], [2, 3, 0], "b c", True)]
    assert reward(answers).tolist() == [2.0 - 0.5]


@pytest.mark.parametrize(
    ("term", "sentence"),
    [
        ({"name": "bleu", "tokenize": "no-such"}, "tokenize of the reward term bleu must be one of 13a, intl"),
        ({"name": "rouge_l", "use_stemmer": 1}, "use_stemmer of the reward term rouge_l must be true or false"),
        ({"name": "token_f1", "stem": True}, "token_f1 has no setting 'stem'"),
        ({"name": "rouge"}, "there is no reward term 'rouge'; there are attribute, bleu, exact_match, length"),
    ],
)
def test_an_invalid_metric_is_refused(term, sentence):
    with pytest.raises(BadInput, match=sentence):
        reward_of(term)


@pytest.mark.slow
@pytest.mark.parametrize("references", [None, [], "a b", [1]])
def test_prompts_without_references_are_refused_before_anything_is_written(tmp_path, references):
    job = metric_job(tmp_path / "job", "token_f1", {"a": ["b"], "b": references})
    with pytest.raises(BadInput, match="row 2: the reward term token_f1 needs references"):
        ppo.main(job)


def metric_job(folder, name, references, **settings):
    """One prompt a letter, with its references; no reward model."""
    job = ppo_job(folder, list(references), rewards=[{"name": name}], **settings)
    rows = [json.loads(line) for line in (job / "prompts.jsonl").read_text().splitlines()]
    rows = [row | {"references": found} for row, found in zip(rows, references.values(), strict=True)]
    (job / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return job


@pytest.mark.slow
def test_a_policy_learns_to_answer_by_a_metric_alone(tmp_path):
    answers = {"a": ["d c"], "b": ["c", "b"], "c": ["b d"], "d": ["d"]}
    job = metric_job(tmp_path / "job", "token_f1", answers, steps=15, batch_episodes=64, learning_rate=0.01,
                     kl_coefficient=0.01, algorithm="rloo", completions_per_prompt=16,
                     missing_eos_penalty=0.2)  # fmt: skip
    ppo.main(job)
    rewards = [line["reward"] for line in JobDirectory(job).metrics()]
    assert rewards[0] < 0.4 and rewards[-1] > rewards[0] + 0.3
