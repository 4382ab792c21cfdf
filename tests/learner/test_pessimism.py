"""Pessimism: PPO's reward is the mean of the reward model's ensemble less λ of its deviation."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from tests.learner.worlds.letters import letters_tokenizer, policy_folder
from tests.learner.worlds.one_batch import prepared, scored_answers
from tests.learner.worlds.words import ranking_rows, reward_job
from training.demo.annotators import pair_accuracy
from training.learner import reward
from training.learner.models.reward_model import load_reward_model, new_reward_model, save_reward_model, score_groups
from training.learner.preferences.ranking_data import read_rankings
from training.learner.rewards.reward_function import reward_function, sample_scorer
from training.learner.runtime.config import PpoConfig, RewardConfig, SampleConfig
from training.learner.runtime.jobdir import BadInput

pytestmark = pytest.mark.slow

TERM = [{"name": "reward_model"}]


@pytest.fixture
def ensemble(tmp_path):
    """The folder of a random reward model with six heads that differ."""
    folder = policy_folder(tmp_path / "reward", seed=5)
    model, generator = new_reward_model(str(folder), heads=6, seed=0), torch.Generator().manual_seed(1)
    with torch.no_grad():
        model.head.weight.normal_(generator=generator)
        model.ensemble.learned.normal_(generator=generator)
    model.network.config.reward_shift, model.network.config.reward_scale = 0.5, 2.0
    save_reward_model(model, letters_tokenizer(), folder)
    return folder


def expected_rewards(folder, answers, pessimism):
    """Compute mean − λ·deviation head by head, with transformers and numpy alone."""
    network = AutoModelForSequenceClassification.from_pretrained(folder)
    tensors = {name: part.double().numpy() for name, part in load_file(folder / "ensemble.safetensors").items()}
    main, heads = network.score.weight[0].double().detach().numpy(), tensors["learned"] + tensors["prior"]
    rewards = []
    for answer in answers:
        tokens = torch.tensor([[*answer.prompt, *answer.completion]])
        with torch.no_grad():
            state = network.base_model(tokens).last_hidden_state[0, -1].double().numpy()
        scores = [(state @ (main + head - heads.mean(0)) - 0.5) / 2.0 for head in heads]
        rewards.append(np.mean(scores) - pessimism * np.std(scores, ddof=1))
    return np.array(rewards)


@pytest.mark.parametrize("critic", ["separate", "reward_model"])
def test_the_reward_is_the_mean_of_the_heads_less_lambda_of_their_deviation(ensemble, tmp_path, critic):
    changes = {"critic": critic, "reward_model": str(ensemble), "rewards": TERM, "missing_eos_penalty": 0.0}
    for pessimism in (0.0, 0.7):
        _, scored = prepared(tmp_path / str(pessimism), pessimism=pessimism, **changes)
        # A completion that was truncated is read with its end of turn, so its tokens are not those of the policy.
        answers = scored_answers(scored)
        ended = [i for i, answer in enumerate(answers) if answer.finished]
        expected = expected_rewards(ensemble, [answers[i] for i in ended], pessimism)
        assert len(ended) > 5 and np.allclose(scored.scores[ended].numpy(), expected, atol=1e-5)


def test_samples_are_scored_by_the_mean(ensemble, tmp_path):
    _, scored = prepared(tmp_path, pessimism=0.7, reward_model=str(ensemble), rewards=TERM, missing_eos_penalty=0.0)
    answers = [answer for answer in scored_answers(scored) if answer.finished]
    scorer = sample_scorer(SampleConfig(model="m", reward_model=str(ensemble)), letters_tokenizer())
    assert np.allclose(scorer(answers), expected_rewards(ensemble, answers, 0.0), atol=1e-5)


def test_pessimism_needs_an_ensemble(tmp_path):
    folder = policy_folder(tmp_path / "reward", seed=5)
    save_reward_model(new_reward_model(str(folder), heads=1, seed=0), letters_tokenizer(), folder)
    settings = PpoConfig(model="m", reward_model=str(folder), rewards=TERM, pessimism=1.0)
    with pytest.raises(BadInput, match="but the reward model has no ensemble: train one with"):
        reward_function(settings, letters_tokenizer())


def test_pessimism_needs_the_reward_model_among_the_terms():
    with pytest.raises(BadInput, match="not a term of rewards"):
        PpoConfig(model="m", rewards=[{"name": "length", "target": 3}], pessimism=1.0)


def test_the_lower_bound_orders_held_out_completions_as_well_as_the_mean_after_few_rankings(tmp_path):
    rows = ranking_rows(24 + 60, held_out=60)
    job = reward_job(tmp_path / "job", rows, learning_rate=3e-3, batch_rankings=8, contrast=0.0, eval_every=1000)
    reward.main(job)
    model, tokenizer = load_reward_model(str(job / "model"))
    held_out = read_rankings(tokenizer, rows, RewardConfig(model="any")).held_out
    scores = score_groups(model, [comparison.group for comparison in held_out])

    def accuracy(values):
        ranks, groups, start = {}, [], 0
        for comparison in held_out:
            (ranking,) = comparison.rankings
            ranks |= {start + place: rank for rank, place in zip(ranking.ranks, ranking.places, strict=True)}
            groups.append(range(start, start + len(comparison.group.completions)))
            start += len(comparison.group.completions)
        return pair_accuracy(lambda i: values[i].item(), lambda i: -ranks[i], groups)

    assert accuracy(scores.mean) > 0.8
    assert accuracy(scores.lower_bound(1.0)) > accuracy(scores.mean) - 0.02
    assert scores.deviation.mean() > 0.1
