"""reward: train a reward model on rankings (Bradley–Terry with ties).

    python -m training.learner.reward JOB_DIR
    accelerate launch --num_processes 2 -m training.learner.reward JOB_DIR

Files in:

    config.json     settings that differ from the defaults below; `model` is the policy that the trunk starts from
    rankings.jsonl  one ranking per line:
                    {"prompt_id": 1, "split": "train", "messages": [{"role": "user", "content": "..."}],
                     "completions": ["...", "..."], "ranks": [1, 2], "annotator": "a", "weight": 1, "strength": null,
                     "anchor": null, "spans": [{"completion": 0, "start": 0, "end": 5, "mark": "good"}]}
                    optional: "turns", aligned with completions; for each null, or the messages of a dialogue
    ratings.jsonl   optional: ratings of completions of rankings.jsonl by attribute, one completion per line:
                    {"prompt_id": 1, "split": "train", "messages": [...], "completion": "...",
                     "ratings": {"honest": {"mean": 3.5, "raters": 2, "values": [3, 4]}}}; "turns" of a dialogue, too
    samples.jsonl   optional: {"messages": [...], "text": "..." or "turns": [...]}, samples of the reference policy

Rank 1 is best; equal ranks tie. Rankings with the split "held_out" are used for evaluation only. A completion is read
as its text followed by the end of the turn, truncated or not, because annotators see the text; ppo scores texts in the
same way. max_completion_tokens limits each turn of a dialogue; a dialogue that outgrows the model's positions is read
up to the last turn that fits, and counted in truncated_completions. anchor (optional): "above" if the annotator judged
all completions good, "below" if all bad (see preferences/anchor.py). With ratings the model gets a head for each
attribute (preferences/ratings.py); `values`, one number per rater, are used on held-out prompts only, to compare two
people. spans (optional, read with marks_weight above 0): characters start … end − 1 of a completion that the annotator
marked good or bad (preferences/marks.py).

Files out:

    model/         the reward model; plain transformers loads it as a classifier with one label
                   (see models/reward_model.py)
    metrics.jsonl  one line per step: loss, accuracy, and evaluations on the held-out prompts
    scored_rankings.jsonl  one held-out ranking, or one training ranking with a surprise, per line
                   (see preferences/scored_rankings.py)
    result.json    accuracy with its interval and ceiling, calibration, accuracy by strength and by length, and rank
                   correlations of the attributes; written last
    state/         state to resume from

Steps:

1. Read the rankings and encode them as tokens.
2. Load the policy as trunk, and compute the surprise of the rankings from its features. Move it towards the last reward
   model, if one is set (models/continued_start.py). Make the tie parameter and the optimizer, and load the state of an
   earlier run.
3. Train on about `batch_rankings` rankings per step; each comparison is computed once.
4. Write metrics, evaluate, save. Repeat from 3 for all passes and runs (`averaged_runs`).
5. Normalise scores to mean 0 and deviation 1 on samples.jsonl, or else on the training completions.
6. Evaluate on the held-out prompts; write the scored rankings, the model, then the result.

SIGTERM stops the program between two steps with its state saved; the same command resumes. Every random choice is a
function of the seed and the pass, so a resumed run ends in the same bits as one without a stop.

| detail | published | here |
|---|---|---|
| all pairs of a ranking in one batch element | InstructGPT §3.5 | followed; the prompt is computed once (packing.py) |
| one epoch only | InstructGPT, Stiennon et al. | `epochs`: small data sets need more |
| head starts at deviation 1/sqrt(d+1) | Huang et al. 2024 | at 0, see reward_model.py |
| score read at the EOS token | Huang et al. 2024 | at the last token: end of turn, unless the text is too long |
| scores normalised after training | Stiennon et al., InstructGPT | mean 0 and deviation 1 on reference samples |
| learning rate annealed | cosine or linear | linear, `final_learning_rate_fraction` |
| Adam's epsilon 1e-5 | Huang et al. 2024 | 1e-8 as in PyTorch, because gradients of mean losses are small |
| dropout | off in Huang et al. 2024 | off |
"""

import itertools
import math
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.utils import logging as transformers_logging

from training.learner.models.attribute_heads import AttributeHeads
from training.learner.models.continued_start import move_towards
from training.learner.models.generic_forward import path_summary, shares_prompts
from training.learner.models.gradient_checkpointing import checkpoint_layers
from training.learner.models.loading import computing_in, load_tokenizer, positions_of
from training.learner.models.lora import lora_config
from training.learner.models.oom_retry import MicroBatches
from training.learner.models.packed_attention import unshared
from training.learner.models.packing import PromptGroup
from training.learner.models.reward_model import (
    RewardModel,
    attribute_predictions,
    new_reward_model,
    raw_scores_of_groups,
    save_reward_model,
    set_normalisation,
)
from training.learner.models.slot_budget import attention_slots, batches_within
from training.learner.preferences.anchor import Anchor, new_anchor
from training.learner.preferences.averaging import WeightAverage
from training.learner.preferences.marks import MarkTargets, count_left_out
from training.learner.preferences.passes import total_weight, training_passes
from training.learner.preferences.ranking_data import Comparison, RankingData, read_rankings
from training.learner.preferences.ranking_loss import (
    TieParameter,
    TrainingItem,
    batch_loss,
    bootstrap_weights,
    tie_parameter,
)
from training.learner.preferences.ratings import RatingTargets
from training.learner.preferences.reward_inputs import (
    check_contrast_lengths,
    check_group_lengths,
    mark_targets,
    rating_data,
    read_samples,
)
from training.learner.preferences.reward_results import (
    cross_fitted,
    evaluate,
    evaluation_metrics,
    held_out_scores,
    rating_summary,
    summary,
)
from training.learner.preferences.scored_rankings import scored_rows
from training.learner.rewards.reward_function import same_tokens
from training.learner.runtime.config import RewardConfig
from training.learner.runtime.jobdir import BadInput, Stopped
from training.learner.runtime.optimization import (
    adamw,
    check_finite,
    learning_rate_factor,
    load_state,
    peak_learning_rate,
    save_state,
    take_step,
)
from training.learner.runtime.processes import Processes
from training.learner.runtime.program import run_program
from training.learner.runtime.start import start_program
from training.learner.text.messages import share, shuffled


def main(job_dir: Path) -> None:
    start = start_program(job_dir, RewardConfig)
    if start is None:
        return
    settings, job, processes, stop, started = start
    transformers_logging.set_verbosity_error()

    # 1. Training and held-out rankings as tokens.
    torch.manual_seed(settings.seed)
    tokenizer = load_tokenizer(settings.model)
    positions = positions_of(settings.model)
    data = read_rankings(tokenizer, job.rows("rankings.jsonl"), settings, positions)
    rated = rating_data(tokenizer, job, settings, positions)
    ratings = RatingTargets(rated, data.train)
    marks = mark_targets(tokenizer, job, settings, data, positions)
    plan = [step for run in range(settings.averaged_runs) for step in plan_steps(data.train, settings, run, positions)]
    run_steps = len(plan) // settings.averaged_runs

    # 2. Model on the policy's trunk, tie parameter, optimizer, and the state of an earlier run.
    lora = lora_config(settings)
    model = new_reward_model(
        settings.model, settings.ensemble_heads, settings.seed, settings.prior_scale, lora, settings.dtype
    )
    if settings.gradient_checkpointing:
        checkpoint_layers(model.network)
    surprise = cross_fitted(model, data, settings, settings.micro_batch_tokens)
    if settings.last_reward_model:
        continue_last(model, tokenizer, settings)
    model.network.config.reward_longest = [settings.max_prompt_tokens, settings.max_completion_tokens]
    if ratings.names:
        model.attributes = AttributeHeads(ratings.names, model.head.in_features).to(model.network.device)
    if marks is not None:
        model.mark_head = marks.new_head(model.head.in_features).to(model.network.device)
    samples = read_samples(tokenizer, job, settings, positions)
    check_group_lengths(model, [*samples, *(comparison.group for comparison in data.train + data.held_out)])
    if settings.contrast > 0:
        check_contrast_lengths(model, [comparison.group for comparison in data.train])
    tie = tie_parameter((ranking for comparison in data.train for ranking in comparison.rankings), settings)
    anchor = new_anchor(data.train, model.raw_anchor or 0.0)
    bootstrap = bootstrap_weights(data.train, settings.ensemble_heads, settings.seed)
    optimizer = adamw(model, settings.weight_decay)
    peak_rate = peak_learning_rate(settings, model.network)
    micro_batches = MicroBatches(settings.micro_batch_tokens)
    learned = {"model": model, "tie": tie} | ({"anchor": anchor} if anchor else {})
    average = WeightAverage(torch.nn.ModuleDict(learned), settings.averaged_runs)
    parts, step = {**learned, "optimizer": optimizer, "average": average}, 0
    if job.state is not None:
        step, _ = load_state(job.state, parts)
    job.truncate_metrics(step)

    # 3. Steps of about batch_rankings rankings, each comparison computed once.
    while step < len(plan):
        step += 1
        rate = peak_rate * learning_rate_factor((step - 1) % run_steps + 1, run_steps, settings)
        metrics = accumulate_gradients(
            model, tie, plan[step - 1], settings, bootstrap, processes, micro_batches, anchor, ratings, marks
        )
        check_finite("the loss", metrics["loss"], step)
        norm = take_step(optimizer, model.network.parameters(), rate, settings.max_gradient_norm, step)
        tie.step()
        if anchor:
            comparisons = [item.comparison for item in plan[step - 1]]
            anchor.step(comparisons, settings.anchor_weight, total_weight(comparisons))
            metrics["anchor"] = float(anchor.score.detach())
        if step % run_steps == 0:
            average.end_run(optimizer)

        # 4. Metrics, evaluation, saved state; stop if requested.
        metrics |= {"learning_rate": rate, "gradient_norm": norm, "tie_share": tie.share}
        metrics["tokens"] = float(sum(item.tokens for item in plan[step - 1]))
        if settings.is_evaluated_after(step, len(plan)) and step < len(plan):
            held_out = held_out_scores(model, data, settings, micro_batches.size)
            metrics |= evaluation_metrics(evaluate(model, tie, data, settings, *held_out))
        job.append_metrics(step, len(plan), **metrics)
        stopping = processes.any(stop.received)
        if stopping or step % settings.save_every == 0:
            save_state(job, step, parts, {})
        if stopping and step < len(plan):
            raise Stopped

    # Without rows that have one, the anchor of an earlier training no longer fits the scores.
    if anchor or model.raw_anchor is not None:
        model.network.config.reward_anchor = float(anchor.score.detach()) if anchor else None

    # 5. Scores with mean 0 and deviation 1 on reference samples.
    normalise(model, samples, data, settings, micro_batches.size)

    # 6. Evaluation on held-out prompts, the scored rankings, the model, then the result.
    raw, members = held_out_scores(model, data, settings, micro_batches.size)
    evaluation = evaluate(model, tie, data, settings, raw, members)
    tie_logit = tie.logit.detach().cpu()
    lines = scored_rows(data, raw, model.normalised(raw), settings.tie_model, tie_logit, surprise)
    job.write_rows("scored_rankings.jsonl", lines)
    job.save_folder("model", lambda folder: save_reward_model(model, tokenizer, folder))
    result = {"program": "reward", "steps": step, "seconds": time.monotonic() - started, "processes": processes.count}
    result |= {"start": "last_reward_model" if settings.last_reward_model else "model"}
    result |= {"surprise_rankings": len(surprise)}
    result |= summary(job, model, tie, data) | evaluation | path_summary(model.network)
    if settings.marks_weight and (left_out := count_left_out(job.rows("rankings.jsonl"))):
        result["marks_left_out"] = left_out
    job.write_result(result | rating_summary(model, rated, ratings, data, settings, micro_batches.size))
    processes.close()


def continue_last(model: RewardModel, tokenizer: Any, settings: RewardConfig) -> None:
    """Move a new model towards the last reward model. Raises BadInput unless both have one kind and one tokenizer."""
    if not same_tokens(tokenizer, load_tokenizer(settings.last_reward_model)):
        raise BadInput("model and last_reward_model must have the same tokenizer: leave last_reward_model out")
    move_towards(model, settings.last_reward_model, settings.kept_share)


def plan_steps(
    comparisons: Sequence[Comparison], settings: RewardConfig, run: int = 0, positions: int | None = None
) -> list[list[TrainingItem]]:
    """Return the training items of each step of a run: every pass is shuffled again and divided evenly.

    The contrast uses the prompt of the next comparison in the pass with another prompt, before which the completions
    fit into the model's positions.
    """
    plan = []
    numbers = range(run * settings.passes, (run + 1) * settings.passes)
    for one in training_passes(comparisons, settings.batch_rankings, settings.seed, numbers):
        items = [as_training_item(one.order, place, one.number, settings, positions) for place in range(len(one.order))]
        plan += [items[step] for step in one.steps]
    return plan


def as_training_item(
    order: Sequence[Comparison], place: int, epoch: int, settings: RewardConfig, positions: int | None = None
) -> TrainingItem:
    """Return the comparison at order[place], with half of its completions under another prompt for the contrast."""
    group = order[place].group
    room = math.inf if positions is None else positions - max(map(len, group.completions))
    following = (one.group.prompt for one in itertools.chain(order[place + 1 :], order[:place]))
    other = next((prompt for prompt in following if prompt != group.prompt and len(prompt) <= room), None)
    if settings.contrast == 0 or other is None:
        return TrainingItem(order[place])
    count = len(group.completions)
    places = shuffled(count, settings.seed, epoch * len(order) + place)[: (count + 1) // 2]
    return TrainingItem(order[place], other, tuple(places))


def accumulate_gradients(
    model: RewardModel,
    tie: TieParameter,
    batch: Sequence[TrainingItem],
    settings: RewardConfig,
    bootstrap: dict[int, Tensor],
    processes: Processes,
    micro_batches: MicroBatches,
    anchor: Anchor | None = None,
    ratings: RatingTargets | None = None,
    marks: MarkTargets | None = None,
) -> dict[str, float]:
    """Add up the gradient of the batch's mean loss per ranking over all processes; return that loss and accuracy."""
    weight = sum(item.weight for item in batch)
    mine = share(sorted(batch, key=lambda item: item.tokens), processes.rank, processes.count)
    sizes = [item.sizes if shares_prompts(model.network) else list(map(unshared, item.sizes)) for item in mine]
    parameters = [*model.parameters(), tie.logit, *(anchor.parameters() if anchor else ())]

    def pass_over(budget: int) -> Tensor:
        sums = torch.zeros(7, dtype=torch.float64)
        for indices in batches_within(sizes, budget):
            with computing_in(settings.dtype):
                part = batch_loss(model, tie, [mine[i] for i in indices], settings, bootstrap, anchor, ratings, marks)
            (part.objective / weight).backward()
            sums += torch.tensor(part[1:], dtype=torch.float64)
        return sums

    slots = [attention_slots(item_sizes) for item_sizes in sizes]
    sums = micro_batches.attempt(slots, pass_over, undo=lambda: clear_gradients(parameters))
    processes.sum_gradients(parameters)
    loss, contrast, anchored, rated, marked, right, strict = (processes.sum_of(number) for number in sums.tolist())
    metrics = {"loss": loss / weight, "accuracy": right / strict if strict else 0.5}
    metrics |= {"anchor_loss": anchored / weight} if anchor else {}
    metrics |= {"rating_loss": rated / weight} if model.attributes else {}
    metrics |= {"mark_loss": marked / weight} if marks else {}
    return metrics | ({"contrast_loss": contrast / weight} if settings.contrast > 0 else {})


def clear_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.grad = None


def normalise(
    model: RewardModel, samples: list[PromptGroup], data: RankingData, settings: RewardConfig, token_budget: int
) -> None:
    """Set the normalisation from the reference's samples, or without any from the training completions."""
    groups = samples or [comparison.group for comparison in data.train]
    with computing_in(settings.dtype):
        set_normalisation(model, raw_scores_of_groups(model, groups, token_budget)[0])
        if model.attributes is not None:
            model.attributes.set_normalisation(attribute_predictions(model, groups, token_budget))


if __name__ == "__main__":
    run_program(main, RewardConfig)
