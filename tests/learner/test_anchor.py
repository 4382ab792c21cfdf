"""The anchor: "all bad" and "all good" as a logistic model with one cut point."""

import json
import math

import pytest
import torch
from scipy.optimize import minimize_scalar

from tests.learner.worlds.words import ranking_rows, reward_job, utility, words_tokenizer
from training.learner import reward
from training.learner.models.reward_model import load_reward_model
from training.learner.preferences.anchor import Anchor, anchor_losses, anchor_report, anchored_completions
from training.learner.preferences.ranking_data import read_rankings
from training.learner.runtime.config import RewardConfig
from training.learner.runtime.jobdir import BadInput

pytestmark = pytest.mark.slow

QUICK = {"learning_rate": 3e-3, "epochs": 4, "batch_rankings": 8, "ensemble_heads": 0}


def anchored(row: dict) -> dict:
    """Return the row with the anchor of an annotator who considers a completion good if its utility is above 0."""
    values = [utility(text) for text in row["completions"]]
    side = "above" if min(values) > 0 else "below" if max(values) <= 0 else None
    return row | {"anchor": side}


def comparisons(rows):
    return read_rankings(words_tokenizer(), rows, RewardConfig(model="m")).train


def test_the_loss_is_that_of_a_coin_with_the_odds_of_the_distance():
    for raw, anchor, side in ((0.3, -0.5, 1.0), (2.0, 1.0, -1.0), (-30.0, 40.0, 1.0)):
        probability = 1 / (1 + math.exp(-(raw - anchor)))
        expected = -math.log(probability if side > 0 else 1 - probability)
        loss = anchor_losses(torch.tensor([raw]), torch.tensor(anchor), torch.tensor([side]))
        assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_the_completions_of_a_ranking_share_its_weight():
    first, second, third = ranking_rows(3, completions=2)
    rows = [first, second | {"anchor": "below", "weight": 0.5}, third | {"anchor": "above"}]
    found = anchored_completions(comparisons(rows))
    assert sorted(found.place.tolist()) == [2, 3, 4, 5]
    assert found.side.tolist() == [-1, -1, 1, 1] and found.weight.tolist() == [0.25, 0.25, 0.5, 0.5]


@pytest.mark.parametrize("sides", [("below",), ("below", "above")], ids=["all bad alone", "both"])
def test_its_steps_end_at_the_most_likely_score(sides):
    """Compare with scipy's minimum of the same posterior, written out."""
    rows = [row | {"anchor": sides[number % len(sides)]} for number, row in enumerate(ranking_rows(12, completions=2))]
    batch = comparisons(rows)
    raw = torch.randn(24, generator=torch.Generator().manual_seed(0))
    anchor = Anchor(start=0.5, total_weight=12.0)
    for _ in range(300):
        anchor.loss(raw, batch).div(12.0).backward()
        anchor.step(batch, 1.0, 12.0)

    def negative_log_posterior(score: float) -> float:
        total = (score - 0.5) ** 2 / 2
        for place, value in enumerate(raw.tolist()):
            sign = 1 if sides[(place // 2) % len(sides)] == "above" else -1
            total += 0.5 * math.log1p(math.exp(-sign * (value - score)))
        return total

    assert float(anchor.score.detach()) == pytest.approx(minimize_scalar(negative_log_posterior).x, abs=1e-3)


def test_one_pass_counts_the_prior_once():
    rows = [row | {"anchor": "below"} for row in ranking_rows(6, completions=2)]
    batch = comparisons(rows)
    anchor = Anchor(start=0.0, total_weight=6.0)
    anchor.score.data.fill_(2.0)
    raw = torch.zeros(12)
    whole = anchor.loss(raw, batch)
    parts = [anchor.loss(raw[:4], batch[:2]), anchor.loss(raw[4:], batch[2:])]
    assert float(sum(parts).detach()) == pytest.approx(float(whole.detach()))
    assert float(whole.detach()) == pytest.approx(6 * math.log1p(math.exp(-2.0)) + 2.0)


def test_held_out_completions_are_counted_on_their_side():
    rows = [
        row | {"anchor": side} for row, side in zip(ranking_rows(2, completions=2), ("above", "below"), strict=True)
    ]
    report = anchor_report(torch.tensor([1.0, -1.0, 0.5, -2.0]), 0.5, comparisons(rows))
    assert report["held_out_anchor_accuracy"] == pytest.approx((1 + 0 + 0.5 + 1) / 4)
    assert report["held_out_anchored_completions"] == 4
    assert anchor_report(torch.zeros(4), 0.0, comparisons(ranking_rows(2, completions=2))) == {}


@pytest.mark.full
def test_all_bad_and_all_good_change_the_model_and_are_off_without_them(tmp_path):
    rows = ranking_rows(80, completions=2, held_out=20)
    labelled = [anchored(row) for row in rows]
    assert {row["anchor"] for row in labelled} == {"above", "below", None}
    results, weights = {}, {}
    for name, given, more in (
        ("plain", rows, {"epochs": 1}),
        ("off", labelled, {"epochs": 1, "anchor_weight": 0}),
        ("anchor", labelled, {"epochs": 10}),
    ):
        folder = reward_job(tmp_path / name, given, **QUICK | more)
        reward.main(folder)
        results[name] = json.loads((folder / "result.json").read_text())
        weights[name] = load_reward_model(str(folder / "model"))[0].network.state_dict()
    assert (
        "anchor" not in results["plain"] and "reward_anchor" not in (tmp_path / "plain/model/config.json").read_text()
    )
    assert all(torch.equal(weights["plain"][name], weights["off"][name]) for name in weights["plain"])
    assert not torch.equal(weights["plain"]["score.weight"], weights["anchor"]["score.weight"])
    report = results["anchor"]
    assert report["anchored_rankings"] == sum(row["anchor"] is not None for row in labelled[:60])
    assert report["held_out_anchor_accuracy"] > 0.7
    model = load_reward_model(str(tmp_path / "anchor" / "model"))[0]
    assert (model.raw_anchor - model.shift) / model.scale == pytest.approx(report["anchor"], abs=1e-5)


def test_a_row_with_another_anchor_is_refused():
    with pytest.raises(BadInput, match=r"row 1 .*: anchor must be above or below, or null, not 'good'"):
        comparisons([ranking_rows(1)[0] | {"anchor": "good"}])
    with pytest.raises(BadInput, match="anchor must be"):
        comparisons([ranking_rows(1)[0] | {"anchor": 1}])
