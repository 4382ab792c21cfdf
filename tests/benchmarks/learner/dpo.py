"""dpo_pairs, dpo_k4: rankings per second in direct preference optimization, against TRL 1.16's DPOTrainer.

Rankings of K completions follow the synthetic preference of the benchmark `reward`; prompts and completions have 16 to
64 tokens. The peer gets each ranking as K(K−1)/2 pairs, in batches with the same rankings, which is the same loss: both
sides start from the same weights and take the same number of steps. Both compute the reference in training. Quality:
held-out accuracy of the implicit reward, by plain transformers on both sides; the scatter of seeds is that of the
order of the rankings (BENCH_SEED).
"""

import itertools
import os
import random
from pathlib import Path

from tests.benchmarks.learner import machine, reward

NAMES = ("dpo_pairs", "dpo_k4")
PEER, UNIT = "trl-1.16", "rankings/s"
RATE, BETA, HELD_OUT = 1e-3, 0.1, 100


def data(name: str) -> tuple[list[dict], list[dict]]:
    """Return training rankings, in the order of the seed, and held-out rankings, both best first."""
    train, held_out = reward.data(reward_benchmark_of(name))
    random.Random(os.environ.get("BENCH_SEED", "0")).shuffle(train)
    return train, held_out[:HELD_OUT]


def reward_benchmark_of(name: str) -> str:
    """Return the name of the benchmark of reward models with the same data."""
    return name.replace("dpo", "reward")


def ours(name: str, folder: Path) -> dict:
    from tests.benchmarks.learner import world
    from training.learner.dpo import load_models
    from training.learner.models.oom_retry import MicroBatches
    from training.learner.models.packing import PromptGroup
    from training.learner.policy.direct_preferences import DirectContext, ReferenceLogProbs, accumulate_gradients
    from training.learner.preferences.ranking_data import Comparison, Ranking
    from training.learner.preferences.ranking_loss import tie_parameter
    from training.learner.runtime.config.dpo import DpoConfig
    from training.learner.runtime.optimization import adamw, take_step
    from training.learner.runtime.processes import Processes

    def comparison(number: int, row: dict) -> Comparison:
        order = tuple(range(len(row["completions"])))
        ranking = Ranking(order, order, "someone", 1.0, None)
        return Comparison(number, PromptGroup(tuple(row["prompt"]), tuple(map(tuple, row["completions"]))), (ranking,))

    rows, held_out = data(name)
    train = [comparison(*row) for row in enumerate(rows)]
    settings = DpoConfig(model=str(folder / "reader"), beta=BETA, dtype=world.dtype())
    policy, reference, _ = load_models(settings)
    tie = tie_parameter([ranking for one in train for ranking in one.rankings], settings)
    micro_batches = MicroBatches(settings.micro_batch_tokens)
    context = DirectContext(settings, Processes(), policy, reference, tie, micro_batches)
    known, optimizer = ReferenceLogProbs(train), adamw(policy, weight_decay=0.0)
    _, batch, steps = reward.SHAPES[reward_benchmark_of(name)]
    clock = reward.Clock()
    for step in range(steps):
        part = train[step * batch : (step + 1) * batch]
        clock.lap("other")
        known.compute(context, [one.group for one in part])
        accumulate_gradients(context, part, known)
        clock.lap("gradients")
        take_step(optimizer, policy.parameters(), RATE, settings.max_gradient_norm, step + 1)
        clock.lap("updates")
    policy.save_pretrained(folder / "dpo")
    return evaluate(clock, name, folder, folder / "dpo", held_out)


def peer(name: str, folder: Path) -> dict:
    import torch
    from datasets import Dataset
    from torch.utils.data import SequentialSampler
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    from tests.benchmarks.learner import world

    train, held_out = data(name)
    completions, batch, steps = reward.SHAPES[reward_benchmark_of(name)]
    rows = [
        {"prompt": world.text(row["prompt"]), "chosen": f" {world.text(better[:-1])} <end>",
         "rejected": f" {world.text(worse[:-1])} <end>"}
        for row in train for better, worse in itertools.combinations(row["completions"], 2)
    ]  # fmt: skip
    clock = reward.Clock()

    class InOrder(DPOTrainer):
        def _get_train_sampler(self, dataset=None):
            return SequentialSampler(dataset if dataset is not None else self.train_dataset)

    settings = DPOConfig(
        output_dir=str(folder / "peer"), per_device_train_batch_size=batch * completions * (completions - 1) // 2,
        max_steps=steps, logging_steps=steps, report_to=[], save_strategy="no", max_length=None, learning_rate=RATE,
        lr_scheduler_type="constant", weight_decay=0.0, max_grad_norm=1.0, disable_dropout=True, beta=BETA,
        use_cpu=not torch.cuda.is_available(), bf16=world.dtype() == "bfloat16", gradient_checkpointing=False,
        disable_tqdm=True)  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(folder / "reader")
    trainer = InOrder(
        model=model, args=settings, train_dataset=Dataset.from_list(rows), callbacks=[reward.timing_callback(clock)],
        processing_class=AutoTokenizer.from_pretrained(folder / "reader"))  # fmt: skip
    first = trainer.train_dataset[0]
    expected = train[0]["prompt"], train[0]["completions"][0]
    if (list(first["prompt_ids"]), list(first["chosen_ids"])) != expected:
        raise ValueError("the peer's tokens are not those of the data")
    trainer.train()
    model.save_pretrained(folder / "peer-dpo")
    return evaluate(clock, name, folder, folder / "peer-dpo", held_out)


def evaluate(clock: "reward.Clock", name: str, folder: Path, trained: Path, held_out: list[dict]) -> dict:
    """Return the figures, with the implicit rewards of held-out completions by plain transformers."""
    import torch
    from transformers import AutoModelForCausalLM

    policy, start = (AutoModelForCausalLM.from_pretrained(path).eval() for path in (trained, folder / "reader"))

    @torch.no_grad()
    def log_prob(model, prompt: list[int], completion: list[int]) -> float:
        logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
        return float(logits.log_softmax(-1).gather(1, torch.tensor(completion)[:, None]).double().sum())

    scores = [[log_prob(policy, row["prompt"], one) - log_prob(start, row["prompt"], one) for one in row["completions"]]
              for row in held_out]  # fmt: skip
    return reward.measured(clock, reward_benchmark_of(name), scores)


def needs(name: str, size: str, side: str) -> machine.Need:
    """Return the need of one ranking, with its prompt counted once: a training pass, and one of the reference."""
    train, _ = data(name)
    read = sum(len(row["prompt"]) + sum(map(len, row["completions"])) for row in train) / len(train)
    written = sum(sum(map(len, row["completions"])) for row in train) / len(train)
    output = machine.policy_weights(size) - machine.trunk_weights(size)
    return machine.Need(operations=8 * (machine.trunk_weights(size) * read + output * written))


def is_equal_quality(ours: dict, peer: dict) -> bool:
    """Return whether held-out accuracies differ by at most two points. The scatter of seeds is not measured yet."""
    return abs(ours["quality"] - peer["quality"]) <= 0.02
