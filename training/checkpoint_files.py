"""Whether a model can be used, looked at before anything is started on it. No torch: only its files' names and JSON."""

import json
import re
from pathlib import Path
from typing import Any

from django.utils.translation import gettext as _

from feedback.errors import Invalid

HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
FETCHED = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]  # weights in other formats stay where they are
# What kinds of models call the number of tokens that they can read at once.
POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


def check_model(path_or_hub_id: str) -> str:
    """The model's folder in full, fetched first when a hub id is given. Raises Invalid with a sentence.

    Fetched here and once, so that every round starts from the very same files. Code that comes with a model is never
    run, so one that needs its own is refused.
    """
    given = path_or_hub_id.strip()
    folder = Path(given).expanduser()
    if not given or not folder.is_dir():
        if given.startswith(("/", ".", "~")) or not HUB_ID.fullmatch(given):
            raise Invalid(_("There is no folder %(value)s on this machine.") % {"value": given or "without a name"})
        folder = fetch_from_hub(given)
    check_files({file.name for file in folder.iterdir()}, given)
    check_config(_read_config(folder), given)
    return str(folder.resolve())


def check_files(names: set[str], where: str) -> None:
    """Raises Invalid unless a config, weights in safetensors and a tokenizer are among the names."""
    if "config.json" not in names:
        raise Invalid(_("%(where)s has no config.json: give a Hugging Face model.") % {"where": where})
    if not any(name.endswith(".safetensors") for name in names):
        raise Invalid(
            _("%(where)s has no weights in safetensors: save the model with save_pretrained first.") % {"where": where}
        )
    if not names.intersection(TOKENIZERS):
        raise Invalid(_("%(where)s has no tokenizer: save it into the same folder.") % {"where": where})


def check_config(config: Any, where: str) -> None:
    """Raises Invalid unless this is the configuration of a causal language model that needs no code of its own."""
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise Invalid(_("%(where)s: its config.json names no model_type.") % {"where": where})
    if "auto_map" in config:
        raise Invalid(
            _("%(where)s brings code of its own, which is never run here: use a model that transformers knows.")
            % {"where": where}
        )
    named = config.get("architectures") or []
    if named and not any("CausalLM" in name or name.endswith("LMHeadModel") for name in named):
        raise Invalid(
            _("%(where)s is a %(given)s: a causal language model is needed.") % {"where": where, "given": named[0]}
        )


def _read_config(folder: Path) -> Any:
    try:
        return json.loads((folder / "config.json").read_text("utf-8"))
    except ValueError as error:
        raise Invalid(
            _("%(folder)s: its config.json is not JSON (%(error)s).") % {"folder": folder, "error": error}
        ) from error


def fetch_from_hub(hub_id: str) -> Path:
    """The model's folder in the hub's cache on this machine, fetched now if need be. Raises Invalid."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(snapshot_download(hub_id, allow_patterns=FETCHED))
    except HfHubHTTPError as error:
        raise Invalid(_("The hub has no model %(hub_id)s that this machine may read.") % {"hub_id": hub_id}) from error
    except (HFValidationError, OSError) as error:
        raise Invalid(
            _("There is no folder %(hub_id)s on this machine, and the hub cannot be reached.") % {"hub_id": hub_id}
        ) from error


def positions_of(folder: str) -> int | None:
    """Return how many tokens a model can read at once, or None where its config.json is not here or does not say."""
    try:
        config = json.loads((Path(folder) / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(config, dict):
        return None
    inner = config.get("text_config")
    for part in (config, inner if isinstance(inner, dict) else {}):
        for name in POSITIONS:
            if isinstance(value := part.get(name), int) and value > 0:
                return value
    return None
