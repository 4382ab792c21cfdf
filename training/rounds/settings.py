"""The settings of a round: its own, and those of the three programs that it runs.

They are given in sections: `round` (below), `reward`, `ppo` and `sample` (the dataclasses of `learner.config`), and
`common`, which holds for all three programs. What a round is started with comes before what the project's loop says,
which comes before our defaults. The round keeps the outcome whole, so that it can be read and repeated later.
"""

import dataclasses
import json
import typing
from dataclasses import dataclass
from typing import Any, Self

from django.utils.translation import gettext as _

from feedback.errors import Invalid
from training.learner.reward_terms import terms_with_references
from training.learner.runtime.config import CONFIGS, Settings, current_names
from training.learner.runtime.fields import as_kind, check_fields, setting
from training.learner.runtime.jobdir import BadInput

Sections = dict[str, dict[str, Any]]

PROGRAMS = ("reward", "ppo", "sample")
SECTIONS = ("round", "common", *PROGRAMS)
# What the launcher fills in: the models come from the round itself, never from whoever starts it.
FILLED_IN = ("model", "reference_model", "reward_model", "critic_model")


@dataclass(frozen=True)
class RoundSettings:
    """What a round does around its programs."""

    prompts: int = setting(200, low=1, help="Maximum prompts that the new checkpoint answers, to be ranked next.")
    comparison_size: int = setting(4, low=2, high=9, help="Completions of a comparison.")
    second_opinions: float = setting(0.0, low=0, high=1, help="Share of new comparisons that one annotator more ranks.")
    shown_prompts: int = setting(24, low=0, help="Prompts that the base answers too, to be read side by side.")
    policy_prompts: int = setting(10_000, low=1, help="Maximum prompts that PPO samples from.")
    weights: str = setting("equal", choices=("equal", "reliability"), help="Weight of each ranking in training.")
    seed: int = setting(0, low=0, help="Seed of the choice of prompts.")
    processes: int = setting(1, low=1, high=16, help="Processes of each program; above 1 by accelerate launch.")

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Raises BadInput with one sentence."""
        kinds = typing.get_type_hints(cls)
        if unknown := sorted(set(values) - set(kinds)):
            raise BadInput(f"unknown setting {unknown[0]!r} for the round")
        return cls(**{name: as_kind(name, value, kinds[name]) for name, value in values.items()})

    def __post_init__(self) -> None:
        check_fields(self)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def resolve(*given: Sections, seed: int, positions: int | None = None) -> Sections:
    """Return the whole settings of a round from sections of rising precedence. Raises Invalid with a sentence.

    `seed` is the round's and each program's unless a section says otherwise. Default lengths are shortened to what
    fits into the base's `positions` (tokens), if that is known; lengths that somebody chose are left alone.
    """
    for sections in given:
        check_sections(sections)
    try:
        own = RoundSettings.from_json({"seed": seed, **merged("round", given)})
        defaults = {"sample": {"completions_per_prompt": own.comparison_size}}
        programs = {}
        for program in PROGRAMS:
            chosen = defaults.get(program, {}) | merged(program, given)
            programs[program] = check_program(program, {"seed": seed, **default_lengths(chosen, positions), **chosen})
    except BadInput as error:
        raise Invalid(_("The round's settings cannot be used: %(error)s.") % {"error": error}) from error
    return {"round": own.to_json(), **programs}


def default_lengths(chosen: dict[str, Any], positions: int | None) -> dict[str, int]:
    """Return default token limits of prompt and completion that fit into so many positions, beside what is chosen."""
    if positions is None:
        return {}
    prompt = _length(chosen, "max_prompt_tokens")
    room = positions - prompt if prompt else positions // 3  # the defaults give a third of the room to the completion
    completion = _length(chosen, "max_completion_tokens") or min(Settings.max_completion_tokens, room)
    return {
        "max_prompt_tokens": max(1, min(Settings.max_prompt_tokens, positions - completion)),
        "max_completion_tokens": max(1, completion),
    }


def _length(chosen: dict[str, Any], name: str) -> int | None:
    """Return a chosen length; None where none is, or where the program's own check will refuse it."""
    value = chosen.get(name)
    return value if isinstance(value, int) else None


def merged(section: str, given: tuple[Sections, ...]) -> dict[str, Any]:
    """One section's values over all of `given`, later ones first; a program's come before the common ones."""
    values: dict[str, Any] = {}
    for sections in given:
        if section in PROGRAMS:
            values |= current_names(sections.get("common", {}))
        values |= current_names(sections.get(section, {}))
    return values


def changed(sections: Sections, changes: Sections) -> Sections:
    """Return the sections with some settings changed."""
    names = [*sections, *(name for name in changes if name not in sections)]
    return {name: sections.get(name, {}) | changes.get(name, {}) for name in names}


def check_sections(sections: Any) -> None:
    """Raises Invalid unless it is an object of known sections, each an object, that name no model."""
    if not isinstance(sections, dict) or not all(isinstance(values, dict) for values in sections.values()):
        raise Invalid(
            _("Settings are an object of sections (%(known)s), each an object of settings.")
            % {"known": ", ".join(SECTIONS)}
        )
    if "\\u0000" in json.dumps(sections):
        raise Invalid(_("Settings hold a NUL character, which the database cannot keep."))
    for section, values in sections.items():
        if section not in SECTIONS:
            raise Invalid(
                _("There is no section «%(section)s» of settings: use %(known)s.")
                % {"section": section, "known": ", ".join(SECTIONS)}
            )
        if section == "sample" and values.get("rewards"):
            raise Invalid(
                _('A round scores its samples by the rewards it learned from: set "rewards" in the section "ppo".')
            )
        if named := [name for name in FILLED_IN if name in values]:
            raise Invalid(
                _("The round itself fills in «%(given)s»: serve another checkpoint to start from it.")
                % {"given": named[0]}
            )


def check_program(program: str, values: dict[str, Any]) -> dict[str, Any]:
    """All settings of a program but its models, checked as the program itself will. Raises BadInput."""
    config = CONFIGS[program].from_json(values | models_of(program, values, "model", "reward model"))
    if program == "ppo" and any(term["name"] == "python" for term in config.to_json()["rewards"]):
        # It imports and calls whatever it names: for people with a shell here, not for a manager in a browser.
        raise BadInput("the reward term python is for programs run by hand")
    return {name: value for name, value in config.to_json().items() if name not in FILLED_IN}


def models_of(program: str, values: dict[str, Any], model: str, reward_model: str) -> dict[str, str]:
    """The settings that name models: what is trained or sampled, and what scores it where the program has that."""
    if program == "reward":
        return {"model": model}
    if program == "ppo" and not uses_reward_model(values):
        reward_model = ""
    return {"model": model, "reward_model": reward_model}


def uses_reward_model(ppo: dict[str, Any]) -> bool:
    """Whether PPO's reward holds what people prefer (the default), or other terms alone."""
    return "reward_model" in reward_terms(ppo)


def comparing_terms(ppo: dict[str, Any]) -> list[str]:
    """Return the names of PPO's reward terms that compare with reference answers."""
    return terms_with_references(ppo.get("rewards", []))


def reward_terms(ppo: dict[str, Any]) -> list[str]:
    """Return the names of PPO's reward terms."""
    terms = ppo.get("rewards", [{"name": "reward_model"}])
    if not isinstance(terms, list):
        return ["reward_model"]  # which the program's own check refuses, with a better sentence
    return [str(term.get("name")) for term in terms if isinstance(term, dict)]
