"""Over-optimisation in the demo: gold utility while PPO moves away from the base, with and without pessimism.

    .venv/bin/python -m tests.benchmarks.learner.over_optimisation FOLDER [--base MODEL] [--rankings 150] [--seeds 5]
        [--pessimism 0,1] [--steps 60] [--learning-rate 0.001] [--averaged-runs 1] [--prior-scale 1]
        [--separate 0]

The demo's base model writes completions once. Each seed draws rankings of them by simulated annotators and trains a
reward model; then `ppo` runs without a KL penalty, once for each λ of --pessimism. Gold is the hidden utility of the
completions that ppo learns from, so it costs no further sampling.

A window is WINDOW batches. A run is read up to the first window with a KL of NATS or more. `lost` is the share of the
highest window's utility that is missing in the last one. It is a little too high, because the highest of noisy means
is: `lost of the mean` has this error less, as it takes the mean over seeds at each KL first. Errors are
measured on new completions of the base and on the last window of λ = 0. FOLDER keeps all job directories, and a second
call continues. With --separate the deviation is that of whole reward models, each with a trunk of its own, whose
rankings are weighted by a Bayesian bootstrap of their prompts.
"""

import argparse
import json
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple, TypeVar

import torch

from tests.benchmarks.arguments import at_least_one
from tests.benchmarks.learner import gold_record, separate_models
from tests.benchmarks.learner.gold_record import Scored, scored_text
from training.demo import base_model, grammar
from training.demo.annotators import Annotator
from training.demo.settings import ROUND
from training.learner import ppo, reward, sample, sft
from training.learner.models.packing import PromptGroup
from training.learner.models.reward_model import load_reward_model, raw_scores_of_groups
from training.learner.preferences.rank_correlation import spearman
from training.learner.reward_terms import Answer
from training.learner.rewards.reading import token_reader
from training.learner.runtime.config import PpoConfig
from training.learner.runtime.jobdir import JobDirectory

PROMPT_SEED, PROMPTS, SAMPLED_PROMPTS, ERROR_PROMPTS = 1, 1280, 960, 80
COMPLETIONS, ANNOTATORS = 4, 4
WINDOW, NATS = 3, 10.0

T = TypeVar("T")


class Window(NamedTuple):
    """Means over WINDOW batches of a run."""

    kl: float  # nats per completion, from the base
    gold: float  # utility in points
    score: float  # of the reward model, less λ deviations


def main() -> None:
    options = parse()
    torch.set_num_threads(1)
    folder: Path = options.folder
    base = options.base or trained_base(folder / "base")
    samples = base_samples(folder / "samples", base)
    curves: dict[float, list[list[Window]]] = {λ: [] for λ in options.pessimism}
    for seed in range(options.seeds):
        models = reward_models(folder, base, list(rankings(samples, options.rankings, seed)), seed, options)
        for λ in options.pessimism:
            job = policy_run(folder / f"ppo-{seed}-{λ:g}", base, models, seed, λ, options)
            curves[λ].append(until(windows(job), NATS))
            print(f"seed {seed}, λ {λ:g}: {sentence(curves[λ][-1])}", flush=True)
        print(f"seed {seed}, errors: {json.dumps(errors(models, samples, folder, seed))}", flush=True)
    for λ, runs in curves.items():
        print(f"λ {λ:g}: {json.dumps(summary(runs))}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--base", help="folder of the demo's trained base model, if there is one")
    parser.add_argument("--rankings", type=at_least_one, default=150, help="of each seed's reward model (150)")
    parser.add_argument("--seeds", type=at_least_one, default=5)
    parser.add_argument("--pessimism", type=comma_separated, default=[0.0, 1.0], metavar="λ,λ", help="(0,1)")
    parser.add_argument("--steps", type=at_least_one, default=60, help="batches of 64 completions (60)")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="of ppo (0.001)")
    parser.add_argument("--averaged-runs", type=at_least_one, default=1, help="of the reward model (1)")
    parser.add_argument("--separate", type=int, default=0, metavar="N", help="whole reward models, 0: heads of one (0)")
    parser.add_argument("--prior-scale", type=float, default=0.1, help="of the reward model's heads (0.1)")
    return parser.parse_args()


def comma_separated(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def in_parts(values: Sequence[T], size: int) -> list[Sequence[T]]:
    return [values[start : start + size] for start in range(0, len(values), size)]


def finished_job(
    folder: Path, program: Any, settings: dict[str, Any], **files: Iterable[dict[str, Any]]
) -> JobDirectory:
    """Return the job directory, with the program run to its end in this process unless it has been before."""
    folder.mkdir(parents=True, exist_ok=True)
    job = JobDirectory(folder)
    if job.result() is None:
        for name, rows in files.items():
            job.write_rows(f"{name}.jsonl", iter(rows))
        job.write_config(settings)
        program.main(folder)
    return job


def trained_base(folder: Path) -> str:
    finished_job(folder, sft, base_model.SETTINGS.to_json(), demonstrations=base_model.demonstrations())
    return str(folder / "model")


def prompt_rows() -> list[dict[str, Any]]:
    messages = grammar.messages(PROMPT_SEED, PROMPTS)
    return [{"prompt_id": i, "messages": base_model.as_prompt(one.text)} for i, one in enumerate(messages)]


def base_samples(folder: Path, base: str) -> list[list[Scored]]:
    """Return completions by the base: COMPLETIONS of each of SAMPLED_PROMPTS prompts."""
    rows = prompt_rows()[:SAMPLED_PROMPTS]
    settings = ROUND["common"] | ROUND["sample"] | {"model": base, "completions_per_prompt": COMPLETIONS}
    job = finished_job(folder, sample, settings, prompts=rows)
    messages = [row["messages"][-1]["content"] for row in rows]
    texts = [scored_text(messages[row["prompt_id"]], row["text"]) for row in job.rows("samples.jsonl")]
    return in_parts(texts, COMPLETIONS)


def rankings(samples: Sequence[Sequence[Scored]], count: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yield rankings of `count` comparisons of a seed, and a fifth as many held-out ones."""
    order = random.Random(seed).sample(range(ERROR_PROMPTS, len(samples)), count + count // 5)
    return ranked([samples[number] for number in order], order, count)


def ranked(groups: Sequence[Sequence[Scored]], numbers: Sequence[int], train: int) -> Iterator[dict[str, Any]]:
    """Yield a ranking of each group by one annotator, who take turns; after `train` groups they are held out."""
    for place, (group, number) in enumerate(zip(groups, numbers, strict=True)):
        annotator = place % ANNOTATORS + 1
        texts = [one.text for one in group]
        yield {
            "prompt_id": number,
            "split": "train" if place < train else "held_out",
            "messages": base_model.as_prompt(group[0].message),
            "completions": texts,
            "ranks": Annotator(annotator).rank(group[0].message, texts),
            "annotator": str(annotator),
        }


def reward_models(
    folder: Path, base: str, rows: Sequence[dict[str, Any]], seed: int, options: argparse.Namespace
) -> list[str]:
    """Return the folders of a seed's reward models: one with all heads, or --separate ones."""
    if not options.separate:
        return [reward_model(folder / f"reward-{seed}", base, rows, seed, options)]
    names = [folder / f"reward-{seed}-{number}" for number in range(options.separate)]
    return [
        reward_model(name, base, reweighted(rows, f"{seed}/{number}"), options.separate * seed + number, options)
        for number, name in enumerate(names)
    ]


def reweighted(rows: Sequence[dict[str, Any]], seed: str) -> list[dict[str, Any]]:
    """Return the rows with random weights of mean 1: a Bayesian bootstrap, since every row has its own prompt."""
    draws = random.Random(f"bootstrap/{seed}")
    return [row | {"weight": draws.expovariate(1.0)} for row in rows]


def reward_model(
    folder: Path, base: str, rows: Iterable[dict[str, Any]], seed: int, options: argparse.Namespace
) -> str:
    settings = ROUND["common"] | ROUND["reward"] | {"model": base, "seed": seed, "eval_every": 10**6}
    settings |= {"averaged_runs": options.averaged_runs, "prior_scale": options.prior_scale}
    result = finished_job(folder, reward, settings, rankings=rows).result() or {}
    figures = {name: round(result[name], 3) for name in ("held_out_accuracy", "ensemble_deviation")}
    print(f"seed {seed}, reward model: {json.dumps(figures)}", flush=True)
    return str(folder / "model")


def policy_run(
    folder: Path, base: str, models: Sequence[str], seed: int, pessimism: float, options: argparse.Namespace
) -> JobDirectory:
    """Return the finished job of ppo; gold.jsonl has its completions in the order of their batches."""
    settings = ROUND["common"] | ROUND["ppo"] | {
        "model": base, "reward_model": models[0], "critic": "reward_model", "pessimism": pessimism, "seed": seed,
        "rewards": [{"name": "reward_model"}, gold_record.TERM], "kl_coefficient": 0.0, "eval_prompts": 0,
        "steps": options.steps, "learning_rate": options.learning_rate, "final_learning_rate_fraction": 1.0,
        "save_every": options.steps + 1,
    }  # fmt: skip
    if len(models) > 1:
        separate_models.MODELS[:] = [load_reward_model(model) for model in models]
        separate_models.PESSIMISM = pessimism
        terms = [{"name": "reward_model", "weight": 0.0}, separate_models.TERM, gold_record.TERM]
        settings |= {"rewards": terms, "pessimism": 0.0}
    gold_record.RECORD.clear()
    job = finished_job(folder, ppo, settings, prompts=prompt_rows())
    if gold_record.RECORD:
        job.write_rows("gold.jsonl", (one._asdict() for one in gold_record.RECORD))
    return job


def windows(job: JobDirectory) -> list[Window]:
    """Return the means of a finished run over every WINDOW batches."""
    lines, episodes = job.metrics(), PpoConfig.from_json(job.config()).batch_episodes
    gold = [row["utility"] for row in job.rows("gold.jsonl")]
    means = [fmean(part) for part in in_parts(gold, episodes)]
    if len(means) != len(lines):
        raise SystemExit(f"error: {job.path} has {len(means)} batches of utilities for {len(lines)}: delete it")
    return [
        Window(
            kl=fmean(line["kl"] for line in lines[start : start + WINDOW]),
            gold=fmean(means[start : start + WINDOW]),
            score=fmean(line["reward"] for line in lines[start : start + WINDOW]),
        )
        for start in range(0, len(lines), WINDOW)
    ]


def until(run: Sequence[Window], nats: float) -> list[Window]:
    """Return the windows up to the first one with so much KL; all, if none has."""
    end = next((place for place, window in enumerate(run, 1) if window.kl >= nats), len(run))
    return list(run[:end])


def lost(gold: Sequence[float]) -> float:
    """Return the share of the highest utility that is missing at the end."""
    return 1 - gold[-1] / max(gold)


def at(run: Sequence[Window], nats: float) -> float:
    """Return the utility at a KL, interpolated between the first windows around it; the last one's beyond the end."""
    before = Window(0.0, run[0].gold, 0.0)
    for window in run:
        if window.kl >= nats:
            share = (nats - before.kl) / (window.kl - before.kl) if window.kl > before.kl else 1.0
            return before.gold + share * (window.gold - before.gold)
        before = window
    return run[-1].gold


def sentence(run: Sequence[Window]) -> str:
    best = max(run, key=lambda window: window.gold)
    return (
        f"gold {run[0].gold:.2f}, at best {best.gold:.2f} (KL {best.kl:.1f}), "
        f"{run[-1].gold:.2f} at KL {run[-1].kl:.1f}; "
        f"lost {lost([window.gold for window in run]):.1%}; score {run[0].score:.2f} to {run[-1].score:.2f}"
    )


def summary(runs: Sequence[Sequence[Window]]) -> dict[str, Any]:
    """Return the figures of one λ over its seeds."""
    grid = [0, 1, 2, 3, 4, 5, 6, 8, 10]
    means = [fmean(at(run, nats) for run in runs) for nats in grid]
    losses = [lost([window.gold for window in run]) for run in runs]
    return {
        "gold at KL": {nats: round(mean, 2) for nats, mean in zip(grid, means, strict=True)},
        "lost of the mean": round(lost(means), 3),
        "lost": [round(value, 3) for value in losses],
        "lost, mean": round(fmean(losses), 3),
        "lost, standard error": round(stdev(losses) / len(losses) ** 0.5, 3) if len(losses) > 1 else None,
        "KL at the end": [round(run[-1].kl, 1) for run in runs],
    }


def errors(models: Sequence[str], samples: Sequence[Sequence[Scored]], folder: Path, seed: int) -> dict[str, Any]:
    """Return how alike the members' errors are, on the base's completions and on those of λ = 0 at the end."""
    texts = {"base": [one for group in samples[:ERROR_PROMPTS] for one in group]}
    job = folder / f"ppo-{seed}-0"
    if (job / "gold.jsonl").is_file():
        rows = list(JobDirectory(job).rows("gold.jsonl"))
        texts["end of λ = 0"] = [Scored(**row) for row in rows[-WINDOW * 64 :]]
    return {name: errors_of(members_of(models, scored), scored) for name, scored in texts.items()}


def members_of(models: Sequence[str], scored: Sequence[Scored]) -> torch.Tensor:
    """Return the normalised scores [N, H] float64 of separate models, or of the heads of the only one."""
    answers = [Answer({"messages": base_model.as_prompt(one.message)}, (), (), one.text, True) for one in scored]
    scorings = [load_reward_model(model) for model in models]
    if len(scorings) > 1:
        return separate_models.member_scores(scorings, answers).double()
    (model, tokenizer), *_ = scorings
    assert model.max_lengths is not None, "the program reward records them"
    tokens = token_reader(model, tokenizer, model.max_lengths)
    groups = [PromptGroup((), (tuple(tokens(answer)),)) for answer in answers]
    return model.normalised(raw_scores_of_groups(model, groups, 4096)[1]).double()


def errors_of(members: torch.Tensor, scored: Sequence[Scored]) -> dict[str, float]:
    """Return figures of the members' errors [N, H]: what a linear fit to the utility leaves of each score."""
    gold = torch.tensor([one.utility for one in scored], dtype=torch.float64)
    design = torch.stack([torch.ones_like(gold), gold], 1)
    errors = members - design @ torch.linalg.lstsq(design, members).solution
    count = members.shape[1]
    alike = (torch.corrcoef(errors.T).sum() - count) / (count * (count - 1))
    return {
        "correlation of two members' errors": round(float(alike), 3),
        "deviation between members": round(float(members.std(1).mean()), 3),
        "deviation of the mean's error": round(float(errors.mean(1).std()), 3),
        "rank correlation of deviation and size of the error": round(
            float(spearman(members.std(1), errors.mean(1).abs())), 3
        ),
        "score and gold": round(float(torch.corrcoef(torch.stack([members.mean(1), gold]))[0, 1]), 3),
    }


if __name__ == "__main__":
    main()
