"""reward_pairs, reward_k4, reward_k9: rankings per second in reward model training, against TRL 1.16's trainer.

Rankings of K completions follow a synthetic preference; prompts and completions have 16 to 64 tokens. The peer gets
each ranking as K(K−1)/2 pairs, in batches with the same rankings, which is the same loss: with the same weights, order,
optimiser and number of steps both sides compute the same training. The initial trunk distinguishes good from bad
tokens, so that few steps have an effect on held-out rankings. Accord also trains its ensemble of heads, as by default;
the contrast term, which has no counterpart, is off. Quality: held-out accuracy.
"""

import itertools
import random
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.learner import machine

NAMES = ("reward_pairs", "reward_k4", "reward_k9")
PEER, UNIT = "trl-1.16", "rankings/s"
SHAPES = {"reward_pairs": (2, 16, 22), "reward_k4": (4, 8, 12), "reward_k9": (9, 4, 7)}  # K, a step's rankings, steps
WARM_UP, HELD_OUT = 2, 200
RATE = 3e-4  # at 1e-3 some gradients of 5M parameters grow a hundredfold, and rounding makes the sides diverge


def data(name: str) -> tuple[list[dict], list[dict]]:
    """Return training and held-out rankings: token ids of a prompt and its completions, best first."""
    from tests.benchmarks.learner import world

    completions, batch, steps = SHAPES[name]
    draw = random.Random(completions)
    rows = []
    for prompt in world.prompts(batch * steps + HELD_OUT, seed=completions):
        texts = [[draw.randrange(10, 1000) for _ in range(draw.randint(15, 63))] for _ in range(completions)]
        texts.sort(key=lambda text: sum((t in world.BAD) - (t in world.GOOD) for t in text) / len(text))
        rows.append({"prompt": prompt, "completions": [[*text, world.END] for text in texts]})
    return rows[:-HELD_OUT], rows[-HELD_OUT:]


def ours(name: str, folder: Path) -> dict:
    from tests.benchmarks.learner import world
    from training.learner.models.oom_retry import MicroBatches
    from training.learner.models.reward_model import PromptGroup, new_reward_model, raw_scores_of_groups
    from training.learner.preferences.ranking_data import Comparison, Ranking
    from training.learner.preferences.ranking_loss import TrainingItem, bootstrap_weights, tie_parameter
    from training.learner.reward import accumulate_gradients
    from training.learner.runtime.config import RewardConfig
    from training.learner.runtime.optimization import adamw, take_step
    from training.learner.runtime.processes import Processes

    def comparison(number: int, row: dict) -> Comparison:
        order = tuple(range(len(row["completions"])))
        ranking = Ranking(order, order, "someone", 1.0, None)
        return Comparison(number, PromptGroup(tuple(row["prompt"]), tuple(map(tuple, row["completions"]))), (ranking,))

    train, held_out = ([comparison(*row) for row in enumerate(rows)] for rows in data(name))
    settings = RewardConfig(model=str(folder / "reader"), contrast=0.0, dtype=world.dtype())
    model = new_reward_model(settings.model, settings.ensemble_heads, settings.seed)
    tie = tie_parameter([ranking for one in train for ranking in one.rankings], settings)
    bootstrap, optimizer = bootstrap_weights(train, settings.ensemble_heads, 0), adamw(model, weight_decay=0.0)
    processes, micro_batches = Processes(), MicroBatches(settings.micro_batch_tokens)
    _, batch, steps = SHAPES[name]
    clock = Clock()
    for step in range(steps):
        items = [TrainingItem(one) for one in train[step * batch : (step + 1) * batch]]
        clock.lap("other")
        accumulate_gradients(model, tie, items, settings, bootstrap, processes, micro_batches)
        clock.lap("gradients")
        take_step(optimizer, model.network.parameters(), RATE, settings.max_gradient_norm, step + 1)
        clock.lap("updates")
    scores, _ = raw_scores_of_groups(model, [one.group for one in held_out], settings.micro_batch_tokens)
    return measured(clock, name, scores.view(HELD_OUT, -1).tolist())


def peer(name: str, folder: Path) -> dict:
    import torch
    from datasets import Dataset
    from torch.utils.data import SequentialSampler
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from trl import RewardConfig, RewardTrainer

    from tests.benchmarks.learner import world

    train, held_out = data(name)
    completions, batch, steps = SHAPES[name]
    rows = [{"chosen_ids": row["prompt"] + better, "rejected_ids": row["prompt"] + worse}
            for row in train for better, worse in itertools.combinations(row["completions"], 2)]  # fmt: skip
    model = AutoModelForSequenceClassification.from_pretrained(folder / "reader", num_labels=1)
    torch.nn.init.zeros_(model.score.weight)
    clock = Clock()

    class InOrder(RewardTrainer):
        def _get_train_sampler(self, dataset=None):
            return SequentialSampler(dataset if dataset is not None else self.train_dataset)

    settings = RewardConfig(
        output_dir=str(folder / "peer"), per_device_train_batch_size=batch * completions * (completions - 1) // 2,
        max_steps=steps, logging_steps=steps, report_to=[], save_strategy="no", max_length=None, learning_rate=RATE,
        lr_scheduler_type="constant", weight_decay=0.0, max_grad_norm=1.0, disable_dropout=True,
        use_cpu=not torch.cuda.is_available(), bf16=world.dtype() == "bfloat16", gradient_checkpointing=False,
        disable_tqdm=True)  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(folder / "reader")
    InOrder(model=model, args=settings, train_dataset=Dataset.from_list(rows), processing_class=tokenizer,
            callbacks=[timing_callback(clock)]).train()  # fmt: skip
    model.eval()
    with torch.no_grad():
        scores = [[model(torch.tensor([row["prompt"] + text], device=model.device)).logits.item()
                   for text in row["completions"]] for row in held_out]  # fmt: skip
    return measured(clock, name, scores)


def needs(name: str, size: str, side: str) -> machine.Need:
    """Return the need of one ranking, with its prompt counted once."""
    train, _ = data(name)
    tokens = sum(len(row["prompt"]) + sum(map(len, row["completions"])) for row in train) / len(train)
    return machine.Need(operations=6 * machine.trunk_weights(size) * tokens)


class Clock:
    """Seconds by phase of each step, and cumulative CPU seconds; a step ends with its updates."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = [{}]
        self.processor: list[float] = []  # seconds until the end of each step, of all threads
        self._last = time.perf_counter()

    def lap(self, phase: str) -> None:
        now = time.perf_counter()
        self.steps[-1][phase] = self.steps[-1].get(phase, 0.0) + now - self._last
        self._last = now
        if phase == "updates":
            self.steps.append({})
            self.processor.append(time.process_time())


def timing_callback(clock: Clock) -> Any:
    """Return a callback of the peer's trainer that times the phases of each step."""
    from transformers import TrainerCallback

    class Laps(TrainerCallback):
        def on_step_begin(self, *_, **__):
            clock.lap("other")  # the next batch's tensors

        def on_pre_optimizer_step(self, *_, **__):
            clock.lap("gradients")  # and their norm

        def on_step_end(self, *_, **__):
            clock.lap("updates")

    return Laps()


def measured(clock: Clock, name: str, scores: list[list[float]]) -> dict:
    """Return rankings per second after the warm-up, and the share of held-out pairs in the right order (best first)."""
    _, batch, steps = SHAPES[name]
    counted = clock.steps[WARM_UP:steps]
    phases = {phase: sum(step.get(phase, 0.0) for step in counted) for phase in ("gradients", "updates", "other")}
    right = [a > b for row in scores for a, b in itertools.combinations(row, 2)]
    value = batch * len(counted) / sum(phases.values())
    return {
        "value": value,
        "quality": sum(right) / len(right),
        "phases": phases,
        "steps": len(clock.steps) - 1,
        "processor_seconds": clock.processor[-1] - clock.processor[WARM_UP - 1],
    }


def is_equal_quality(ours: dict, peer: dict) -> bool:
    """Return whether held-out accuracies differ by at most one point."""
    return abs(ours["quality"] - peer["quality"]) <= 0.01
