"""The program guards: its figures beside independent computations and beside the program evaluate."""

import json
import random
from statistics import fmean

import numpy as np
import pytest
import scipy
import torch

from tests.learner.worlds.evaluated import evaluate_job
from tests.learner.worlds.letters import PROMPTS, damaged_policy, log_prob, policy_folder
from training.learner import evaluate, guards
from training.learner.guards import paired
from training.learner.models.loading import load_policy
from training.learner.policy.completion_figures import is_repetitive
from training.learner.runtime.config.guards import GUARD_METRICS, GuardsConfig
from training.learner.runtime.jobdir import BadInput, JobDirectory, Stopped, TrainingFailed
from training.learner.runtime.processes import Processes

TEXTS = ("a b c d a", "d d", "b")
COMPLETIONS = {"completions_per_prompt": 12, "batch_completions": 100, "seed": 3}


def guards_job(folder, prompts=PROMPTS, texts=TEXTS, **settings):
    """Make a job with a policy, its base and its root."""
    policies = {name: folder.parent / name for name in ("policy", "base", "root")}
    for seed, path in enumerate(policies.values(), 1):
        if not path.exists():
            policy_folder(path, seed=seed)
    config = {"base_model": str(policies["base"]), "root_model": str(policies["root"]), **COMPLETIONS, **settings}
    job = evaluate_job(folder, prompts, **config)
    (job / "guard_texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return job


def result_of(job):
    guards.main(job)
    return JobDirectory(job).result()


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A run, and its result."""
    job = guards_job(tmp_path_factory.mktemp("guards") / "job")
    return job, result_of(job)


@pytest.mark.slow
def test_its_files_have_every_guard_of_both_models(measured):
    _, result = measured
    assert set(result["guards"]) == {"nll", *GUARD_METRICS, "tokens", "cut_off", "empty", "repeated"}
    assert (result["guards"]["bleu"]["count"], result["guards"]["empty"]["count"]) == (2, 4)
    assert (result["guard_texts"], result["short_texts"], result["truncated_texts"]) == (2, 1, 0)


@pytest.mark.slow
def test_it_keeps_no_samples_since_its_completions_are_only_measured(measured):
    job, _result = measured
    assert not (job / "samples_at_steps.jsonl").exists()


@pytest.mark.slow
def test_the_figures_are_those_that_the_program_evaluate_finds_with_the_same_seed(measured, tmp_path):
    """The divergences of that program are compared with enumeration in test_evaluate.py."""
    job, result = measured
    figures = {}
    for side, name, root in (("before", "base", "root"), ("after", "policy", "base")):
        models = {"model": str(job.parent / name), "root_model": str(job.parent / root)}
        other = evaluate_job(tmp_path / side, **models, **COMPLETIONS)
        evaluate.main(other)
        figures[side] = JobDirectory(other).result()["metrics"]
        for guard in set(result["guards"]) - {"nll"}:
            assert result["guards"][guard][side] == pytest.approx(figures[side][guard]["value"]), (guard, side)
    assert result["kl_from_base"] == pytest.approx(figures["after"]["kl_from_root"]["value"], abs=1e-6)
    assert result["kl_from_root"] != pytest.approx(result["kl_from_base"], rel=0.01)


@pytest.mark.slow
def test_the_likelihood_of_the_texts_is_that_of_plain_passes(measured):
    job, result = measured
    texts = [[" abcd".index(letter) for letter in text.split()] for text in TEXTS]
    means = {}
    for side, name in (("before", "base"), ("after", "policy")):
        model = load_policy(str(job.parent / name))[0]
        # The tokenizer of this world has no BOS token, so the first letter is not scored.
        with torch.no_grad():
            scores = [(float(log_prob(model, text[:1], text[1:])), len(text) - 1) for text in texts if len(text) > 1]
        means[side] = fmean(-total / tokens for total, tokens in scores)
    assert {side: result["guards"]["nll"][side] for side in means} == pytest.approx(means, abs=1e-5)


@pytest.mark.slow
def test_a_policy_that_is_its_base_and_its_root_has_no_difference(tmp_path):
    base = str(policy_folder(tmp_path / "one"))
    job = guards_job(tmp_path / "job", list(PROMPTS) * 8, model=base, base_model=base, root_model=base)
    result = result_of(job)
    assert all(guard["difference"] == pytest.approx(0, abs=1e-7) for guard in result["guards"].values())
    assert result["kl_from_base"] == result["kl_from_root"] == pytest.approx(0, abs=1e-6)
    assert result["guards"]["empty"]["count"] == 32 and result["guards"]["empty"]["error"] == 0


@pytest.mark.slow
def test_without_prompts_the_texts_alone_are_measured_and_without_both_nothing(tmp_path):
    assert set(result_of(guards_job(tmp_path / "texts", ()))["guards"]) == {"nll"}
    nothing = result_of(guards_job(tmp_path / "nothing", (), ()))
    assert nothing["guards"] == {} and "kl_from_base" not in nothing


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_same_result(tmp_path, monkeypatch):
    settings = {"completions_per_prompt": 2, "batch_completions": 2}
    whole = result_of(guards_job(tmp_path / "whole", **settings))
    job = guards_job(tmp_path / "stopped", **settings)
    stops = iter([False, True])
    monkeypatch.setattr(Processes, "any", lambda self, flag: next(stops, False))
    with pytest.raises(Stopped):
        guards.main(job)
    again = result_of(job)
    assert {name: again[name] for name in ("guards", "kl_from_base")} == {
        name: whole[name] for name in ("guards", "kl_from_base")
    }


@pytest.mark.slow
def test_a_damaged_base_is_reported_and_not_measured(tmp_path):
    job = guards_job(tmp_path / "job", texts=(), base_model=str(damaged_policy(tmp_path / "damaged")))
    with pytest.raises(TrainingFailed, match="base model's log-probability is nan at step 1"):
        guards.main(job)


@pytest.mark.slow
def test_a_run_without_a_base_is_refused(tmp_path):
    with pytest.raises(BadInput, match="set base_model, the checkpoint that the policy was trained from"):
        guards.main(guards_job(tmp_path / "job", base_model=""))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"base_model": "b", "top_p": 0.5}, "set top_p to 1"),
        ({"base_model": "b", "metrics": [{"name": "length", "target": 3}]}, "metrics are text metrics"),
    ],
)
def test_guards_with_settings_that_cannot_be_used_are_refused(changes, sentence):
    with pytest.raises(BadInput, match=sentence):
        GuardsConfig.from_json({"model": "m", **changes})


def test_two_models_are_compared_prompt_by_prompt():
    values = np.random.default_rng(0).normal(size=(2, 40, 3))
    comparison = paired([i // 3 for i in range(120)], *(side.flatten().tolist() for side in values))
    before, after = values.mean(2)
    test = scipy.stats.ttest_rel(after, before)
    assert comparison["difference"] == pytest.approx(after.mean() - before.mean())
    assert comparison["difference"] / comparison["error"] == pytest.approx(test.statistic)
    assert paired(range(29), [0.0] * 29, [1.0] * 29) | {"before": 0, "after": 1} == {
        "before": 0, "after": 1, "difference": 1, "error": None, "count": 29,
    }  # fmt: skip


def repeats(tokens):
    """Say whether a phrase of at least four tokens stands three times in a row, by looking at every place."""
    return any(
        tokens[i : i + n] == tokens[i + n : i + 2 * n] == tokens[i + 2 * n : i + 3 * n]
        for n in range(4, len(tokens) // 3 + 1)
        for i in range(len(tokens) - 3 * n + 1)
    )


def test_a_repetition_is_a_phrase_of_four_tokens_three_times_in_a_row():
    assert is_repetitive([9, *[1, 2, 3, 4] * 3, 9]) and is_repetitive([7] * 12)
    assert not is_repetitive([9, *[1, 2, 3, 4] * 2, 1, 2, 3]) and not is_repetitive([7] * 11)
    assert not is_repetitive([1, 2, 3] * 3) and not is_repetitive([]) and not is_repetitive(list(range(60)))
    generator = random.Random(0)
    phrases = [[generator.choice((1, 2)) for _ in range(generator.randrange(2, 7))] for _ in range(150)]
    texts = [[2, 1, *phrase * 3, *phrase[: generator.randrange(5)], 1, 2] for phrase in phrases]
    assert [is_repetitive(text) for text in texts] == [repeats(text) for text in texts]
    assert 10 < sum(map(repeats, texts)) < 140
