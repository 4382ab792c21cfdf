"""A world whose completions can be enumerated: five tokens, at most three per completion, 85 completions.

Prompts are one letter. The reward of a completion is a fixed random number, so the best attainable policy is known:
π*(y|x) ∝ π_ref(y|x)·exp(r(x, y)/β), with J* = β·log E_ref[exp(r/β)] (Korbak et al. 2022, eq. 5).
"""

import itertools
import json
import os
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from training.learner.models.reward_model import new_reward_model, save_reward_model
from training.learner.runtime.jobdir import JobDirectory

LETTERS = ["<end>", "a", "b", "c", "d"]
MAX_LENGTH = 3
REWARD = {"name": "python", "function": "tests.learner.worlds.letters:reward"}
PROMPTS = ("a", "b", "c", "d")

KINDS: dict[str, dict[str, Any]] = {
    kind: {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    | ({"num_key_value_heads": 2, "head_dim": 8} if kind != "gpt2" else {})
    for kind in ("llama", "qwen2", "qwen3", "gpt2", "gemma", "gemma2", "gemma3_text", "mistral")
}
KINDS["gemma2"]["sliding_window"] = KINDS["gemma3_text"]["sliding_window"] = KINDS["mistral"]["sliding_window"] = 4


def letters_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token per letter; EOS is the pad token too."""
    words = Tokenizer(models.WordLevel({letter: i for i, letter in enumerate(LETTERS)}, unk_token="d"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>", pad_token="<end>", chat_template=template)


def tiny_model(kind: str = "llama", vocabulary: int = 64, seed: int = 0, **changes: Any) -> Any:
    """Return a random model of this kind; its logits differ as much as those of a trained one."""
    torch.manual_seed(seed)
    special = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    config = AutoConfig.for_model(kind, vocab_size=vocabulary, max_position_embeddings=128, **KINDS[kind], **special)
    config.update(changes)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="accord_packed")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(4)
    return model.eval()


def policy_folder(folder: Path, **changes: Any) -> Path:
    """Save a random policy over the letters. GPT-2: its learned positions tell "a" from "aa"; rotary ones do not."""
    tiny_model(vocabulary=len(LETTERS), **({"kind": "gpt2", "num_hidden_layers": 1} | changes)).save_pretrained(folder)
    letters_tokenizer().save_pretrained(folder)
    return folder


def damaged_policy(folder: Path) -> Path:
    """Save a policy with NaN in some of its weights."""
    weights = load_file(policy_folder(folder) / "model.safetensors")
    weights["transformer.ln_f.weight"].fill_(float("nan"))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def reward_model_folder(folder: Path, **changes: Any) -> Path:
    """Save a random reward model over the letters; its scores differ widely."""
    policy_folder(folder, seed=5, **changes)
    model = new_reward_model(str(folder), heads=0, seed=0)
    with torch.no_grad():
        model.head.weight.normal_(generator=torch.Generator().manual_seed(5))
    model.network.config.reward_shift, model.network.config.reward_scale = 0.5, 2.0
    save_reward_model(model, letters_tokenizer(), folder)
    return folder


def on_reward_model(folder: Path, **changes: Any) -> dict[str, Any]:
    """Return settings of a critic on a random reward model, which is saved in this folder."""
    path = folder / "reward_model"
    if not path.exists():
        reward_model_folder(path)
    return {"critic": "reward_model", "reward_model": str(path), "rewards": [{"name": "reward_model"}]} | changes


def completions() -> list[list[int]]:
    """Return all completions: finished within MAX_LENGTH tokens, or truncated there."""
    words = [list(word) for n in range(MAX_LENGTH) for word in itertools.product(range(1, len(LETTERS)), repeat=n)]
    cut_off = [list(word) for word in itertools.product(range(1, len(LETTERS)), repeat=MAX_LENGTH)]
    return [[*word, 0] for word in words] + cut_off


def reward_of(completion: Sequence[int]) -> float:
    """Return a fixed random number."""
    return random.Random(str(list(completion))).gauss(0, 1)


def reward(answers: Sequence[Any]) -> list[float]:
    """Reward term for the settings of a job."""
    return [reward_of(answer.completion) for answer in answers]


_asked: list[int] = []  # number of answers of each call of the term below, in this process


def reward_that_waits(answers: Sequence[Any]) -> list[float]:
    """Return the same reward; the third call creates the file "waits" in ACCORD_TEST_HOLD and waits for "go".

    A test can then send a signal in the middle of a step, on a machine of any load.
    """
    _asked.append(len(answers))
    if len(_asked) == 3:
        hold = Path(os.environ["ACCORD_TEST_HOLD"])
        (hold / "waits").touch()
        while not (hold / "go").exists():
            time.sleep(0.02)
    return reward(answers)


def log_probs(model: Any, prompt: Sequence[int]) -> Tensor:
    """Return the log-probability of every completion, [85], by a plain forward pass of each alone."""
    with torch.no_grad():
        return torch.stack([log_prob(model, [*prompt], completion) for completion in completions()])


def log_prob(model: Any, prompt: list[int], completion: list[int]) -> Tensor:
    model.set_attn_implementation("eager")
    logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1].double()
    return logits.log_softmax(-1)[range(len(completion)), completion].sum()


def token_divergence(policy: Any, other: Any, prompt: list[int], completion: list[int]) -> float:
    """Return the sum over the completion's tokens of the KL of the next token's distributions, by plain passes."""
    log_probs = []
    for model in (policy, other):
        model.set_attn_implementation("eager")
        with torch.no_grad():
            logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1].double()
        log_probs.append(logits.log_softmax(-1))
    return float((log_probs[0].exp() * (log_probs[0] - log_probs[1])).sum())


def objective(policy: Tensor, reference: Tensor, beta: float) -> float:
    """Return J = E[r] − β·KL of a distribution over all completions, given as log-probabilities [85]."""
    rewards = torch.tensor([reward_of(completion) for completion in completions()], dtype=torch.float64)
    return float((policy.exp() * (rewards - beta * (policy - reference))).sum())


def best_policy(reference: Tensor, beta: float) -> Tensor:
    """Return log π*, [85], by its definition."""
    rewards = torch.tensor([reward_of(completion) for completion in completions()], dtype=torch.float64)
    return (reference + rewards / beta).log_softmax(0)


def ppo_job(folder: Path, prompts: Sequence[str] = ("a",), **settings: Any) -> Path:
    """Make a job directory for ppo, with its policy beside it."""
    rows = [{"prompt_id": i, "messages": [{"role": "user", "content": text}]} for i, text in enumerate(prompts)]
    policy_beside(folder)
    return write_job(folder, "prompts.jsonl", rows, **settings)


def policy_beside(folder: Path) -> Path:
    """Return the policy's folder beside a job directory; make it if it does not exist."""
    policy = folder.parent / "policy"
    if not policy.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        policy_folder(policy)
    return policy


def write_job(folder: Path, file: str, rows: Sequence[dict[str, Any]], **settings: Any) -> Path:
    """Write a job directory that learns from the rows by the reward of this world, without evaluation by default."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {
        "model": str(folder.parent / "policy"),
        "rewards": [REWARD],
        "max_completion_tokens": MAX_LENGTH,
        "missing_eos_penalty": 0.0,
        "eval_prompts": 0,
        "optimum_samples": 0,
        **settings,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def metrics(job: Path) -> list[dict[str, Any]]:
    """Return the metrics of every step so far."""
    return JobDirectory(job).metrics()
