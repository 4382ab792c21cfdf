"""The KL from the imported model, estimated on a policy's samples, beside its exact value by enumeration."""

import json

import pytest
import torch

from tests.learner.worlds.letters import MAX_LENGTH, PROMPTS, completions, log_probs, policy_folder
from training.learner import sample
from training.learner.models.loading import freeze, load_policy
from training.learner.models.oom_retry import MicroBatches
from training.learner.models.packing import Episodes
from training.learner.policy.divergence import divergences_of, mean_divergence
from training.learner.runtime.config import SampleConfig
from training.learner.runtime.jobdir import BadInput, JobDirectory, Stopped
from training.learner.runtime.processes import Processes

pytestmark = pytest.mark.slow


def sample_job(folder, model, root, prompts=PROMPTS, **settings):
    folder.mkdir()
    config = {"model": str(model), "root_model": str(root), "max_completion_tokens": MAX_LENGTH, **settings}
    (folder / "config.json").write_text(json.dumps(config))
    rows = [{"prompt_id": i, "messages": [{"role": "user", "content": text}]} for i, text in enumerate(prompts)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def result_of(job):
    sample.main(job)
    return JobDirectory(job).result()


def exact_divergence(policy, root, prompt):
    """Compute KL(policy‖root) over all completions of a prompt."""
    one, other = (log_probs(load_policy(str(folder))[0], prompt) for folder in (policy, root))
    return float((one.exp() * (one - other)).sum())


@pytest.fixture(scope="module")
def policies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("policies")
    return policy_folder(folder / "policy", seed=1), policy_folder(folder / "root", seed=2)


def test_it_agrees_with_enumeration(policies, tmp_path):
    exact = sum(exact_divergence(*policies, [place + 1]) for place in range(len(PROMPTS))) / len(PROMPTS)
    many = sample_job(tmp_path / "job", *policies, completions_per_prompt=1000, batch_completions=2000)
    assert exact > 0.02
    assert result_of(many)["kl_from_root"] == pytest.approx(exact, rel=0.1)


def test_the_estimate_is_unbiased_and_varies_less_than_the_log_ratio(policies):
    """Expectations over all 85 completions of a prompt, so without an error of sampling."""
    policy, root = (freeze(load_policy(str(folder))[0]) for folder in policies)
    all_of_them = completions()
    episodes = Episodes([[1]] * len(all_of_them), all_of_them)
    estimates = torch.tensor(divergences_of(policy, root, episodes, 1.0, "float32", MicroBatches(64)))
    ours, theirs = (log_probs(model, [1]) for model in (policy, root))
    exact = (ours.exp() * (ours - theirs)).sum()
    assert float((ours.exp() * estimates).sum()) == pytest.approx(float(exact), abs=1e-5)
    assert estimates.min() >= 0 > (ours - theirs).min()
    variances = [(ours.exp() * (values - exact) ** 2).sum() for values in (estimates, ours - theirs)]
    assert variances[0] < variances[1] / 4


def test_its_interval_contains_the_exact_value_nineteen_times_in_twenty():
    """Prompts with different divergences, three completions each; the truth is the mean over all prompts."""
    torch.manual_seed(0)
    held = []
    for _ in range(400):
        of_prompts = 1.0 + torch.randn(40)
        ratios = (of_prompts[:, None] + torch.randn(40, 3)).flatten().tolist()
        found = mean_divergence("kl_from_root", [i // 3 for i in range(120)], ratios)
        held.append(found["kl_from_root_low"] < 1.0 < found["kl_from_root_high"])
        assert found["kl_from_root_high"] - found["kl_from_root"] == pytest.approx(
            1.96 * found["kl_from_root_error"], rel=1e-3
        )
    assert 0.92 <= sum(held) / len(held) <= 0.98


def test_the_kl_of_the_root_from_itself_is_zero(policies, tmp_path):
    _, root = policies
    job = sample_job(tmp_path / "job", root, root, temperature=1.7, completions_per_prompt=3)
    assert result_of(job)["kl_from_root"] == pytest.approx(0.0, abs=1e-6)
    rows = list(JobDirectory(job).rows("samples.jsonl"))
    assert set(rows[0]) == {"prompt_id", "index", "text", "ended", "tokens", "score"}


def test_a_resumed_job_reports_the_same(policies, tmp_path, monkeypatch):
    whole = result_of(sample_job(tmp_path / "whole", *policies, batch_completions=1, completions_per_prompt=4))
    job = sample_job(tmp_path / "stopped", *policies, batch_completions=1, completions_per_prompt=4)
    stops = iter([False, False, True])
    monkeypatch.setattr(Processes, "any", lambda self, flag: next(stops, False))
    with pytest.raises(Stopped):
        sample.main(job)
    assert result_of(job)["kl_from_root"] == whole["kl_from_root"]


@pytest.mark.parametrize("changes", [{"temperature": 0.0}, {"top_p": 0.9}])
def test_it_needs_samples_of_the_whole_distribution(changes):
    with pytest.raises(BadInput, match="set top_p to 1 and temperature above 0"):
        SampleConfig(model="m", root_model="r", **changes)
