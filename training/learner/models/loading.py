"""Models: policies and models with a scalar head, loaded, built and saved as ordinary Hugging Face folders.

Every model is in evaluation mode always, also while it learns: no dropout anywhere, so that a policy gives the same
log-probabilities when it samples, when it is compared and when it is trained.
"""

import contextlib
import functools
import inspect
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.modeling_layers import GenericForSequenceClassification
from transformers.models.auto.tokenization_auto import get_tokenizer_config
from transformers.utils import logging as transformers_logging

from training.learner.runtime.jobdir import BadInput
from training.learner.text.control_tokens import add_eos_tokens, control_tokens

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
STORED = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}  # by their names in safetensors files


def device() -> torch.device:
    """Where models live: this process's GPU if there is one."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def load_tokenizer(path: str) -> Any:
    """The folder's tokenizer. Raises BadInput without one, or when it has no end token."""
    try:
        # Where a folder says that its tokenizer.json is all there is to know, so it is: beside a Qwen2 model
        # AutoTokenizer would have that family's rules of cutting text, and a token more, in the place of those saved.
        is_plain = get_tokenizer_config(path).get("tokenizer_class") == "TokenizersBackend"
        tokenizer = (PreTrainedTokenizerFast if is_plain else AutoTokenizer).from_pretrained(
            path, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise BadInput(f"no tokenizer could be loaded from {path}: {first_line(error)}") from error
    if tokenizer.eos_token_id is None:
        raise BadInput(f"the tokenizer of {path} has no end token")
    add_eos_tokens(tokenizer, extra_eos_tokens(path))
    return tokenizer


def extra_eos_tokens(path: str) -> list[int]:
    """Return the EOS tokens that a model's folder names: its generation config, or else its config."""
    try:
        named = GenerationConfig.from_pretrained(path).eos_token_id
    except (OSError, ValueError):
        try:
            named = getattr(AutoConfig.from_pretrained(path), "eos_token_id", None)
        except (OSError, ValueError):  # a folder that holds a tokenizer alone
            named = None
    return [] if named is None else [named] if isinstance(named, int) else list(named)


def load_policy(path: str, dtype: str = "float32") -> tuple[PreTrainedModel, Any]:
    """A causal language model in evaluation mode, and its tokenizer. Raises BadInput when either cannot be loaded."""
    tokenizer = load_tokenizer(path)
    model = _load(AutoModelForCausalLM, path, dtype)
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        raise BadInput(f"the tokenizer of {path} has more tokens ({len(tokenizer)}) than the model's embedding")
    stop_at_ends(model, tokenizer)
    return model, tokenizer


def stop_at_ends(model: PreTrainedModel, tokenizer: Any) -> None:
    """Let whoever serves the model once it is saved stop where our own sampling does."""
    end_of_turn, ends, _ = control_tokens(tokenizer)
    if model.generation_config is not None:
        others = sorted(ends - {end_of_turn})
        model.generation_config.eos_token_id = [end_of_turn, *others] if others else end_of_turn


def load_scalar_model(path: str, dtype: str = "float32") -> Any:
    """A sequence classifier with one output. From a language model's folder its head is new, and all zeros."""
    try:
        config = AutoConfig.from_pretrained(path, num_labels=1, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(f"no model could be loaded from {path}: {first_line(error)}") from error
    model = _load(scalar_class(cast(Any, type(config))), path, dtype, new="score.weight", config=config)
    if not is_scalar_folder(path):
        nn.init.zeros_(model.score.weight)
    return model


@functools.cache
def scalar_class(config_class: Any) -> Any:
    """Return the kind's sequence classifier whose head is a linear layer named score.

    transformers has one for fewer than half of its causal kinds; the others get its generic one on their own trunk.
    """
    theirs: Any = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING.get(config_class, None)
    if theirs is not None and "score" in inspect.getsource(theirs.__init__):  # others call their head otherwise
        return theirs
    causal: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(config_class, None)
    if causal is None:
        kind = config_class.__name__.removesuffix("Config")
        raise BadInput(f"a {kind} is no causal language model, and cannot score")
    parent = next(kind for kind in causal.__mro__ if kind.__name__.endswith("PreTrainedModel"))
    name = f"{parent.__name__.removesuffix('PreTrainedModel')}ForSequenceClassification"
    members = {"base_model_prefix": causal.base_model_prefix, "config_class": config_class, "__module__": __name__}
    return type(name, (GenericForSequenceClassification, parent), members)


def load_critic(path: str, dtype: str = "float32") -> Any:
    """A scalar model whose head has a bias, to learn values with.

    From a reward model's folder its values start as the model's normalised scores (InstructGPT, Ouyang et al. 2022,
    appendix C.4); from a language model's they start at 0.
    """
    model = load_scalar_model(path, dtype)
    model.score = value_head(model.score, model.config)
    return model


@torch.no_grad()
def value_head(score: nn.Linear, config: Any) -> nn.Linear:
    """A head with a bias whose values are at first the normalised scores of this head of a reward model's.

    config: the reward model's, where the shift and scale of its scores are kept.
    """
    scale, shift = getattr(config, "reward_scale", 1.0), getattr(config, "reward_shift", 0.0)
    head = nn.Linear(score.in_features, 1).to(score.weight)
    head.weight.copy_(score.weight / scale)
    nn.init.constant_(head.bias, ((0.0 if score.bias is None else float(score.bias)) - shift) / scale)
    return head


def is_scalar_folder(path: str) -> bool:
    """Whether the folder was saved from a sequence classifier."""
    architectures = AutoConfig.from_pretrained(path).architectures or []
    return any(name.endswith("ForSequenceClassification") for name in architectures)


def _load(kind: Any, path: str, dtype: str, new: str = "", **options: Any) -> Any:
    """In evaluation mode. new: the one weight that the folder may lack. Raises BadInput when it cannot be loaded."""
    transformers_logging.set_verbosity_error()  # what it warns of, a head that is new, is meant
    transformers_logging.disable_progress_bar()
    try:
        model, loading = kind.from_pretrained(
            path, dtype=DTYPES[dtype], output_loading_info=True, ignore_mismatched_sizes=True,
            use_safetensors=True, trust_remote_code=False, **options
        )  # fmt: skip
    # The last four are raised by kinds whose config lacks something, or that need a package.
    except (OSError, ValueError, RuntimeError, SafetensorError,
            KeyError, AttributeError, TypeError, ImportError) as error:  # fmt: skip
        raise BadInput(f"no model could be loaded from {path}: {first_line(error)}") from error
    # transformers fills these in at random, so that two loads of one folder would be two models.
    lacking = sorted({*loading["missing_keys"], *(name for name, *_ in loading["mismatched_keys"])} - {new})
    if lacking:
        raise BadInput(f"no model could be loaded from {path}: it has no weight {lacking[0]} of the config's shape")
    model.accord_stored_dtype = stored_dtype(path)
    # A pad token that is also the end token must learn; nothing of ours is ever padded with it.
    model.get_input_embeddings().padding_idx = None
    return prepare(model, path)


def prepare(model: Any, where: str) -> Any:
    """In evaluation mode, on this process's device, by the fastest path that is exact. Raises BadInput if none is."""
    from training.learner.models.probe import choose_path  # which loads models itself

    fix_rotations(model)
    model = model.eval().to(device())
    choose_path(model, where)
    return model


def fix_rotations(model: nn.Module) -> None:
    """Keep rotary frequencies that depend on the batch's longest row at those of texts of the original length.

    Otherwise a short row's numbers would depend on the rows beside it. `room_of` bounds texts to that length.
    """
    for module in model.modules():
        kinds: Any = getattr(module, "rope_type", None)
        if isinstance(kinds, dict):
            module.rope_type = {layer: fixed_rotation(kind) for layer, kind in kinds.items()}  # type: ignore[assignment]
        elif isinstance(kinds, str):
            module.rope_type = fixed_rotation(kinds)  # type: ignore[assignment]


def fixed_rotation(kind: str) -> str:
    return "default" if "dynamic" in kind or kind == "longrope" else kind


def room_of(config: Any) -> int | None:
    """Most tokens of a text that the model can read; None: no limit is known."""
    text = config.get_text_config()
    room = getattr(text, "max_position_embeddings", None)
    rope = getattr(text, "rope_parameters", None) or {}
    for one in [rope, *(part for part in rope.values() if isinstance(part, dict))]:
        if fixed_rotation(str(one.get("rope_type"))) != str(one.get("rope_type")):
            original = one.get("original_max_position_embeddings")
            room = min(int(part) for part in (room, original) if part is not None)
    return room


def build_policy(architecture: dict[str, Any], tokenizer: Any, dtype: str = "float32") -> PreTrainedModel:
    """A new policy of this transformers config, its vocabulary and special tokens being the tokenizer's."""
    settings = dict(architecture)
    kind = settings.pop("model_type")
    settings |= {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id}
    settings |= {"bos_token_id": tokenizer.bos_token_id, "pad_token_id": tokenizer.pad_token_id}
    try:
        config = AutoConfig.for_model(kind, **settings)
        model = AutoModelForCausalLM.from_config(config, dtype=DTYPES[dtype], trust_remote_code=False)
    except (ValueError, TypeError) as error:
        raise BadInput(f"architecture cannot be built: {first_line(error)}") from error
    stop_at_ends(model, tokenizer)
    return cast(PreTrainedModel, prepare(model, f"a new {kind}"))


def stored_dtype(path: str) -> torch.dtype | None:
    """Return the dtype that a folder keeps its weights in, by its files or else by its config; None if unknown.

    Half precision counts where most numbers have it: routers and norms are often kept in float32 beside it.
    """
    sizes: Counter[str] = Counter()
    for file in sorted(Path(path).glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118 (it is no dict)
                part = opened.get_slice(name)
                sizes[part.get_dtype()] += math.prod(part.get_shape())
    if sizes:
        return STORED.get(sizes.most_common(1)[0][0])
    named = AutoConfig.from_pretrained(path, trust_remote_code=False).dtype
    return named if named in STORED.values() else None


@torch.no_grad()
def save_weights(model: PreTrainedModel, folder: Path) -> None:
    """A Hugging Face folder without tokenizer, in the dtype of the folder that the model came from.

    Modules that transformers keeps in float32 whatever the dtype stay so. The model itself is not changed.
    """
    dtype = getattr(model, "accord_stored_dtype", None)
    if dtype is None or dtype == model.dtype:
        model.save_pretrained(folder)
        return
    kept = {*(model._keep_in_fp32_modules_strict or ())}
    if dtype == torch.float16:
        kept |= {*(model._keep_in_fp32_modules or ())}
    cast_once: dict[Tensor, Tensor] = {}  # tied weights stay one tensor, so that they are saved once

    def stored(name: str, tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point() or any(part in kept for part in name.split(".")):
            return tensor
        return cast_once.setdefault(tensor, tensor.to(dtype))

    weights = {name: stored(name, tensor) for name, tensor in model.state_dict(keep_vars=True).items()}
    model.save_pretrained(folder, state_dict=weights)
    config = json.loads((folder / "config.json").read_text())
    config["dtype"] = str(dtype).removeprefix("torch.")
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """A Hugging Face folder in safetensors, tokenizer included, in the dtype of the folder it was loaded from.

    model: a transformers model, or a LoRA role, which saves itself merged. float32 weights stay in `state/` alone.
    """
    if getattr(model, "generation_config", None) is not None:
        # Without these, transformers takes the likeliest token, or samples from fifty, whatever temperature is asked.
        model.generation_config.update(do_sample=True, top_k=model.generation_config.top_k or 0)
    if isinstance(model, PreTrainedModel):
        save_weights(model, folder)
    else:
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


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
