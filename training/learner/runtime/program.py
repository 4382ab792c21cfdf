"""Entry point of the programs: exit codes, error messages and `--help`. Standard library only."""

import dataclasses
import inspect
import json
import os
import sys
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from training.learner.runtime import trackers
from training.learner.runtime.config import Settings
from training.learner.runtime.fields import KIND_NAMES, default_of
from training.learner.runtime.jobdir import (
    EXIT_BAD_INPUT,
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_STOPPED,
    STOPPED_MARKER,
    BadInput,
    Stopped,
    TrainingFailed,
)

LIMIT_TEXTS = {"low": "at least {}", "above": "above {}", "high": "at most {}", "below": "below {}"}


def run_program(main: Callable[[Path], None], settings: type[Settings]) -> NoReturn:
    """Run a program on the job directory named on the command line and exit with the code of the protocol."""
    if sys.argv[1:] in (["-h"], ["--help"]):
        print(help_text(inspect.getdoc(inspect.getmodule(main)) or "", settings))
        sys.exit(EXIT_DONE)
    if len(sys.argv) != 2:
        _print_error("expected one argument: the job directory, or --help")
        sys.exit(EXIT_BAD_INPUT)
    marker = Path(sys.argv[1]) / STOPPED_MARKER
    is_first = os.environ.get("RANK", "0") == "0"
    if is_first:
        marker.unlink(missing_ok=True)
    try:
        main(Path(sys.argv[1]))
    except BadInput as error:
        _print_error(str(error))
        sys.exit(EXIT_BAD_INPUT)
    except TrainingFailed as error:
        _print_error(str(error))
        sys.exit(EXIT_FAILED)
    except Stopped:
        if is_first:
            marker.touch()
        print("stopped: the state is saved; run the program again to continue", file=sys.stderr, flush=True)
        sys.exit(EXIT_STOPPED)
    finally:
        trackers.close_all(is_finished=False)  # a program with its result has closed them
    sys.exit(EXIT_DONE)


def _print_error(reason: str) -> None:
    sentence = " ".join(reason.split())
    print(f"error: {sentence}", file=sys.stderr, flush=True)


def help_text(about: str, settings: type[Settings]) -> str:
    """Return the program's description and its settings in config.json: default, limits, meaning."""
    kinds = typing.get_type_hints(settings)
    lines = [about, "", "Settings in config.json, with their defaults:", ""]
    for field in dataclasses.fields(settings):
        kind = typing.get_origin(kinds[field.name]) or kinds[field.name]
        limits = limits_in_words(KIND_NAMES[kind], field.metadata["limits"])
        lines += [f"  {json.dumps(field.name)}: {json.dumps(default_of(field))}", f"      {limits}"]
        lines += [f"      {sentence}" for sentence in sentences_of(field)]
    return "\n".join(lines)


def sentences_of(field: "dataclasses.Field[Any]") -> list[str]:
    """Return the help of a setting, and the names or choices that follow from a registry."""
    meanings = "; ".join(f"{choice}: {meaning}" for choice, meaning in field.metadata["meanings"].items())
    names = f"Names: {', '.join(field.metadata['names'])}." if field.metadata["names"] else ""
    return [sentence for sentence in (field.metadata["help"], f"{meanings}." if meanings else "", names) if sentence]


def limits_in_words(kind: str, limits: Mapping[str, Any]) -> str:
    if "choices" in limits:
        return "one of " + ", ".join(json.dumps(choice) for choice in limits["choices"])
    return ", ".join([kind, *(LIMIT_TEXTS[name].format(limit) for name, limit in limits.items())])
