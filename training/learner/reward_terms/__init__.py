"""Reward terms: the reward of a completion is a weighted sum of the terms named in the settings.

Each term is one function of a module in this folder; settings, their checks and `--help` derive from the registry.
This package needs no torch, because web processes check settings with it.

- `@term` registers a function that takes a `TermContext` and the term's settings, and returns a scorer: answers in, one
  number per answer out.
- `@reward_model_term` registers such a term that uses the reward model, which then must be set.
- `@metric` registers a function that takes the metric's settings and returns a function of a text and its references
  (at least one), with values from 0 to 1. Every prompt of a run with a metric needs references.

The parameters of a registered function are the settings of the term: their annotations give type, choices (`Literal`)
and limits (`Annotated[float, {"above": 0}]`), and a parameter without a default is required.
"""

import dataclasses
import importlib
import inspect
import math
import pkgutil
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from training.learner.runtime.jobdir import BadInput
from training.learner.runtime.options import check_options, options_of


class Answer(NamedTuple):
    """A completion to be scored."""

    row: dict[str, Any]  # of prompts.jsonl: the messages, and the references if there are any
    prompt: Sequence[int]  # tokens as the policy read them
    completion: Sequence[int]  # tokens as sampled, with the token at which it stopped
    text: str  # as people read it; terms score only this
    finished: bool  # false: truncated
    # Of a dialogue: all turns from the end of the prompt on, the last one included. `row` has the messages before the
    # last turn, `prompt` their tokens, and `text` is the last turn. The reward model reads the whole dialogue.
    turns: Sequence[dict[str, str]] = ()


@dataclass(frozen=True)
class TermContext:
    """The parts of a run that a term may use."""

    count_tokens: Callable[[str], int]  # of a text, by the policy's tokenizer
    attribute_scorer: Callable[[str], "Scorer"]  # by the reward model's head of an attribute; see the term attribute


Scorer = Callable[[Sequence[Answer]], Sequence[float]]
Metric = Callable[[str, Sequence[str]], float]


@dataclass(frozen=True)
class Term:
    """A registered term or metric."""

    make: Callable[..., Any] | None  # None: the reward model, which needs torch (rewards/reward.py)
    options: Mapping[str, inspect.Parameter]  # its settings
    needs_references: bool = False
    needs_reward_model: bool = False


TERMS: dict[str, Term] = {"reward_model": Term(None, {}, needs_reward_model=True)}
RENAMED_TERMS = {"missing_end": "missing_eos"}  # former name to name


def term(make: Callable[..., Scorer]) -> Callable[..., Scorer]:
    """Register a reward term by its function name. The first parameter is the TermContext."""
    TERMS[make.__name__] = Term(make, dict(list(inspect.signature(make).parameters.items())[1:]))
    return make


def reward_model_term(make: Callable[..., Scorer]) -> Callable[..., Scorer]:
    """Register a reward term, as `term` does, that uses the reward model."""
    TERMS[make.__name__] = dataclasses.replace(TERMS[term(make).__name__], needs_reward_model=True)
    return make


def metric(make: Callable[..., Metric]) -> Callable[..., Metric]:
    """Register a text metric by its function name."""
    TERMS[make.__name__] = Term(make, inspect.signature(make).parameters, needs_references=True)
    return make


def make_metric(name: str, **options: Any) -> Metric:
    """Return the function of a registered metric. Raises KeyError for another name."""
    make = {name: term.make for name, term in TERMS.items() if term.needs_references}[name]
    return typing.cast(Metric, typing.cast(Any, make)(**options))


def terms_with_references(terms: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the names of those terms that compare a text with references."""
    return [term["name"] for term in terms if term["name"] in TERMS and TERMS[term["name"]].needs_references]


def use_reward_model(names: Iterable[str]) -> bool:
    """Return whether a term of these names uses the reward model."""
    return any(name in TERMS and TERMS[name].needs_reward_model for name in names)


def with_current_name(term: Any) -> Any:
    """Return a term of settings under its current name; anything that is not a term is returned as it is."""
    if isinstance(term, dict) and isinstance(term.get("name"), str):
        return {**term, "name": RENAMED_TERMS.get(term["name"], term["name"])}
    return term


def check_terms(terms: Sequence[Any], reward_model: str) -> None:
    """Raise BadInput unless each is a registered term with its own settings and an optional weight.

    `reward_model` must be set if and only if a term uses it.
    """
    if not terms:
        raise BadInput("rewards must contain at least one term")
    for entry in terms:
        _check_term(entry)
    if use_reward_model(entry["name"] for entry in terms) != bool(reward_model):
        raise BadInput("set reward_model when, and only when, rewards has the term reward_model or attribute")


def check_metrics(metrics: Sequence[Any]) -> None:
    """Raise BadInput unless each is a registered text metric with its own settings, named once."""
    for entry in metrics:
        _check_term(entry)
        if entry["name"] not in METRICS or "weight" in entry:
            raise BadInput(f"metrics are text metrics without weights ({', '.join(METRICS)}), not {entry!r}")
    names = [entry["name"] for entry in metrics]
    if len(set(names)) < len(names):
        raise BadInput(f"metrics names one metric twice: {', '.join(names)}")


def _check_term(entry: Any) -> None:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise BadInput(f"a reward term must be an object with a name, not {entry!r}")
    name = entry["name"]
    if name not in TERMS:
        raise BadInput(f"there is no reward term {name!r}; there are {', '.join(sorted(TERMS))}")
    weight = entry.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
        raise BadInput(f"the weight of the reward term {name} must be a number, not {weight!r}")
    check_options(f"the reward term {name}", options_of(entry), TERMS[name].options)


for _module in sorted(module.name for module in pkgutil.iter_modules(__path__)):
    importlib.import_module(f"{__name__}.{_module}")

METRICS = tuple(sorted(name for name, registered in TERMS.items() if registered.needs_references))
