"""sample_b8, sample_b64: tokens per second sampled from a policy, against transformers' generate.

Each completion has 48 new tokens, without early stop. Quality: the mean log-prob in nats of the sampled tokens under
the policy, computed by a plain forward pass; both sides sample from the same distribution, so it must be equal. CPU
seconds are those of a batch.
"""

import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks.learner import machine

NAMES = ("sample_b8", "sample_b64")
PEER, UNIT, NEW_TOKENS, LEAST_SECONDS = "trl-1.12", "tokens/s", 48, 3.0
SCORED = 128  # completions at most


def ours(name: str, folder: Path) -> dict:
    from tests.benchmarks.learner import world
    from training.learner.models.loading import computing_in, load_policy
    from training.learner.sampling.sampler import SamplingParams, sample

    policy, _ = load_policy(str(folder / "policy"))
    prompts = prompts_of(name)

    def write(seed: int) -> list[list[int]]:
        params = SamplingParams(NEW_TOKENS, frozenset(), seed=seed)
        with computing_in(world.dtype()):
            return [c.tokens for c in sample(policy, prompts, range(len(prompts)), params, len(prompts))]

    return measure(write, prompts, folder)


def peer(name: str, folder: Path) -> dict:
    import torch
    from transformers import AutoModelForCausalLM

    from tests.benchmarks.learner import world

    policy = AutoModelForCausalLM.from_pretrained(folder / "policy", dtype=getattr(torch, world.dtype())).eval()
    policy.to("cuda" if torch.cuda.is_available() else "cpu")
    prompts = prompts_of(name)
    batch = world.tokenizer_of(folder).pad({"input_ids": prompts}, return_tensors="pt").to(policy.device)

    @torch.no_grad()
    def write(seed: int) -> list[list[int]]:
        torch.manual_seed(seed)
        written = policy.generate(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], do_sample=True, top_k=0, top_p=1.0,
            max_new_tokens=NEW_TOKENS, min_new_tokens=0, eos_token_id=None, pad_token_id=world.PAD)  # fmt: skip
        return written[:, batch["input_ids"].shape[1] :].tolist()

    return measure(write, prompts, folder)


def needs(name: str, size: str, side: str) -> machine.Need:
    """Return the need of one token: its part of the weights that its step reads, and the KV cache of earlier tokens."""
    prompts = prompts_of(name)
    before = statistics.fmean(map(len, prompts)) + NEW_TOKENS / 2
    weights = machine.policy_weights(size) * machine.item_bytes()
    return machine.Need(bytes=weights / len(prompts) + machine.cache_bytes(size) * before)


def prompts_of(name: str) -> list[list[int]]:
    from tests.benchmarks.learner import world

    return world.prompts(int(name.removeprefix("sample_b")))


def measure(write: Callable[[int], list[list[int]]], prompts: list[list[int]], folder: Path) -> dict:
    """Sample completions with one seed after another for some seconds, after a warm-up."""
    write(0)
    written: list[list[list[int]]] = []
    started, processor = time.perf_counter(), time.process_time()
    while time.perf_counter() - started < LEAST_SECONDS or not written:
        written.append(write(len(written) + 1))
    seconds, processor = time.perf_counter() - started, time.process_time() - processor
    tokens = sum(len(row) for rows in written for row in rows)
    pairs = [pair for rows in written for pair in zip(prompts, rows, strict=True)][:SCORED]
    means = mean_log_probs(folder, pairs)
    return {"value": tokens / seconds, "quality": statistics.fmean(means), "phases": {},
            "quality_error": statistics.stdev(means) / math.sqrt(len(means)),
            "processor_seconds": processor / len(written)}  # fmt: skip


def mean_log_probs(folder: Path, pairs: list[tuple[list[int], list[int]]]) -> list[float]:
    """Return the mean log-prob of the completions' tokens after their prompts."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder / "policy", dtype=torch.float32).eval()
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    means = []
    for prompt, completion in pairs:
        sequence = torch.tensor([prompt + completion], device=model.device)
        with torch.no_grad():
            log_probs = model(sequence).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        means.append(float(log_probs[range(len(completion)), completion].mean()))
    return means


def is_equal_quality(ours: dict, peer: dict) -> bool:
    """Return whether the entropies agree within four standard errors of their difference."""
    return abs(ours["quality"] - peer["quality"]) < 4 * math.hypot(ours["quality_error"], peer["quality_error"])
