"""Reward and KL of a policy on held-out prompts, by the same code for Accord and the peers.

It uses plain transformers in each side's environment: completions by `generate` with one seed, scores by the reward
model at the last token, log-probs by a forward pass of each completion alone.
"""

import statistics
from pathlib import Path
from typing import Any

PROMPTS, SEED = 256, 99
MISSING_EOS = 1.0  # subtracted from the score of a truncated completion


def measure_policy(folder: Path, policy: Any, new_tokens: int, beta: float) -> dict:
    """Return `quality` (mean reward − β·KL), `reward`, `kl` in nats per completion, and the standard errors of both.

    policy: a causal language model, or its folder; `folder` holds the reference and the reward model.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    from tests.benchmarks.learner import world

    if isinstance(policy, Path):
        policy = AutoModelForCausalLM.from_pretrained(policy)
    policy, reference = policy.eval(), AutoModelForCausalLM.from_pretrained(folder / "policy").eval()
    scorer = AutoModelForSequenceClassification.from_pretrained(folder / "reward_model").eval()
    for model in (reference, scorer):
        model.to(policy.device)
    rewards, divergences = [], []
    with torch.no_grad():
        for prompt, completion in sample_completions(policy, world.prompts(PROMPTS, SEED), new_tokens):
            tokens = torch.tensor([prompt + completion], device=policy.device)
            rewards.append(scorer(tokens).logits.item() - MISSING_EOS * (completion[-1] != world.END))
            own, other = (
                model(tokens).logits[0, len(prompt) - 1 : -1].log_softmax(-1) for model in (policy, reference)
            )
            divergences.append(float((own - other)[range(len(completion)), completion].sum()))
    reward, kl = (statistics.fmean(values) for values in (rewards, divergences))
    errors = {f"{name}_error": statistics.stdev(values) / PROMPTS**0.5
              for name, values in (("reward", rewards), ("kl", divergences))}  # fmt: skip
    return {"quality": reward - beta * kl, "reward": reward, "kl": kl} | errors


def sample_completions(policy: Any, prompts: list[list[int]], new_tokens: int) -> list[tuple[list[int], list[int]]]:
    """Return each prompt with its completion, up to EOS."""
    import torch

    from tests.benchmarks.learner import world

    batch = world.tokenizer().pad({"input_ids": prompts}, return_tensors="pt").to(policy.device)
    torch.manual_seed(SEED)
    rows = policy.generate(**batch, do_sample=True, top_k=0, top_p=1.0, max_new_tokens=new_tokens,
                           eos_token_id=world.END, pad_token_id=world.PAD)  # fmt: skip
    completions = [row[batch["input_ids"].shape[1] :].tolist() for row in rows]
    ends = [row.index(world.END) + 1 if world.END in row else new_tokens for row in completions]
    return [(prompt, row[:end]) for prompt, row, end in zip(prompts, completions, ends, strict=True)]
