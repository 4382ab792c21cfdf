"""rloo: episodes per second of whole batches, sampling to update, against TRL 1.16's RLOOTrainer.

A batch has 64 episodes, four per prompt, of up to 64 tokens, and one step on both sides. The peer's reward is a
function of its token ids, so that no text is encoded again: the same model on the same tokens, a batch at once.
Gradient checkpointing is off and prompts come in order. Quality: see policy_quality.
"""

import itertools
import time
from pathlib import Path

from tests.benchmarks.learner.machine import Need
from tests.benchmarks.learner.ppo import BETA, EPISODES, NEW_TOKENS, episodes, is_equal_quality, run

__all__ = ["NAMES", "PEER", "UNIT", "is_equal_quality", "needs", "ours", "peer"]
NAMES, PEER, UNIT = ("rloo",), "trl-1.16", "episodes/s"
BATCHES, GROUP_SIZE, RATE = 9, 4, 1e-3


def needs(name: str, size: str, side: str) -> Need:
    return episodes(size, GROUP_SIZE, epochs=1, has_critic=False)


def ours(name: str, folder: Path) -> dict:
    own = {"algorithm": "rloo", "completions_per_prompt": GROUP_SIZE, "epochs": 1, "learning_rate": RATE}
    return run(folder, name, BATCHES, own)


def peer(name: str, folder: Path) -> dict:
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, TrainerCallback
    from trl import RLOOConfig, RLOOTrainer

    from tests.benchmarks.learner import policy_quality, world

    policy = AutoModelForCausalLM.from_pretrained(folder / "policy")
    scorer = AutoModelForSequenceClassification.from_pretrained(folder / "reward_model").eval()
    scorer.to("cuda" if torch.cuda.is_available() else "cpu")
    tokens = dict(zip(map(world.text, given := world.prompts(BATCHES * EPISODES // GROUP_SIZE)), given, strict=True))

    @torch.no_grad()
    def reward(prompts, completions, completion_ids, **_):
        rows = [torch.tensor(tokens[prompt] + row) for prompt, row in zip(prompts, completion_ids, strict=True)]
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=world.PAD).to(scorer.device)
        mask = torch.arange(padded.shape[1]) < torch.tensor([len(row) for row in rows])[:, None]
        scores = scorer(padded, attention_mask=mask.to(scorer.device)).logits[:, 0].tolist()
        missing = [policy_quality.MISSING_EOS * (row[-1] != world.END) for row in completion_ids]
        return [score - penalty for score, penalty in zip(scores, missing, strict=True)]

    rows = Dataset.from_list([{"prompt": text} for text in tokens])
    steps, ends, seen = itertools.count(), [], []

    class Clock(TrainerCallback):
        def on_step_end(self, *_, **__):
            ends.append(time.perf_counter())

        def on_log(self, arguments, state, control, logs=None, **_):
            seen.extend([[logs["reward"], logs["kl"]]] if "reward" in logs else [])

    settings = RLOOConfig(
        output_dir=str(folder / "peer"), per_device_train_batch_size=16, gradient_accumulation_steps=EPISODES // 16,
        max_steps=BATCHES, num_generations=GROUP_SIZE, max_completion_length=NEW_TOKENS, beta=BETA, learning_rate=RATE,
        adam_epsilon=1e-5, weight_decay=0.0, max_grad_norm=1.0, temperature=1.0, shuffle_dataset=False,
        disable_dropout=True, logging_steps=1, report_to=[], save_strategy="no", gradient_checkpointing=False,
        use_cpu=not torch.cuda.is_available(), bf16=world.dtype() == "bfloat16", disable_tqdm=True)  # fmt: skip
    trainer = RLOOTrainer(
        model=policy, reward_funcs=reward, args=settings, train_dataset=rows,
        processing_class=world.tokenizer_of(folder), callbacks=[Clock()])  # fmt: skip
    trainer.create_optimizer()
    trainer.optimizer.register_step_post_hook(lambda *_: next(steps))
    trainer.train()
    return {
        "value": EPISODES * (len(ends) - 1) / (ends[-1] - ends[0]), "phases": {}, "steps": next(steps), "curve": seen,
    } | policy_quality.measure_policy(folder, trainer.model, NEW_TOKENS, BETA)  # fmt: skip
