"""Models: policies and models with a scalar head, loaded, built and saved as ordinary Hugging Face folders.

Every model is in evaluation mode always, also while it learns: no dropout anywhere, so that a policy gives the same
log-probabilities when it samples, when it is compared and when it is trained.
"""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
)
from transformers.utils import logging as transformers_logging

from training.learner.data import budget_batches
from training.learner.flat import ATTENTION, FlatBatch, Row, flatten, forward_flat
from training.learner.jobdir import BadInput
from training.learner.log_probs import TokenScores, token_scores
from training.learner.lora import Role
from training.learner.trunk import is_known, states_at

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def device() -> torch.device:
    """Where models live: this process's GPU if there is one."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def load_tokenizer(path: str) -> Any:
    """The folder's tokenizer. Raises BadInput without one, or when it has no end token."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise BadInput(f"no tokenizer could be loaded from {path}: {first_line(error)}") from error
    if tokenizer.eos_token_id is None:
        raise BadInput(f"the tokenizer of {path} has no end token")
    return tokenizer


def load_policy(path: str, dtype: str = "float32") -> tuple[PreTrainedModel, Any]:
    """A causal language model in evaluation mode, and its tokenizer. Raises BadInput when either cannot be loaded."""
    tokenizer = load_tokenizer(path)
    model = _load(AutoModelForCausalLM, path, dtype)
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        raise BadInput(f"the tokenizer of {path} has more tokens ({len(tokenizer)}) than the model's embedding")
    return model, tokenizer


def load_scalar_model(path: str, dtype: str = "float32") -> Any:
    """A sequence classifier with one output. From a language model's folder its head is new, and all zeros."""
    model = _load(AutoModelForSequenceClassification, path, dtype, num_labels=1)
    if not is_scalar_folder(path):
        nn.init.zeros_(model.score.weight)
    return model


def load_critic(path: str, dtype: str = "float32") -> Any:
    """A scalar model whose head has a bias, to learn values with.

    From a reward model's folder its values start as the model's normalised scores (InstructGPT, Ouyang et al. 2022,
    appendix C.4); from a language model's they start at 0.
    """
    model = load_scalar_model(path, dtype)
    scale, shift = getattr(model.config, "reward_scale", 1.0), getattr(model.config, "reward_shift", 0.0)
    head = nn.Linear(model.score.in_features, 1).to(model.score.weight)
    with torch.no_grad():
        head.weight.copy_(model.score.weight / scale)
        nn.init.constant_(head.bias, -shift / scale)
    model.score = head
    return model


def is_scalar_folder(path: str) -> bool:
    """Whether the folder was saved from a sequence classifier."""
    architectures = AutoConfig.from_pretrained(path).architectures or []
    return any(name.endswith("ForSequenceClassification") for name in architectures)


def _load(kind: Any, path: str, dtype: str, **options: Any) -> Any:
    transformers_logging.set_verbosity_error()  # what it warns of, a head that is new, is meant
    transformers_logging.disable_progress_bar()
    try:
        model = kind.from_pretrained(path, dtype=DTYPES[dtype], attn_implementation=ATTENTION, **options)
    except (OSError, ValueError) as error:
        raise BadInput(f"no model could be loaded from {path}: {first_line(error)}") from error
    # A pad token that is also the end token must learn; nothing of ours is ever padded with it.
    model.get_input_embeddings().padding_idx = None
    return model.eval().to(device())


def build_policy(architecture: dict[str, Any], tokenizer: Any, dtype: str = "float32") -> PreTrainedModel:
    """A new policy of this transformers config, its vocabulary and special tokens being the tokenizer's."""
    settings = dict(architecture)
    kind = settings.pop("model_type")
    settings |= {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id}
    settings |= {"bos_token_id": tokenizer.bos_token_id, "pad_token_id": tokenizer.pad_token_id}
    try:
        config = AutoConfig.for_model(kind, **settings)
        model = AutoModelForCausalLM.from_config(config, dtype=DTYPES[dtype], attn_implementation=ATTENTION)
    except (ValueError, TypeError) as error:
        raise BadInput(f"architecture cannot be built: {first_line(error)}") from error
    return model.eval().to(device())


def save_model(model: PreTrainedModel, tokenizer: Any, folder: Path) -> None:
    """A Hugging Face folder in safetensors, tokenizer included."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def end_tokens(model: PreTrainedModel, tokenizer: Any) -> frozenset[int]:
    """The tokens that end a completion: the tokenizer's end token, and others that the model's folder names."""
    named = model.generation_config.eos_token_id if model.generation_config is not None else None
    others = [] if named is None else [named] if isinstance(named, int) else named
    return frozenset([tokenizer.eos_token_id, *(token for token in others if token < model.config.vocab_size)])


def first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def freeze(model: nn.Module) -> Any:
    """The model, never to learn."""
    return model.requires_grad_(False)


def computing_in(dtype: str) -> contextlib.AbstractContextManager[Any]:
    """Autocast for weights kept in float32 while the computation is in `dtype`."""
    if dtype == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device().type, DTYPES[dtype])


class Episodes(NamedTuple):
    """Prompts with the completions that follow them, as token ids; completions hold at least one token."""

    prompts: Sequence[Sequence[int]]
    completions: Sequence[Sequence[int]]

    def sequences(self) -> list[list[int]]:
        return [[*prompt, *completion] for prompt, completion in zip(self.prompts, self.completions, strict=True)]

    def lengths(self) -> list[int]:
        """Tokens of each, prompt and completion."""
        return [len(prompt) + len(completion) for prompt, completion in zip(*self, strict=True)]

    def select(self, indices: Sequence[int]) -> "Episodes":
        return Episodes([self.prompts[i] for i in indices], [self.completions[i] for i in indices])


def decision_positions(batch: FlatBatch, episodes: Episodes) -> Tensor:
    """[C]: where in the flat row each completion token was decided: at the token before it."""
    sizes = [len(completion) for completion in episodes.completions]
    firsts = [len(prompt) - 1 for prompt in episodes.prompts]
    starts = batch.starts + torch.tensor(firsts, device=batch.starts.device)
    return torch.cat(
        [torch.arange(size, device=starts.device) + start for size, start in zip(sizes, starts, strict=True)]
    )


def by_episode(score: Callable[[Episodes], Tensor], episodes: Episodes, token_budget: int) -> list[Tensor]:
    """What `score` gives of each completion's tokens, in the episodes' order, on the CPU; passes of like lengths."""
    rows: dict[int, Tensor] = {}
    for indices in budget_batches(episodes.lengths(), token_budget):
        chosen = episodes.select(indices)
        parts = score(chosen).cpu().split([len(completion) for completion in chosen.completions])
        rows.update(zip(indices, parts, strict=True))
    return [rows[i] for i in range(len(rows))]


def score_tokens(
    policy: PreTrainedModel, episodes: Episodes, temperature: float = 1.0, with_entropy: bool = False
) -> TokenScores:
    """Log-probabilities of completion tokens under softmax(logits / temperature). Entropy is zeros if not asked for."""
    batch = flatten(episodes.sequences(), policy.device)
    decisions = decision_positions(batch, episodes)
    return scores_at(policy, batch, decisions, batch.tokens[0, decisions + 1], temperature, with_entropy)


def score_states(critic: Any, episodes: Episodes) -> Tensor:
    """[C] float32: the critic's value of the state that each completion token was decided in."""
    batch = flatten(episodes.sequences(), critic.device)
    return critic.score(states_at(critic, batch, decision_positions(batch, episodes)))[:, 0].float()


def scores_at(
    policy: Any, batch: Row, places: Tensor, tokens: Tensor, temperature: float = 1.0, with_entropy: bool = False
) -> TokenScores:
    """Of tokens [C] after these places [C] of the batch's row."""
    head = plain_head(policy)
    if head is not None:
        return token_scores(states_at(policy, batch, places), head, tokens, temperature, with_entropy)
    logits = forward_flat(policy, batch, logits_to_keep=places).logits[0].float() / temperature
    log_probs = -F.cross_entropy(logits, tokens, reduction="none")
    return TokenScores(log_probs, entropy_of(logits) if with_entropy else torch.zeros_like(log_probs))


def entropy_of(logits: Tensor) -> Tensor:
    """[C] from [C, V]: H = log Σ exp(z) − Σ softmax(z)·z."""
    return logits.logsumexp(-1) - (logits.softmax(-1) * logits).sum(-1)


def logits_at(policy: Any, batch: Row, places: Tensor) -> Tensor:
    """[C, V]: the policy's logits at these places [C] of the batch's row."""
    head = plain_head(policy)
    if head is None:
        return cast(Tensor, forward_flat(policy, batch, logits_to_keep=places).logits[0])
    return F.linear(states_at(policy, batch, places), head)


def plain_head(policy: Any) -> Tensor | None:
    """[V, E]: what makes logits of last hidden states, where that is all there is to it; else None."""
    model = policy.base.model if isinstance(policy, Role) else policy
    return cast(Tensor, model.lm_head.weight) if is_known(model.base_model) and model.lm_head.bias is None else None
