"""dpo: learn a policy from rankings directly, without a reward model (DPO, IPO, SimPO, or DPO on whole rankings).

    python -m training.learner.dpo JOB_DIR
    accelerate launch --num_processes 2 -m training.learner.dpo JOB_DIR

Files in:

    config.json     settings that differ from the defaults below; `model` is required
    rankings.jsonl  one ranking per line, as for the program reward:
                    {"prompt_id": 1, "split": "train", "messages": [{"role": "user", "content": "..."}],
                     "completions": ["...", "..."], "ranks": [1, 2], "annotator": "a", "weight": 1, "strength": null}

Rank 1 is best; equal ranks tie. Rankings with the split "held_out" are used for evaluation only. A completion is read
as its text followed by the end of the turn, truncated or not, because annotators see the text. "turns" may hold the
messages of dialogues, as for reward. All turns of the policy are learned, after what was said before each; the user's
turns are only read. Anchors of rankings are not learned; result.json counts them as unused_anchors.

Files out:

    model/         the policy, a Hugging Face folder
    metrics.jsonl  one line per step: loss, accuracy, reward_margin (mean difference of implicit rewards over strict
                   pairs, nats), and evaluations on the held-out prompts: the same, and `kl`
    samples_at_steps.jsonl  completions of the first held-out prompts at the start and at each evaluation
    result.json    held-out accuracy with its interval and ceiling, mean log-ratios of preferred and rejected
                   completions, KL from the reference; written last
    state/         state to resume from

Steps:

1. Read the rankings; load the policy and the frozen reference (with LoRA, the policy without its adapter).
2. Make the tie parameter and the optimizer, and load the state of an earlier run.
3. Train on about `batch_rankings` rankings per step. A comparison's prompt is computed once for all its completions.
4. Write metrics, evaluate, save. Repeat from 3 for all passes (`epochs`).
5. Evaluate on the held-out prompts; write the model, then the result.

Log-probs under the reference are computed when a comparison is first used, and kept in `state/`. The KL is that of
completions of one turn that the policy samples on held-out prompts (training prompts if there are none), one each.

SIGTERM stops the program between two steps with its state saved; the same command resumes. Every random choice is a
function of the seed and the pass, so a resumed run ends in the same bits as one without a stop.

| detail | published | here |
|---|---|---|
| log-probs summed over the completion with its EOS | Rafailov et al. 2023 | followed; SimPO: the mean (eq. 3) |
| a ranking of K | its pairs, or Plackett–Luce (appendix A.3) | both, see `loss`; a ranking has one weight for any K |
| ties | left out | Davidson or Rao–Kupper (Chen et al. 2024), Davidson–Luce for K; see preferences/direct_losses.py |
| IPO on sums of log-probs | Azar et al. 2023, eq. 17 | followed; TRL divides them by the length |
| β | 0.1 to 0.5; SimPO 2 to 10 | 0.1: set it for SimPO |
| margin by strength | Amini et al. 2024, "DPO with an offset" | `margin`, off by default |
| warmup of 150 steps, RMSprop | Rafailov et al. 2023, appendix B | AdamW, linear decay; `warmup_fraction` is 0 |
| dropout | not named | off, so that log-ratios compare the same network |
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.learner.models.generic_forward import path_summary
from training.learner.models.oom_retry import MicroBatches
from training.learner.models.saving import save_model
from training.learner.policy.direct_preferences import (
    DirectContext,
    ReferenceLogProbs,
    accumulate_gradients,
    implicit_rewards,
    log_probs_of_groups,
    pair_sums,
)
from training.learner.policy.divergence import sampled_log_ratios
from training.learner.policy.fixed_samples import FixedSamples
from training.learner.policy.reference import load_reference, load_trained_policy
from training.learner.preferences.passes import rankings_in, training_passes
from training.learner.preferences.ranking_data import Comparison, RankingData, read_rankings
from training.learner.preferences.ranking_loss import tie_parameter
from training.learner.preferences.report import Report, longer_is_preferred, report, score_pairs
from training.learner.runtime.config.dpo import DpoConfig
from training.learner.runtime.intervals import mean_with_interval
from training.learner.runtime.jobdir import BadInput, JobDirectory, Stopped
from training.learner.runtime.optimization import (
    adamw,
    check_finite,
    learning_rate_factor,
    load_state,
    peak_learning_rate,
    save_state,
    take_step,
)
from training.learner.runtime.program import run_program
from training.learner.runtime.start import start_program
from training.learner.sampling.sampler import SamplingParams, check_positions, fewest_positions, sampling_params_for

CURVE_PROMPTS = 16  # at most, of an evaluation of the KL during training
SAMPLED_TOGETHER = 64  # completions
# Figures of the report that need the probability of a choice: ipo and simpo do not fit one.
PROBABILITY_FIGURES = (
    "held_out_loss", "brier_score", "expected_calibration_error", "fitted_temperature", "held_out_tie_share_predicted",
)  # fmt: skip


def main(job_dir: Path) -> None:
    start = start_program(job_dir, DpoConfig)
    if start is None:
        return
    settings, job, processes, stop, started = start

    # 1. Rankings as tokens, policy and reference.
    torch.manual_seed(settings.seed)
    policy, reference_model, tokenizer = load_models(settings)
    positions = fewest_positions(policy, reference_model)
    data = read_rankings(tokenizer, job.rows("rankings.jsonl"), settings, positions)
    check_lengths(policy, reference_model, data, settings)
    plan = plan_steps(data.train, settings)
    params = sampling_params_for(policy, tokenizer, settings.max_completion_tokens, 1.0, 1.0, settings.seed)

    # 2. Tie parameter, optimizer, and the state of an earlier run.
    tie = tie_parameter((ranking for comparison in data.train for ranking in comparison.rankings), settings)
    micro_batches = MicroBatches(settings.micro_batch_tokens)
    context = DirectContext(settings, processes, policy, reference_model, tie.to(policy.device), micro_batches)
    reference = ReferenceLogProbs(data.train + data.held_out)
    optimizer = adamw(policy, settings.weight_decay)
    peak_rate = peak_learning_rate(settings, policy)
    parts, step = {"policy": policy, "tie": tie, "optimizer": optimizer, "reference": reference}, 0
    if job.state is not None:
        step, _ = load_state(job.state, parts)
    job.truncate_metrics(step)
    samples = FixedSamples(policy, tokenizer, job.rows("rankings.jsonl"), settings)
    if step == 0:
        samples.write(job, 0)

    # 3. Steps of about batch_rankings rankings.
    while step < len(plan):
        step += 1
        batch = plan[step - 1]
        rate = peak_rate * learning_rate_factor(step, len(plan), settings)
        if settings.needs_reference:
            reference.compute(context, [comparison.group for comparison in batch])
        metrics = accumulate_gradients(context, batch, reference)
        check_finite("the loss", metrics["loss"], step)
        norm = take_step(optimizer, policy.parameters(), rate, settings.max_gradient_norm, step)
        tie.step()

        # 4. Metrics, evaluation, saved state; stop if requested.
        metrics |= {"learning_rate": rate, "gradient_norm": norm, "tie_share": tie.share}
        metrics["tokens"] = float(sum(comparison.group.tokens for comparison in batch))
        if settings.is_evaluated_after(step, len(plan)) and step < len(plan):
            metrics |= curve_metrics(evaluate(context, data, reference))
            metrics |= measure_divergence(context, data, params, CURVE_PROMPTS)
        job.append_metrics(step, len(plan), **metrics)
        if step == len(plan) or settings.is_evaluated_after(step, len(plan)):
            samples.write(job, step)
        stopping = processes.any(stop.received)
        if stopping or step % settings.save_every == 0:
            save_state(job, step, parts, {})
        if stopping and step < len(plan):
            raise Stopped

    # 5. Evaluation on held-out prompts, the model, then the result.
    evaluation = evaluate(context, data, reference) | measure_divergence(context, data, params, settings.eval_prompts)
    job.save_folder("model", lambda folder: save_model(policy, tokenizer, folder))
    result = {"program": "dpo", "steps": step, "seconds": time.monotonic() - started, "processes": processes.count}
    job.write_result(result | summary(job, tie.share, data) | evaluation | path_summary(policy))
    processes.close()


def load_models(settings: DpoConfig) -> tuple[Any, Any, Any]:
    """Return the policy, the frozen reference (None if nothing needs it) and the policy's tokenizer.

    Raises BadInput if one of them cannot be loaded, or the reference has another tokenizer.
    """
    policy, tokenizer = load_trained_policy(settings)
    if not settings.needs_reference and not settings.eval_prompts:
        return policy, None, tokenizer
    return policy, load_reference(policy, tokenizer, settings, settings.reference_model), tokenizer


def check_lengths(policy: Any, reference: Any, data: RankingData, settings: DpoConfig) -> None:
    """Raise BadInput if a prompt has no tokens, or what is read or sampled exceeds a model's positions."""
    groups = [comparison.group for comparison in data.train + data.held_out]
    if any(not group.prompt for group in groups):
        raise BadInput("rankings.jsonl has a prompt without tokens: a completion's first token needs one before it")
    for name, model in (("the model", policy), ("the reference model", reference)):
        if model is None:
            continue
        for group in groups:
            check_positions(model, [group.prompt], max(map(len, group.completions)), name)
        if settings.eval_prompts:
            check_positions(model, divergence_prompts(data, settings), settings.max_completion_tokens, name)


def plan_steps(comparisons: Sequence[Comparison], settings: DpoConfig) -> list[list[Comparison]]:
    """Return the comparisons of each step."""
    passes = training_passes(comparisons, settings.batch_rankings, settings.seed, range(settings.epochs))
    return [one.order[step] for one in passes for step in one.steps]


def divergence_prompts(data: RankingData, settings: DpoConfig) -> list[tuple[int, ...]]:
    """Return the distinct prompts on which the KL is measured, at most eval_prompts."""
    groups = [comparison.group for comparison in data.held_out or data.train]
    return list(dict.fromkeys(group.prompt for group in groups))[: settings.eval_prompts]


def measure_divergence(
    context: DirectContext, data: RankingData, params: SamplingParams, limit: int
) -> dict[str, float]:
    """Return the KL from the reference on at most `limit` prompts; nothing if the settings ask for none."""
    prompts = divergence_prompts(data, context.settings)[:limit]
    if not prompts:
        return {}
    rows = MicroBatches(SAMPLED_TOGETHER, unit="completions")
    dtype, processes = context.settings.dtype, context.processes
    ratios = sampled_log_ratios(
        context.policy, context.reference, prompts, params, dtype, processes, context.micro_batches, rows
    )
    return mean_with_interval("kl", ratios)


@torch.no_grad()
def evaluate(context: DirectContext, data: RankingData, reference: ReferenceLogProbs) -> Report:
    """Return the report on held-out comparisons, with the implicit rewards as scores."""
    settings, groups = context.settings, [comparison.group for comparison in data.held_out]
    if not groups:
        return {"held_out_accuracy": None, "held_out_pairs": 0}
    if settings.needs_reference:
        reference.compute(context, groups)
    log_probs = log_probs_of_groups(context, context.policy, groups)
    rewards = implicit_rewards(log_probs, groups, reference, settings)
    tie_model = "bradley_terry" if settings.loss in ("ipo", "simpo") else settings.tie_model
    scored = score_pairs(data.held_out, rewards, tie_model, context.tie.logit.detach().cpu())
    evaluation = report(scored, data.held_out, longer_is_preferred(data.train))
    if settings.loss in ("ipo", "simpo"):
        evaluation = {name: value for name, value in evaluation.items() if name not in PROBABILITY_FIGURES}
    _, margin, strict = pair_sums(rewards, data.held_out)
    if not strict:
        return evaluation
    evaluation["held_out_reward_margin"] = margin / strict
    if settings.needs_reference:
        evaluation |= mean_log_ratios(rewards / settings.beta, scored.pairs.better, scored.pairs.worse,
                                      ~scored.pairs.tied)  # fmt: skip
    return evaluation


def mean_log_ratios(log_ratios: Tensor, better: Tensor, worse: Tensor, strict: Tensor) -> dict[str, float]:
    """Return mean log-ratios of preferred and rejected completions over strict pairs, nats.

    Both may fall: the losses fix the difference only (Pal et al. 2024, "Smaug: fixing failure modes of preference
    optimisation with DPO-positive", §3).
    """
    return {
        "preferred_log_ratio": float(log_ratios[better[strict]].mean()),
        "rejected_log_ratio": float(log_ratios[worse[strict]].mean()),
    }


def curve_metrics(evaluation: Report) -> dict[str, float]:
    """Return the figures of the report that are drawn as curves."""
    names = (
        "held_out_accuracy",
        "held_out_loss",
        "held_out_reward_margin",
        "preferred_log_ratio",
        "rejected_log_ratio",
    )
    return {name: value for name in names if (value := evaluation.get(name)) is not None}


def summary(job: JobDirectory, tie_share: float, data: RankingData) -> dict[str, Any]:
    """Return the training's figures for result.json: last metrics, and sizes of the data."""
    last = job.metrics()[-1]
    return {
        "train_loss": last["loss"],
        "train_accuracy": last.get("accuracy"),
        "reward_margin": last.get("reward_margin"),
        "tie_share": tie_share,
        "train_rankings": rankings_in(data.train),
        "train_prompts": len({comparison.prompt_id for comparison in data.train}),
        "truncated_prompts": data.truncated_prompts,
        "truncated_completions": data.truncated_completions,
        "dropped_held_out_rankings": data.dropped_held_out,
        "unused_anchors": sum(bool(ranking.anchor) for one in data.train for ranking in one.rankings),
    }


if __name__ == "__main__":
    run_program(main, DpoConfig)
