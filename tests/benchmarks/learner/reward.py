"""reward_pairs, reward_k4, reward_k9: rankings a second that a reward model learns from, against TRL 1.16's trainer.

Rankings of K completions by a planted taste; prompts and completions of 16 to 64 tokens. The peer gets each ranking as
its K(K−1)/2 pairs, a batch's together, which is the same loss: from the same weights, in the same order, with the same
optimiser and as many steps, both sides walk the same path. Ours trains its ensemble of heads besides, as it does by
default; the contrast, which has no counterpart, is off. Quality: held-out accuracy.
"""

import itertools
import random
import time
from pathlib import Path

NAMES = ("reward_pairs", "reward_k4", "reward_k9")
PEER, UNIT = "trl-1.16", "rankings/s"
SHAPES = {"reward_pairs": (2, 16, 22), "reward_k4": (4, 8, 12), "reward_k9": (9, 4, 7)}  # K, a step's rankings, steps
WARM_UP, HELD_OUT, RATE = 2, 100, 1e-3


def data(name: str) -> tuple[list[dict], list[dict]]:
    """Rankings to train on and held-out ones: a prompt, its completions best first, as token ids."""
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
    from training.learner.config import RewardConfig
    from training.learner.memory import MicroBatches
    from training.learner.optimization import adamw, take_step
    from training.learner.processes import Processes
    from training.learner.ranking_data import Comparison, Ranking
    from training.learner.ranking_loss import Lesson, bootstrap_weights, tie_parameter
    from training.learner.reward import learn
    from training.learner.reward_model import PromptGroup, new_reward_model, raw_scores_of_groups

    def comparison(number: int, row: dict) -> Comparison:
        order = tuple(range(len(row["completions"])))
        ranking = Ranking(order, order, "someone", 1.0, None)
        return Comparison(number, PromptGroup(tuple(row["prompt"]), tuple(map(tuple, row["completions"]))), (ranking,))

    train, held_out = ([comparison(*row) for row in enumerate(rows)] for rows in data(name))
    settings = RewardConfig(model=str(folder / "policy"), contrast=0.0)
    model = new_reward_model(settings.model, settings.ensemble_heads, settings.seed)
    tie = tie_parameter([ranking for one in train for ranking in one.rankings], settings)
    bootstrap, optimizer = bootstrap_weights(train, settings.ensemble_heads, 0), adamw(model, weight_decay=0.0)
    processes, micro_batches = Processes(), MicroBatches(settings.micro_batch_tokens)
    _, batch, steps = SHAPES[name]
    ends = []
    for step in range(steps):
        lessons = [Lesson(one) for one in train[step * batch : (step + 1) * batch]]
        learn(model, tie, lessons, settings, bootstrap, processes, micro_batches)
        take_step(optimizer, model.network.parameters(), RATE, settings.max_gradient_norm, step + 1)
        ends.append(time.perf_counter())
    scores, _ = raw_scores_of_groups(model, [one.group for one in held_out], settings.micro_batch_tokens)
    return measured(ends, batch, scores.view(HELD_OUT, -1).tolist())


def peer(name: str, folder: Path) -> dict:
    import torch
    from datasets import Dataset
    from torch.utils.data import SequentialSampler
    from transformers import AutoModelForSequenceClassification, TrainerCallback
    from trl import RewardConfig, RewardTrainer

    from tests.benchmarks.learner import world

    train, held_out = data(name)
    completions, batch, steps = SHAPES[name]
    rows = [{"chosen_ids": row["prompt"] + better, "rejected_ids": row["prompt"] + worse}
            for row in train for better, worse in itertools.combinations(row["completions"], 2)]  # fmt: skip
    model = AutoModelForSequenceClassification.from_pretrained(folder / "policy", num_labels=1)
    torch.nn.init.zeros_(model.score.weight)
    ends = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_, **__):
            ends.append(time.perf_counter())

    class InOrder(RewardTrainer):
        def _get_train_sampler(self, dataset=None):
            return SequentialSampler(dataset if dataset is not None else self.train_dataset)

    settings = RewardConfig(
        output_dir=str(folder / "peer"), per_device_train_batch_size=batch * completions * (completions - 1) // 2,
        max_steps=steps, logging_steps=steps, report_to=[], save_strategy="no", max_length=None, learning_rate=RATE,
        lr_scheduler_type="constant", weight_decay=0.0, max_grad_norm=1.0, disable_dropout=True,
        use_cpu=not torch.cuda.is_available(), bf16=False, gradient_checkpointing=False, disable_tqdm=True)  # fmt: skip
    InOrder(model=model, args=settings, train_dataset=Dataset.from_list(rows), processing_class=world.tokenizer(),
            callbacks=[Clock()]).train()  # fmt: skip
    model.eval()
    with torch.no_grad():
        scores = [[model(torch.tensor([row["prompt"] + text], device=model.device)).logits.item()
                   for text in row["completions"]] for row in held_out]  # fmt: skip
    return measured(ends, batch, scores)


def measured(ends: list[float], batch: int, scores: list[list[float]]) -> dict:
    """Rankings a second after the warm-up, and the share of held-out pairs in the right order (best first)."""
    right = [a > b for row in scores for a, b in itertools.combinations(row, 2)]
    seconds = ends[-1] - ends[WARM_UP - 1]
    value = batch * (len(ends) - WARM_UP) / seconds
    return {"value": value, "quality": sum(right) / len(right), "phases": {}, "steps": len(ends)}


def holds(ours: dict, peer: dict) -> bool:
    """Held-out accuracies within a point of each other."""
    return abs(ours["quality"] - peer["quality"]) <= 0.01
