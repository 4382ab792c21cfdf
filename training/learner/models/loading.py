"""Load, build and save policies and models with a scalar head, as ordinary Hugging Face folders.

All models are in evaluation mode, also in training. Without dropout a policy gives the same log-probs when it samples,
when it is compared with the reference, and when it is trained.
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

from training.learner.models.peft_format import (
    is_adapter_folder,
    merge_adapter,
    read_adapter,
    read_config,
    weights_source,
)
from training.learner.runtime.jobdir import BadInput
from training.learner.text.control_tokens import add_eos_tokens, control_tokens

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
STORED_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}  # names in safetensors


def device() -> torch.device:
    """Return this process's GPU if there is one, else the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def load_tokenizer(path: str) -> Any:
    """Load the folder's tokenizer. Raises BadInput if there is none or it has no EOS token.

    An adapter's folder without a tokenizer has that of its base.
    """
    if not (Path(path) / "tokenizer_config.json").is_file():
        path = weights_source(path)
    try:
        # A folder may say that its tokenizer.json is complete. AutoTokenizer ignores that next to some models: for
        # Qwen2 it would replace the saved pre-tokenizer by that family's own and add a token.
        is_plain = get_tokenizer_config(path).get("tokenizer_class") == "TokenizersBackend"
        tokenizer = (PreTrainedTokenizerFast if is_plain else AutoTokenizer).from_pretrained(
            path, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise BadInput(f"no tokenizer could be loaded from {path}: {first_line(error)}") from error
    if tokenizer.eos_token_id is None:
        raise BadInput(f"the tokenizer of {path} has no EOS token: set eos_token in its tokenizer_config.json")
    add_eos_tokens(tokenizer, extra_eos_tokens(path))
    return tokenizer


def extra_eos_tokens(path: str) -> list[int]:
    """Return the EOS tokens named by a folder's generation config, or else by its config."""
    path = weights_source(path)
    try:
        named = GenerationConfig.from_pretrained(path).eos_token_id
    except (OSError, ValueError):
        try:
            named = getattr(AutoConfig.from_pretrained(path), "eos_token_id", None)
        except (OSError, ValueError):  # the folder has a tokenizer only
            named = None
    return [] if named is None else [named] if isinstance(named, int) else list(named)


def load_policy(path: str, dtype: str = "float32") -> tuple[PreTrainedModel, Any]:
    """Load a causal language model and its tokenizer. Raises BadInput if either cannot be loaded."""
    tokenizer = load_tokenizer(path)
    model = _load(AutoModelForCausalLM, path, dtype)
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        raise BadInput(f"the tokenizer of {path} has more tokens ({len(tokenizer)}) than the model's embedding")
    stop_at_ends(model, tokenizer)
    return model, tokenizer


def stop_at_ends(model: PreTrainedModel, tokenizer: Any) -> None:
    """Set the EOS tokens of the generation config to those of our sampling, for programs that serve the saved model."""
    end_of_turn, ends, _ = control_tokens(tokenizer)
    if model.generation_config is not None:
        others = sorted(ends - {end_of_turn})
        model.generation_config.eos_token_id = [end_of_turn, *others] if others else end_of_turn


def load_scalar_model(path: str, dtype: str = "float32") -> Any:
    """Load a sequence classifier with one output. From a language model's folder, its head is new and all zeros."""
    try:
        config = AutoConfig.from_pretrained(weights_source(path), num_labels=1, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(f"no model could be loaded from {path}: {first_line(error)}") from error
    model = _load(scalar_class(cast(Any, type(config))), path, dtype, new="score.weight", config=config)
    if not is_scalar_folder(path):
        nn.init.zeros_(model.score.weight)  # transformers initialises it at random
    return model


@functools.cache
def scalar_class(config_class: Any) -> Any:
    """Return the architecture's sequence classifier whose head is a linear layer named "score".

    transformers has one for fewer than half of its causal language models. The others get its generic one on their
    trunk.
    """
    registered: Any = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING.get(config_class, None)
    # Some classifiers name their head differently; those are not usable here.
    if registered is not None and "score" in inspect.getsource(registered.__init__):
        return registered
    causal: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(config_class, None)
    if causal is None:
        kind = config_class.__name__.removesuffix("Config")
        raise BadInput(f"a {kind} is no causal language model, and cannot score")
    parent = next(kind for kind in causal.__mro__ if kind.__name__.endswith("PreTrainedModel"))
    name = f"{parent.__name__.removesuffix('PreTrainedModel')}ForSequenceClassification"
    members = {"base_model_prefix": causal.base_model_prefix, "config_class": config_class, "__module__": __name__}
    return type(name, (GenericForSequenceClassification, parent), members)


def load_critic(path: str, dtype: str = "float32") -> Any:
    """Load a critic: a scalar model whose head has a bias.

    If the folder is a reward model's, values start as its normalised scores (InstructGPT, Ouyang et al. 2022, appendix
    C.4); if it is a language model's, they start at 0.
    """
    model = load_scalar_model(path, dtype)
    model.score = value_head(model.score, model.config)
    return model


@torch.no_grad()
def value_head(score: nn.Linear, config: Any) -> nn.Linear:
    """Return a head with a bias whose values are the normalised scores of a reward model's head.

    config: the reward model's, with the shift and scale of its scores.
    """
    scale, shift = getattr(config, "reward_scale", 1.0), getattr(config, "reward_shift", 0.0)
    head = nn.Linear(score.in_features, 1).to(score.weight)
    head.weight.copy_(score.weight / scale)
    nn.init.constant_(head.bias, ((0.0 if score.bias is None else float(score.bias)) - shift) / scale)
    return head


def is_scalar_folder(path: str) -> bool:
    """Return whether the folder was saved from a sequence classifier, or from an adapter of one."""
    if is_adapter_folder(path):
        return read_config(Path(path)).get("task_type") == "SEQ_CLS"
    architectures = AutoConfig.from_pretrained(path).architectures or []
    return any(name.endswith("ForSequenceClassification") for name in architectures)


def _load(kind: Any, path: str, dtype: str, new: str = "", **options: Any) -> Any:
    """Load a model, with the adapter merged if the path is an adapter's folder. Raises BadInput if this is impossible.

    new: name of the one weight that the folder may lack.
    """
    source = weights_source(path)
    transformers_logging.set_verbosity_error()  # it would warn of a new head, which is intended
    transformers_logging.disable_progress_bar()
    try:
        model, loading = kind.from_pretrained(
            source, dtype=DTYPES[dtype], output_loading_info=True, ignore_mismatched_sizes=True,
            use_safetensors=True, trust_remote_code=False, **options
        )  # fmt: skip
    # The last four come from architectures whose config lacks something, or that need a package.
    except (OSError, ValueError, RuntimeError, SafetensorError,
            KeyError, AttributeError, TypeError, ImportError) as error:  # fmt: skip
        raise BadInput(f"no model could be loaded from {path}: {first_line(error)}") from error
    # transformers initialises missing weights at random, so two loads of one folder would give two models.
    lacking = sorted({*loading["missing_keys"], *(name for name, *_ in loading["mismatched_keys"])} - {new})
    if lacking:
        raise BadInput(f"no model could be loaded from {path}: it has no weight {lacking[0]} of the config's shape")
    model.accord_stored_dtype = stored_dtype(source)
    # torch gives the pad token's embedding no gradient. It must learn where it is also the EOS token; we never pad.
    model.get_input_embeddings().padding_idx = None
    if adapter := read_adapter(Path(path), model) if source != path else None:
        if new in loading["missing_keys"] and is_scalar_folder(path) and not adapter.head:
            raise BadInput(f"{path} has no head that scores, and its base has none")
        merge_adapter(model, adapter, path)
    return prepare(model, path)


def prepare(model: Any, where: str) -> Any:
    """Move the model to this process's device and choose the fastest exact path. Raises BadInput if none is exact."""
    from training.learner.models.probe import choose_path  # imported here: probe imports this module

    fix_rope_types(model)
    model = model.eval().to(device())
    choose_path(model, where)
    return model


def fix_rope_types(model: nn.Module) -> None:
    """Fix RoPE frequencies that depend on the longest row of the batch to those of the original context length.

    Otherwise the outputs of a short row would depend on the other rows. `max_positions` limits texts to that length.
    """
    for module in model.modules():
        types: Any = getattr(module, "rope_type", None)
        if isinstance(types, dict):
            module.rope_type = {layer: fixed_rope_type(kind) for layer, kind in types.items()}  # type: ignore[assignment]
        elif isinstance(types, str):
            module.rope_type = fixed_rope_type(types)  # type: ignore[assignment]


def fixed_rope_type(kind: str) -> str:
    return "default" if "dynamic" in kind or kind == "longrope" else kind


def max_positions(config: Any) -> int | None:
    """Return the maximum number of tokens of a text, or None if the config has no limit."""
    text = config.get_text_config()
    positions = getattr(text, "max_position_embeddings", None)
    rope = getattr(text, "rope_parameters", None) or {}
    for parameters in [rope, *(part for part in rope.values() if isinstance(part, dict))]:
        rope_type = str(parameters.get("rope_type"))
        if fixed_rope_type(rope_type) != rope_type:
            original = parameters.get("original_max_position_embeddings")
            positions = min(int(limit) for limit in (positions, original) if limit is not None)
    return positions


def build_policy(architecture: dict[str, Any], tokenizer: Any, dtype: str = "float32") -> PreTrainedModel:
    """Build a new policy from a transformers config; vocabulary and special tokens are the tokenizer's."""
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
    """Return the dtype of most weights in a folder's files, or else the dtype in its config; None if unknown.

    Folders in half precision often keep routers and norms in float32.
    """
    sizes: Counter[str] = Counter()
    for file in sorted(Path(path).glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118 (it is not a dict)
                part = opened.get_slice(name)
                sizes[part.get_dtype()] += math.prod(part.get_shape())
    if sizes:
        return STORED_DTYPES.get(sizes.most_common(1)[0][0])
    named = AutoConfig.from_pretrained(path, trust_remote_code=False).dtype
    return named if named in STORED_DTYPES.values() else None


@torch.no_grad()
def save_weights(model: PreTrainedModel, folder: Path) -> None:
    """Write a Hugging Face folder without tokenizer, in the dtype of the folder that the model was loaded from.

    Modules that transformers always keeps in float32 stay in float32. The model itself is not changed.
    """
    dtype = getattr(model, "accord_stored_dtype", None)
    if dtype is None or dtype == model.dtype:
        model.save_pretrained(folder)
        return
    kept = {*(model._keep_in_fp32_modules_strict or ())}
    if dtype == torch.float16:
        kept |= {*(model._keep_in_fp32_modules or ())}
    cast_once: dict[Tensor, Tensor] = {}  # tied weights must stay one tensor, or they would be saved twice

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
    """Write a Hugging Face folder in safetensors with tokenizer, in the dtype of the folder it was loaded from.

    model: a transformers model, or a LoRA view, which is saved merged. Only `state/` keeps the float32 weights.
    """
    if getattr(model, "generation_config", None) is not None:
        # Without these settings transformers decodes greedily or samples from the top 50 tokens by default.
        model.generation_config.update(do_sample=True, top_k=model.generation_config.top_k or 0)
    if isinstance(model, PreTrainedModel):
        save_weights(model, folder)
    else:
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def freeze(model: nn.Module) -> Any:
    """Turn off gradients of all parameters, and return the model."""
    return model.requires_grad_(False)


def computing_in(dtype: str) -> contextlib.AbstractContextManager[Any]:
    """Return a context with autocast to `dtype`; the weights stay float32."""
    if dtype == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device().type, DTYPES[dtype])
