"""Load and build policies and models with a scalar head from ordinary Hugging Face folders.

All models are in evaluation mode, also in training. Without dropout a policy gives the same log-probs when it samples,
when it is compared with the reference, and when it is trained.
"""

import contextlib
import functools
import inspect
import math
from collections import Counter
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
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

from training.learner.models.context_length import fix_rope_types, max_positions
from training.learner.models.frozen import hold_frozen
from training.learner.models.heads import value_head
from training.learner.models.peft_format import (
    is_adapter_folder,
    merge_adapter,
    read_adapter,
    read_config,
    weights_source,
)
from training.learner.models.probe import choose_path
from training.learner.runtime.jobdir import BadInput, first_line
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


def load_policy(path: str) -> tuple[PreTrainedModel, Any]:
    """Load a causal language model in float32, and its tokenizer. Raises BadInput if either cannot be loaded."""
    tokenizer = load_tokenizer(path)
    model = _load(AutoModelForCausalLM, path)
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        raise BadInput(f"the tokenizer of {path} has more tokens ({len(tokenizer)}) than the model's embedding")
    stop_at_ends(model, tokenizer)
    return model, tokenizer


def load_frozen_policy(path: str, dtype: str) -> tuple[PreTrainedModel, Any]:
    """Load a language model that stays frozen, and its tokenizer. Raises BadInput if either cannot be loaded.

    dtype: the computing dtype, in which its matrices are held where that changes no result (`hold_frozen`).
    """
    model, tokenizer = load_policy(path)
    return hold_frozen(freeze(model), dtype), tokenizer


def stop_at_ends(model: PreTrainedModel, tokenizer: Any) -> None:
    """Set the EOS tokens of the generation config to those of our sampling, for programs that serve the saved model."""
    end_of_turn, ends, _ = control_tokens(tokenizer)
    if model.generation_config is not None:
        others = sorted(ends - {end_of_turn})
        model.generation_config.eos_token_id = [end_of_turn, *others] if others else end_of_turn


def load_scalar_model(path: str) -> Any:
    """Load a sequence classifier with one output, in float32.

    From a language model's folder, its head is new and all zeros.
    """
    try:
        config = AutoConfig.from_pretrained(weights_source(path), num_labels=1, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(f"no model could be loaded from {path}: {first_line(error)}") from error
    model = _load(scalar_class(cast(Any, type(config))), path, new="score.weight", config=config)
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
        raise BadInput(f"a {kind} is not a causal language model and cannot score")
    parent = next(kind for kind in causal.__mro__ if kind.__name__.endswith("PreTrainedModel"))
    name = f"{parent.__name__.removesuffix('PreTrainedModel')}ForSequenceClassification"
    members = {"base_model_prefix": causal.base_model_prefix, "config_class": config_class, "__module__": __name__}
    return type(name, (GenericForSequenceClassification, parent), members)


def positions_of(path: str) -> int | None:
    """Return how many tokens the folder's model reads at most, None without a limit. Raises BadInput without one."""
    try:
        return max_positions(AutoConfig.from_pretrained(weights_source(path), trust_remote_code=False))
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(f"no model could be loaded from {path}: {first_line(error)}") from error


def load_critic(path: str) -> Any:
    """Load a critic: a scalar model whose head has a bias.

    If the folder is a reward model's, values start as its normalised scores (InstructGPT, Ouyang et al. 2022, appendix
    C.4); if it is a language model's, they start at 0.
    """
    model = load_scalar_model(path)
    model.score = value_head(model.score, model.config)
    return model


def is_scalar_folder(path: str) -> bool:
    """Return whether the folder was saved from a sequence classifier, or from an adapter of one."""
    if is_adapter_folder(path):
        return read_config(Path(path)).get("task_type") == "SEQ_CLS"
    architectures = AutoConfig.from_pretrained(path).architectures or []
    return any(name.endswith("ForSequenceClassification") for name in architectures)


def _load(kind: Any, path: str, new: str = "", **options: Any) -> Any:
    """Load a model, with the adapter merged if the path is an adapter's folder. Raises BadInput if this is impossible.

    new: name of the one weight that the folder may lack.
    """
    source = weights_source(path)
    transformers_logging.set_verbosity_error()  # it would warn of a new head, which is intended
    transformers_logging.disable_progress_bar()
    try:
        model, loading = kind.from_pretrained(
            source, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True,
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
            raise BadInput(f"{path} has no scoring head, and neither has its base")
        merge_adapter(model, adapter, path)
    return prepare(model, path)


def prepare(model: Any, where: str) -> Any:
    """Move the model to this process's device and choose the fastest exact path. Raises BadInput if none is exact."""
    fix_rope_types(model)
    model = model.eval().to(device())
    choose_path(model, where)
    return model


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


def freeze(model: nn.Module) -> Any:
    """Turn off gradients of all parameters, and return the model."""
    return model.requires_grad_(False)


def computing_in(dtype: str) -> contextlib.AbstractContextManager[Any]:
    """Return a context with autocast to `dtype`; the weights stay float32."""
    if dtype == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device().type, DTYPES[dtype])
