"""Check of a model's folder before a program loads it: names of files and config.json only, no torch."""

import json
import re
import stat
from pathlib import Path
from typing import Any

from django.utils.translation import gettext as _

from feedback.errors import Invalid

HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
DOWNLOADED = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]  # weights in other formats are not downloaded
# Names of the context length (in tokens) in config.json, by architecture.
POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length")
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")  # the names that transformers reads
PICKLED = re.compile(r"pytorch_model.*\.bin(\.index\.json)?")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")

MAX_PATH_LENGTH = 1000  # characters, as in the database column
MAX_CONFIG_BYTES = 1 << 20


def check_model(path_or_hub_id: str, may_fetch: bool = True) -> str:
    """Return the full path of the model's folder; a hub id is downloaded first. Raise Invalid if it cannot be used.

    A model is downloaded once, so that all rounds start from the same files. Code of a model is never run, so a model
    that needs its own code is refused. Pass may_fetch=False in a web request, which a download would block.
    """
    name = path_or_hub_id.strip()
    folder = _folder(name)
    if folder is None:
        if name.startswith(("/", ".", "~")) or not HUB_ID.fullmatch(name) or len(name) > MAX_PATH_LENGTH:
            raise Invalid(
                _("There is no folder %(value)s on this machine.") % {"value": name[:100] or "without a name"}
            )
        folder = fetch_from_hub(name, may_fetch)
    check_files(_regular_files(folder, name), name)
    check_config(_read_config(folder), name)
    full = str(folder.resolve())
    if len(full) > MAX_PATH_LENGTH:
        raise Invalid(_("The path of %(where)s is too long: at most %(most)s characters.")
                      % {"where": name[:100], "most": MAX_PATH_LENGTH})  # fmt: skip
    return full


def _folder(path: str) -> Path | None:
    """Return the folder, or None if there is none or the path is invalid (too long, a NUL, an unknown home)."""
    try:
        folder = Path(path).expanduser()
        return folder if path and folder.is_dir() else None
    except (OSError, ValueError, RuntimeError):
        return None


def _regular_files(folder: Path, where: str) -> set[str]:
    """Return the names of the folder's files. Raise Invalid if reading one could block (a FIFO, a device) or fail."""
    names = set()
    try:
        for entry in folder.iterdir():
            mode = entry.stat().st_mode  # follows links: the hub's cache consists of links
            if stat.S_ISREG(mode):
                names.add(entry.name)
            elif not stat.S_ISDIR(mode) or entry.name.endswith((".json", ".safetensors", ".model", ".jinja")):
                raise Invalid(_("%(where)s: %(name)s is not a regular file.") % {"where": where, "name": entry.name})
    except OSError as error:
        raise Invalid(_("%(where)s cannot be read (%(error)s).") % {"where": where, "error": error.strerror}) from error
    return names


def check_files(names: set[str], where: str) -> None:
    """Raise Invalid unless the names include a config, weights in safetensors and a tokenizer."""
    if "config.json" not in names:
        raise Invalid(_("%(where)s has no config.json: name the folder of a Hugging Face model.") % {"where": where})
    if not names.intersection(WEIGHTS):
        raise Invalid(
            _("%(where)s has no weights in safetensors: save the model with save_pretrained first.") % {"where": where}
        )
    pickled = sorted(name for name in names if PICKLED.fullmatch(name))
    if pickled:
        raise Invalid(
            _("%(where)s has %(name)s beside its safetensors: remove it, because loading it could run code.")
            % {"where": where, "name": pickled[0]}
        )
    if not names.intersection(TOKENIZERS):
        raise Invalid(_("%(where)s has no tokenizer: save it into the same folder.") % {"where": where})


def check_config(config: Any, where: str) -> None:
    """Raise Invalid unless this is the config.json of a causal language model that needs no code of its own."""
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise Invalid(_("%(where)s: its config.json has no model_type.") % {"where": where})
    if "auto_map" in config:
        raise Invalid(
            _("%(where)s needs code of its own, which is never run here: use a model that transformers supports.")
            % {"where": where}
        )
    architectures = config.get("architectures") or []
    if not isinstance(architectures, list) or not all(isinstance(name, str) for name in architectures):
        raise Invalid(_("%(where)s: the architectures of its config.json are not a list of names.") % {"where": where})
    # Models of images and text (Gemma 3) contain a text model. T5 has the same class suffix, but no text_config.
    ends = ("LMHeadModel", "ForConditionalGeneration") if "text_config" in config else ("LMHeadModel",)
    if architectures and not any("CausalLM" in name or name.endswith(ends) for name in architectures):
        raise Invalid(
            _("%(where)s is a %(architecture)s: use a causal language model.")
            % {"where": where, "architecture": architectures[0]}
        )


def _read_config(folder: Path) -> Any:
    file = folder / "config.json"
    try:
        if file.stat().st_size > MAX_CONFIG_BYTES:
            raise Invalid(_("%(folder)s: its config.json is larger than 1 MB.") % {"folder": folder})
        return json.loads(file.read_text("utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise Invalid(
            _("%(folder)s: its config.json is not JSON (%(error)s).") % {"folder": folder, "error": error}
        ) from error


def fetch_from_hub(hub_id: str, may_fetch: bool = True) -> Path:
    """Return the model's folder in the hub's cache, downloaded first if need be and allowed. Raise Invalid."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(hub_id, allow_patterns=DOWNLOADED, local_files_only=not may_fetch))
    except LocalEntryNotFoundError as error:
        if may_fetch:
            raise Invalid(
                _("There is no folder %(hub_id)s on this machine, and the hub cannot be reached.") % {"hub_id": hub_id}
            ) from error
        raise Invalid(
            _(
                "There is no folder %(hub_id)s on this machine. To fetch it from the hub, use "
                '"manage.py import_checkpoint" on the server.'
            )
            % {"hub_id": hub_id}
        ) from error
    except HfHubHTTPError as error:
        raise Invalid(_("The hub has no model %(hub_id)s that this machine may read.") % {"hub_id": hub_id}) from error
    except (HFValidationError, OSError) as error:
        raise Invalid(
            _("There is no folder %(hub_id)s on this machine, and the hub cannot be reached.") % {"hub_id": hub_id}
        ) from error


def positions_of(folder: str) -> int | None:
    """Return the context length of a model in tokens; None if config.json is missing or does not contain it."""
    try:
        config = json.loads((Path(folder) / "config.json").read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(config, dict):
        return None
    inner = config.get("text_config")
    # The long factors of such RoPE types depend on the longest text of a batch, so the learner does not use them:
    # the context is limited to the original length.
    rope = config.get("rope_parameters") or config.get("rope_scaling")
    if isinstance(rope, dict) and rope.get("rope_type", rope.get("type")) in ("longrope", "su", "dynamic"):
        for part in (rope, config):
            if isinstance(value := part.get("original_max_position_embeddings"), int) and value > 0:
                return value
    for part in (config, inner if isinstance(inner, dict) else {}):
        for name in POSITIONS:
            if isinstance(value := part.get(name), int) and value > 0:
                return value
    return None
