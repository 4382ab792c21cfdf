"""Samples of a policy at fixed prompts while it is trained, for programs that do not sample otherwise.

The random numbers are functions of the seed and the prompt alone, the same at every step and none of training's, so
training has the same bits with and without samples. They cost the decoding of `eval_samples` completions at the start
and at each evaluation, at most MAX_TOKENS each.
"""

from collections.abc import Iterable
from itertools import islice
from typing import Any

from training.learner.models.loading import computing_in
from training.learner.policy.evaluation import EVALUATION_NUMBERS
from training.learner.runtime.config.base import Settings
from training.learner.runtime.jobdir import JobDirectory
from training.learner.sampling.sampler import max_positions, sample, sampling_params_for
from training.learner.text.messages import Prompt, decode_completion, read_prompts

MAX_ROWS = 2000  # of the input file, in which the prompts are looked for
MAX_TOKENS = 128  # of a sample; the time of decoding grows with it


class FixedSamples:
    """Writer of samples_at_steps.jsonl for one policy."""

    def __init__(self, policy: Any, tokenizer: Any, rows: Iterable[dict[str, Any]], settings: Any) -> None:
        """Choose the first `eval_samples` prompts of the rows, held-out ones if there are some."""
        self.policy, self.tokenizer, self.dtype = policy, tokenizer, settings.dtype
        self.prompts = fixed_prompts(tokenizer, rows, settings, settings.eval_samples)
        room = max_positions(policy.config)
        longest = max((len(prompt.tokens) for prompt in self.prompts), default=0)
        limits = [MAX_TOKENS, settings.max_completion_tokens, *([] if room is None else [room - longest])]
        if min(limits) < 1:
            self.prompts = []  # the longest prompt leaves no room
        self.params = sampling_params_for(policy, tokenizer, min(limits), 1.0, 1.0, settings.seed)

    def write(self, job: JobDirectory, step: int) -> None:
        """Sample a completion of each prompt and append it. Every process samples all: they are few."""
        if not self.prompts:
            return
        numbers = range(EVALUATION_NUMBERS, EVALUATION_NUMBERS + len(self.prompts))
        tokens = [prompt.tokens for prompt in self.prompts]
        with computing_in(self.dtype):
            completions = sample(self.policy, tokens, numbers, self.params, batch=len(tokens))
        rows = [
            {
                "prompt_id": prompt.row.get("prompt_id"),
                "messages": prompt.row["messages"],
                "text": decode_completion(self.tokenizer, completion.tokens),
                "finished": completion.finished,
            }
            for prompt, completion in zip(self.prompts, completions, strict=True)
        ]
        job.append_samples(step, rows)


def fixed_prompts(tokenizer: Any, rows: Iterable[dict[str, Any]], settings: Settings, count: int) -> list[Prompt]:
    """Return the first `count` different prompts of an input file's rows: held-out ones if there are some."""
    if not count:
        return []
    first = list(islice(rows, MAX_ROWS))
    held_out = [row for row in first if row.get("split") == "held_out"]
    different = {str(row["messages"]): row for row in reversed(held_out or first)}
    chosen = list(reversed(different.values()))[:count]
    return read_prompts(tokenizer, chosen, settings)
