"""Ratings: read, standardised, learned by heads beside the score, and reported beside the agreement of two people."""

import json
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from scipy.stats import spearmanr

from tests.learner.worlds.words import ranking_rows, reward_job, words_tokenizer
from training.learner import reward
from training.learner.models.attribute_heads import ATTRIBUTES_FILE, AttributeHeads
from training.learner.models.reward_model import attribute_predictions, load_reward_model
from training.learner.preferences.ranking_data import read_rankings
from training.learner.preferences.rating_report import attribute_report
from training.learner.preferences.ratings import RatingTargets, read_ratings
from training.learner.runtime import start
from training.learner.runtime.config import RewardConfig
from training.learner.runtime.jobdir import BadInput

pytestmark = pytest.mark.slow

SETTINGS = RewardConfig(model="m")
QUICK = {"learning_rate": 3e-3, "epochs": 2, "batch_rankings": 8, "ensemble_heads": 3}
POLITE, CURT = ("please", "sorry", "soon"), ("order", "contact", "wait")
MESSAGES = [{"role": "user", "content": "order"}]


def rated(mean: float, raters: int = 1, values: list[float] | None = None) -> dict:
    return {"mean": mean, "raters": raters} | ({"values": values} if values else {})


def row(completion: str, split: str = "train", prompt: int = 1, **ratings: dict) -> dict:
    return {"prompt_id": prompt, "split": split, "messages": MESSAGES, "completion": completion, "ratings": ratings}


def ranking(*completions: str, weight: float = 1.0, prompt: int = 1) -> dict:
    return {"prompt_id": prompt, "split": "train", "messages": MESSAGES, "completions": list(completions),
            "ranks": list(range(1, len(completions) + 1)), "annotator": "a", "weight": weight}  # fmt: skip


def polite(text: str) -> int:
    """Return a rating of words that the hidden utility of rankings does not count."""
    words = text.split()
    return 3 + sum(words.count(word) for word in POLITE) - sum(words.count(word) for word in CURT)


def rating_rows(rankings: list[dict], seed: int = 0) -> list[dict]:
    """Return ratings of every completion by two people, who err by one at random."""
    r = random.Random(seed)
    rows = []
    for one in rankings:
        for text in one["completions"]:
            values = [float(polite(text) + r.choice([-1, 0, 0, 1])) for _ in range(2)]
            rows.append({**{name: one[name] for name in ("prompt_id", "split", "messages")}, "completion": text,
                         "ratings": {"polite": rated(sum(values) / 2, 2, values)}})  # fmt: skip
    return rows


def write(folder: Path, rows: list[dict]) -> Path:
    (folder / "ratings.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    rankings = ranking_rows(110, held_out=35)
    folder = reward_job(
        tmp_path_factory.mktemp("rated") / "job", rankings, **QUICK | {"epochs": 8, "attribute_weight": 4.0}
    )
    reward.main(write(folder, rating_rows(rankings)))
    return folder


@pytest.mark.full
def test_heads_learn_the_ratings_while_the_score_learns_the_rankings(finished):
    result = json.loads((finished / "result.json").read_text())
    (polite_figures,) = result["attributes"]
    assert polite_figures["name"] == "polite"
    assert polite_figures["correlation"] > 0.6
    assert polite_figures["correlation_low"] < polite_figures["correlation"] < polite_figures["correlation_high"]
    assert (polite_figures["train_completions"], result["unranked_rated_completions"]) == (300, 0)
    assert 30 <= polite_figures["held_out_prompts"] <= polite_figures["held_out_completions"] / 4
    assert result["held_out_accuracy"] > 0.8


def test_the_correlations_are_those_of_scipy_on_the_saved_model(finished):
    (figures,) = json.loads((finished / "result.json").read_text())["attributes"]
    model, tokenizer = load_reward_model(str(finished / "model"))
    rankings = [json.loads(line) for line in (finished / "rankings.jsonl").read_text().splitlines()]
    held_out = read_rankings(tokenizer, rankings, SETTINGS).held_out
    predictions = dict(zip([c for one in held_out for c in one.group.completions],
                           attribute_predictions(model, [one.group for one in held_out])[:, 0].tolist(),
                           strict=True))  # fmt: skip
    rows = [one for one in rating_rows(ranking_rows(110, held_out=35)) if one["split"] == "held_out"]
    encoded = [(*tokenizer.encode(one["completion"]), tokenizer.eos_token_id) for one in rows]
    measured = [i for i, tokens in enumerate(encoded) if tokens in predictions]  # others have a training prompt
    predicted = [predictions[encoded[i]] for i in measured]
    values = [rows[i]["ratings"]["polite"]["values"] for i in measured]
    assert len(measured) == figures["held_out_completions"]
    first, second = ([pair[i] for pair in values] for i in (0, 1))
    for name, x, y in (
        ("correlation", predicted, [sum(pair) / 2 for pair in values]),
        ("correlation_people", first + second, second + first),
        ("correlation_one_person", predicted * 2, first + second),
    ):
        assert figures[name] == pytest.approx(spearmanr(x, y).statistic, abs=1e-6), name


def test_the_normalised_prediction_has_mean_zero_and_deviation_one_on_the_training_completions(finished):
    model, tokenizer = load_reward_model(str(finished / "model"))
    rankings = [json.loads(line) for line in (finished / "rankings.jsonl").read_text().splitlines()]
    groups = [one.group for one in read_rankings(tokenizer, rankings, SETTINGS).train]
    normal = model.attributes.normalised(attribute_predictions(model, groups))
    assert normal.mean().item() == pytest.approx(0, abs=1e-4)
    assert normal.std(correction=0).item() == pytest.approx(1, abs=1e-4)


def test_without_ratings_every_bit_is_as_before(tmp_path):
    rows = ranking_rows(20, held_out=4)
    jobs = [reward_job(tmp_path / name, rows, **QUICK) for name in ("plain", "empty")]
    jobs.append(reward_job(tmp_path / "off", rows, **QUICK, attribute_weight=0))
    write(jobs[1], [])
    write(jobs[2], rating_rows(rows))
    for job in jobs:
        reward.main(job)
        assert not (job / "model" / ATTRIBUTES_FILE).exists()
        assert "attributes" not in json.loads((job / "result.json").read_text())
        for name in ("model.safetensors", "ensemble.safetensors"):
            expected, actual = (load_file(folder / "model" / name) for folder in (jobs[0], job))
            assert all(torch.equal(expected[part], actual[part]) for part in expected)
    assert load_reward_model(str(jobs[0] / "model"))[0].attributes is None


@pytest.mark.slow
def test_a_run_with_ratings_that_is_stopped_ends_in_the_same_bits(tmp_path, monkeypatch):
    rows = ranking_rows(20, held_out=4)
    whole, parts = (write(reward_job(tmp_path / name, rows, **QUICK), rating_rows(rows)) for name in ("whole", "parts"))
    reward.main(whole)
    stops = iter([False, True])
    monkeypatch.setattr(start, "StopSignal", lambda: type("Stop", (), {"received": property(lambda _: next(stops))})())
    with pytest.raises(reward.Stopped):
        reward.main(parts)
    monkeypatch.setattr(start, "StopSignal", lambda: type("Stop", (), {"received": False})())
    reward.main(parts)
    for name in ("model.safetensors", ATTRIBUTES_FILE):
        expected, actual = (load_file(folder / "model" / name) for folder in (whole, parts))
        assert all(torch.equal(expected[part], actual[part]) for part in expected)


def test_the_loss_is_half_the_squared_error_of_every_persons_standardised_rating():
    rankings = [ranking("thanks", "bye", weight=2.0), ranking("thanks", "no", prompt=1)]
    tokenizer = words_tokenizer()
    comparisons = read_rankings(tokenizer, rankings, SETTINGS).train
    rows = [row("thanks", honest=rated(5, 3), kind=rated(2)), row("bye", honest=rated(1)), row("never", kind=rated(4))]
    targets = RatingTargets(read_ratings(tokenizer, rows, SETTINGS), comparisons)
    assert (targets.names, targets.unranked) == (("honest", "kind"), 1)
    mean, deviation = 4.0, 3**0.5  # of 5, 5, 5 and 1; the only rating of "kind" that counts is its mean
    heads = AttributeHeads(targets.names, 2)
    with torch.no_grad():
        heads.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    features = {"thanks": (0.5, 0.3), "bye": (-1.0, 0.7), "no": (9.0, 9.0)}
    texts = {(*tokenizer.encode(text), tokenizer.eos_token_id): text for text in features}
    stacked = torch.tensor([features[texts[tokens]] for one in comparisons for tokens in one.group.completions])
    squares = 3 * ((5 - mean) / deviation - 0.5) ** 2 + ((1 - mean) / deviation + 1) ** 2 + 0.3**2
    loss = targets.loss(heads, stacked, comparisons)
    assert float(loss.detach()) / 3 == pytest.approx(squares / 5 / 2, rel=1e-6)  # total weight 3, five ratings
    parts = [targets.loss(heads, part, [one]) for part, one in zip(stacked.split(2), comparisons, strict=True)]
    assert float(sum(parts).detach()) == pytest.approx(float(loss.detach()), rel=1e-6)


def test_texts_whose_tokens_are_the_same_are_one_completion():
    short = RewardConfig(model="m", max_completion_tokens=2)
    rows = [row("thanks help no", honest=rated(5, 1, [5])), row("thanks help bye", honest=rated(2, 2, [1, 3]))]
    (completion,) = read_ratings(words_tokenizer(), rows, short).train.values()
    assert completion["honest"] == (3.0, 3, (5.0, 1.0, 3.0))


def test_with_few_ratings_of_two_people_unknown_figures_are_left_out():
    tokenizer = words_tokenizer()
    held_out = {
        **ranking("thanks", "bye", prompt=2),
        "split": "held_out",
        "messages": [{"role": "user", "content": "soon"}],
    }
    data = read_rankings(tokenizer, [ranking("no", "help"), held_out], SETTINGS)
    rows = [{**row(text, "held_out", 2, honest=rated(mean)), "messages": held_out["messages"]}
            for text, mean in (("thanks", 5), ("bye", 1))]  # fmt: skip
    ratings = read_ratings(tokenizer, rows, SETTINGS)
    (figures,) = attribute_report(("honest",), torch.tensor([[0.1], [0.2]]), data.held_out, ratings)
    assert abs(figures["correlation"]) == pytest.approx(1) and figures["correlation_low"] is None
    assert figures["correlation_people"] is None and figures["held_out_completions_of_two_people"] == 0


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        ({"ratings": {}}, "ratings must be an object with one object per attribute"),
        ({"ratings": {"honest": {"mean": "5"}}}, "the mean of 'honest' must be a number, not '5'"),
        ({"ratings": {"honest": rated(5, 0)}}, "raters of 'honest' must be a whole number of at least 1, not 0"),
        ({"ratings": {"honest": rated(5, 2, [5.0])}}, "values of 'honest' must be a list with one number per rater"),
        ({"split": "test"}, "split must be train or held_out, not 'test'"),
        ({"completion": None}, "completion must be a string"),
    ],
)
def test_a_row_that_has_no_ratings_is_refused_by_name(bad, sentence):
    with pytest.raises(BadInput, match=r"ratings.jsonl, row 1 \(prompt_id 1\): ") as refusal:
        read_ratings(words_tokenizer(), [row("thanks", honest=rated(5)) | bad], SETTINGS)
    assert sentence in str(refusal.value)


def test_an_unknown_attribute_is_refused_and_the_known_ones_are_listed():
    with pytest.raises(BadInput, match="no attribute 'kind'; it has honest, polite"):
        AttributeHeads(("honest", "polite"), 2).index("kind")
