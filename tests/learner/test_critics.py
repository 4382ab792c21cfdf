"""Critics: their values at first, and after training."""

import json

import pytest
import torch
from safetensors.torch import load_file

from tests.learner.worlds.letters import PROMPTS, on_reward_model, ppo_job, reward_model_folder
from tests.learner.worlds.one_batch import gradients, prepared, scored_answers
from tests.learner.worlds.two_processes import run_on_two
from training.learner import ppo
from training.learner.models.partial_forward import trunk_of
from training.learner.models.reward_model import load_reward_model, score
from training.learner.models.token_outputs import PolicyTrunkCritic, RewardTrunkCritic
from training.learner.policy import rollout
from training.learner.runtime.config import HEAD_LEARNING_RATE, PpoConfig
from training.learner.runtime.jobdir import BadInput, JobDirectory
from training.learner.runtime.processes import Processes

pytestmark = pytest.mark.slow


def test_a_shared_critic_computes_its_values_in_the_policy_s_pass(tmp_path):
    context, scored = prepared(tmp_path, critic="shared")
    assert isinstance(context.critic, PolicyTrunkCritic) and len(list(context.critic.parameters())) == 2
    expected = context.critic.score(states_of(context.policy, scored.episodes))[:, 0]
    torch.testing.assert_close(torch.cat(scored.values), expected, atol=1e-5, rtol=0)
    whole = gradients(context, scored, range(24))
    for one, other in zip(whole, gradients(context, scored, range(24), micro_batch_tokens=7), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)
    louder = gradients(context, scored, range(24), value_coefficient=0.2)
    assert not torch.equal(whole[0], louder[0])  # the critic moves the trunk, too
    torch.testing.assert_close(2 * whole[-1], louder[-1])  # the head's own gradient is of the value loss alone


def states_of(model, episodes):
    """Return the state before each completion token, one row at a time by a plain pass."""
    model.set_attn_implementation("eager")
    rows = []
    for prompt, completion in zip(episodes.prompts, episodes.completions, strict=True):
        with torch.no_grad():
            rows.append(model.base_model(torch.tensor([[*prompt, *completion]]))[0][0, len(prompt) - 1 : -1])
    model.set_attn_implementation("accord_packed")
    return torch.cat(rows)


def run_of(job):
    return ppo.load_context(PpoConfig.from_json(json.loads((job / "config.json").read_text())), Processes())


@pytest.mark.parametrize("adapters", [{}, {"lora_rank": 2}], ids=["whole models", "adapters"])
def test_a_critic_on_the_reward_model_starts_as_the_normalised_scores_of_the_text_so_far(tmp_path, adapters):
    _, scored = prepared(tmp_path, **on_reward_model(tmp_path))
    context = run_of(ppo_job(tmp_path / "job", PROMPTS, **on_reward_model(tmp_path), **adapters))
    assert isinstance(context.critic, RewardTrunkCritic) and [*context.critic.state_dict()] == [
        "score.weight",
        "score.bias",
    ]
    asked = []
    model = context.critic._reward_model[0]
    with trunk_of(model.network) as trunk:
        trunk.register_forward_hook(lambda *_: asked.append(1))
    again = rollout.score_episodes(context, scored.episodes, scored_answers(scored))
    assert len(asked) == 1  # the scores are of the same pass
    alone, _ = load_reward_model(str(tmp_path / "reward_model"))
    for i, (prompt, completion) in enumerate(zip(scored.episodes.prompts, scored.episodes.completions, strict=True)):
        prefixes = [[*prompt, *completion[:n]] for n in range(len(completion) + 1)]
        *values, last = score(alone, prefixes)
        torch.testing.assert_close(again.values[i], torch.stack(values), atol=1e-5, rtol=0)
        assert float(again.scores[i]) == pytest.approx(float(last), abs=1e-5)
    assert float(again.scores.std()) > 0.1


def test_a_critic_on_the_reward_model_learns_by_least_squares_on_states_that_stay(tmp_path):
    context, scored = prepared(tmp_path, **on_reward_model(tmp_path), clip_value=0.0)
    chosen = list(range(3, 21))
    model = context.critic._reward_model[0]
    before = {name: part.clone() for name, part in model.network.state_dict().items()}
    *_, weight, bias = gradients(context, scored, chosen)
    targets = rollout.compute_targets(scored, 0.5, None, context.settings)
    returns = torch.cat([targets.returns[i] for i in chosen])
    states = states_of(model.network, scored.episodes.select(chosen))
    with torch.no_grad():
        wrong = states @ context.critic.score.weight[0] + context.critic.score.bias - returns
    torch.testing.assert_close(weight[0], wrong @ states / len(wrong), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(bias[0], wrong.mean(), atol=1e-5, rtol=1e-4)
    after = model.network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.full
@pytest.mark.slow
def test_a_critic_on_the_reward_model_learns_to_predict_the_returns(tmp_path):
    free = {"kl_coefficient": 0.0, "learning_rate": 1e-12, "gae_lambda": 1.0, "clip_value": 0.0}
    job = ppo_job(tmp_path / "job", PROMPTS, steps=40, batch_episodes=128, epochs=4, critic_learning_rate=0.03,
                  **on_reward_model(tmp_path, reward_model=str(shifted_reward_model(tmp_path))), **free)  # fmt: skip
    ppo.main(job)
    losses = [line["value_loss"] for line in JobDirectory(job).metrics()]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def shifted_reward_model(folder):
    """A reward model whose normalised scores are far from their mean under this policy: its critic starts wrong."""
    path = reward_model_folder(folder / "shifted")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"reward_shift": 3.0}))
    return path


@pytest.mark.process
def test_two_processes_and_one_teach_a_critic_on_the_reward_model_the_same(tmp_path):
    options = {"steps": 2, "batch_episodes": 13, "epochs": 2, "learning_rate": 0.01} | on_reward_model(tmp_path)
    one, two = (ppo_job(tmp_path / name, PROMPTS, **options) for name in ("one", "two"))
    ppo.main(one)
    run_on_two(ppo.main, two)
    ours, theirs = (JobDirectory(job).metrics()[-1] for job in (one, two))
    assert ours["critic_gradient_norm"] == pytest.approx(theirs["critic_gradient_norm"], rel=1e-4)
    assert ours["value_loss"] == pytest.approx(theirs["value_loss"], rel=1e-4)
    weights, others = (load_file(job / "model" / "model.safetensors") for job in (one, two))
    for name, weight in weights.items():
        torch.testing.assert_close(weight, others[name], atol=1e-5, rtol=1e-4)


def test_a_head_on_fixed_states_has_a_learning_rate_of_its_own(tmp_path):
    rates = []
    for given in ({}, {"critic_learning_rate": 0.5}):
        context = run_of(ppo_job(tmp_path / "job", PROMPTS, **on_reward_model(tmp_path, **given)))
        rates.append({learner.name: learner.learning_rate for learner in ppo.trained_models(context)})
    assert rates == [{"policy": 1e-4, "critic": HEAD_LEARNING_RATE}, {"policy": 1e-4, "critic": 0.5}]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"rewards": [{"name": "length", "target": 2}], "reward_model": ""},
            "there is no reward_model: set critic to separate or shared",
        ),
        ({"critic_model": "m"}, "only a separate or shared critic starts from critic_model"),
    ],
)
def test_a_critic_on_no_reward_model_is_refused(tmp_path, change, sentence):
    with pytest.raises(BadInput, match=sentence):
        run_of(ppo_job(tmp_path / "job", PROMPTS, **on_reward_model(tmp_path, **change)))


def test_a_critic_on_a_reward_model_of_another_tokenizer_is_refused(tmp_path):
    settings = on_reward_model(tmp_path)
    folder = tmp_path / "reward_model"
    own = json.loads((folder / "tokenizer.json").read_text())
    own["model"]["vocab"] |= {"c": 4, "d": 3}
    (folder / "tokenizer.json").write_text(json.dumps(own))
    with pytest.raises(BadInput, match='with the tokenizer of the policy: set critic to "separate"'):
        run_of(ppo_job(tmp_path / "job", PROMPTS, **settings))
