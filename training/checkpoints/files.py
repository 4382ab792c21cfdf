"""Whether a model can be used, looked at before anything is started on it. No torch: only its files' names and JSON."""

import json
import re
import stat
from pathlib import Path
from typing import Any

from django.utils.translation import gettext as _

from feedback.errors import Invalid

HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
FETCHED = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]  # weights in other formats stay where they are
# What kinds of models call the number of tokens that they can read at once.
POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length")
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")  # what transformers looks for
PICKLED = re.compile(r"pytorch_model.*\.bin(\.index\.json)?")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


LONGEST_PATH = 1000  # characters, as many as the database keeps
LARGEST_CONFIG = 1 << 20  # bytes


def check_model(path_or_hub_id: str, may_fetch: bool = True) -> str:
    """The model's folder in full, fetched first when a hub id is given. Raises Invalid with a sentence.

    Fetched here and once, so that every round starts from the very same files. Code that comes with a model is never
    run, so one that needs its own is refused. may_fetch: False within a web request, which a download would hold.
    """
    given = path_or_hub_id.strip()
    folder = _folder(given)
    if folder is None:
        if given.startswith(("/", ".", "~")) or not HUB_ID.fullmatch(given) or len(given) > LONGEST_PATH:
            raise Invalid(
                _("There is no folder %(value)s on this machine.") % {"value": given[:100] or "without a name"}
            )
        folder = fetch_from_hub(given, may_fetch)
    check_files(_regular_files(folder, given), given)
    check_config(_read_config(folder), given)
    full = str(folder.resolve())
    if len(full) > LONGEST_PATH:
        raise Invalid(_("The path of %(where)s is too long: at most %(most)s characters.")
                      % {"where": given[:100], "most": LONGEST_PATH})  # fmt: skip
    return full


def _folder(given: str) -> Path | None:
    """None where the path is of no folder, or can be none: too long a name, a NUL, a home that does not exist."""
    try:
        folder = Path(given).expanduser()
        return folder if given and folder.is_dir() else None
    except (OSError, ValueError, RuntimeError):
        return None


def _regular_files(folder: Path, where: str) -> set[str]:
    """The names of the folder's files. Raises Invalid where reading one could block (a FIFO, a device) or fail."""
    names = set()
    try:
        for entry in folder.iterdir():
            mode = entry.stat().st_mode  # of what a link leads to: the hub's cache is made of links
            if stat.S_ISREG(mode):
                names.add(entry.name)
            elif not stat.S_ISDIR(mode) or entry.name.endswith((".json", ".safetensors", ".model", ".jinja")):
                raise Invalid(_("%(where)s: %(name)s is not a regular file.") % {"where": where, "name": entry.name})
    except OSError as error:
        raise Invalid(_("%(where)s cannot be read (%(error)s).") % {"where": where, "error": error.strerror}) from error
    return names


def check_files(names: set[str], where: str) -> None:
    """Raises Invalid unless a config, weights in safetensors and a tokenizer are among the names."""
    if "config.json" not in names:
        raise Invalid(_("%(where)s has no config.json: give a Hugging Face model.") % {"where": where})
    if not names.intersection(WEIGHTS):
        raise Invalid(
            _("%(where)s has no weights in safetensors: save the model with save_pretrained first.") % {"where": where}
        )
    pickled = sorted(name for name in names if PICKLED.fullmatch(name))
    if pickled:
        raise Invalid(
            _("%(where)s has %(name)s beside its safetensors: remove it, as code could run when it is read.")
            % {"where": where, "name": pickled[0]}
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
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
        raise Invalid(_("%(where)s: the architectures of its config.json are not a list of names.") % {"where": where})
    # Models that read images too have a text model inside (Gemma 3); T5 and its like, of this name as well, have not.
    ends = ("LMHeadModel", "ForConditionalGeneration") if "text_config" in config else ("LMHeadModel",)
    if named and not any("CausalLM" in name or name.endswith(ends) for name in named):
        raise Invalid(
            _("%(where)s is a %(given)s: a causal language model is needed.") % {"where": where, "given": named[0]}
        )


def _read_config(folder: Path) -> Any:
    file = folder / "config.json"
    try:
        if file.stat().st_size > LARGEST_CONFIG:
            raise Invalid(_("%(folder)s: its config.json is larger than 1 MB.") % {"folder": folder})
        return json.loads(file.read_text("utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise Invalid(
            _("%(folder)s: its config.json is not JSON (%(error)s).") % {"folder": folder, "error": error}
        ) from error


def fetch_from_hub(hub_id: str, may_fetch: bool = True) -> Path:
    """The model's folder in the hub's cache on this machine, fetched now if need be and allowed. Raises Invalid."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(hub_id, allow_patterns=FETCHED, local_files_only=not may_fetch))
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
    """Return how many tokens a model can read at once, or None where its config.json is not here or does not say."""
    try:
        config = json.loads((Path(folder) / "config.json").read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(config, dict):
        return None
    inner = config.get("text_config")
    # Long factors of rotary positions would depend on the longest text of a batch, so they are not used.
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
