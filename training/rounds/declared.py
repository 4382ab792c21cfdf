"""Settings as they are declared, for people: those that a round by a recipe uses, with label, sentence and default.

The one declaration of a setting is its field in the dataclass of its section: `RoundSettings`, or a program's settings
in `learner.runtime.config`. Checks, `--help`, the form of a new round, the API and `docs/settings.md` derive from it.
"""

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from training.learner.runtime.config import CONFIGS, Settings
from training.learner.runtime.fields import KIND_NAMES
from training.rounds import settings as round_settings
from training.rounds.recipes.description import Counts, Recipe, Sections, Text
from training.rounds.recipes.parts import sampling_only

MANY = Counts(rankings=10**9, demonstrations=10**9)
COMMON = "common"
SHARED = tuple(field.name for field in dataclasses.fields(Settings) if field.metadata["label"])  # by all programs
# Settings of the section "round" that a round uses which only writes completions.
OF_SAMPLING = ("prompts", "comparison_size", "spare_completions", "sources", "extra_ranking_share", "seed", "processes")
ROUND_LABEL, COMMON_LABEL = gettext_lazy("The round"), gettext_lazy("All programs")


@dataclass(frozen=True)
class Declared:
    """A setting of a section, as it is declared. `label` and `help` are in the language of the reader."""

    section: str
    name: str
    kind: type
    metadata: Mapping[str, Any]

    @property
    def key(self) -> str:
        return f"{self.section}-{self.name}"

    @property
    def label(self) -> str:
        return _(self.metadata["label"])

    @property
    def help(self) -> str:
        """Return the sentence, and the meanings and names that follow from a registry."""
        sentences = [_(self.metadata["help"])]
        if meanings := self.metadata["meanings"]:
            sentences += ["; ".join(f"{choice}: {_(meaning)}" for choice, meaning in meanings.items()) + "."]
        if names := self.metadata["names"]:
            sentences += [_("Names: %(names)s.") % {"names": ", ".join(names)}]
        return " ".join(sentences)

    @property
    def kind_name(self) -> str:
        return KIND_NAMES[self.kind]

    @property
    def limits(self) -> Mapping[str, Any]:
        return self.metadata["limits"]

    @property
    def choices(self) -> tuple[str, ...]:
        return tuple(self.limits.get("choices", ()))


@dataclass(frozen=True)
class Group:
    """The settings of a section that a round uses."""

    section: str
    label: Text
    settings: list[Declared]


def declared_in(section: str) -> list[Declared]:
    """Return all settings of a section that a person may set; "common" has those that all programs share."""
    kind: Any = {"round": round_settings.RoundSettings, COMMON: Settings}.get(section) or CONFIGS[section]
    kinds = typing.get_type_hints(kind)
    return [
        Declared(section, field.name, typing.get_origin(kinds[field.name]) or kinds[field.name], field.metadata)
        for field in dataclasses.fields(kind)
        if field.metadata["label"]
    ]


def groups_of(recipe: Recipe, settings: Sections, only_samples: bool = False) -> list[Group]:
    """Return the settings that a round uses, by section; "common" has those on which all its programs agree.

    settings: complete ones of a round by the recipe. only_samples: it only writes completions, whatever its recipe.
    """
    jobs = sampling_only(settings) if only_samples else recipe.jobs(settings, MANY)
    stages = {job.program: job.stage.label for job in reversed(jobs)}
    programs = [program for program in recipe.programs if program in stages]
    common = [name for name in SHARED if len({repr(settings[program][name]) for program in programs}) == 1]
    groups = [Group("round", ROUND_LABEL, [one for one in declared_in("round") if _is_for(one, recipe, only_samples)])]
    for program in programs:
        filled = set.intersection(*(set(job.settings) for job in jobs if job.program == program))
        unused = {*filled, *common, *_refused(program, recipe)}
        label = gettext_lazy("Completions") if recipe.names_checkpoints else stages[program]
        groups.append(Group(program, label, [one for one in declared_in(program) if one.name not in unused]))
    playing = round_settings.playing_section(recipe)
    if only_samples and playing not in programs and playing:
        groups.append(
            Group(playing, stages["sample"], [one for one in declared_in(playing) if one.name == "environment"])
        )
    groups.append(Group(COMMON, COMMON_LABEL, [one for one in declared_in(COMMON) if one.name in common]))
    return [group for group in groups if group.settings]


def all_of(groups: list[Group]) -> Iterator[Declared]:
    for group in groups:
        yield from group.settings


def _is_for(setting: Declared, recipe: Recipe, only_samples: bool) -> bool:
    """Return whether rounds by the recipe use a setting of the section "round". The recipe itself is chosen before."""
    if setting.name == "recipe":
        return False
    if only_samples:
        return setting.name in OF_SAMPLING
    traits = {
        *recipe.programs,
        *(["learns"] if recipe.learns else []),
        *(["trial"] if recipe.names_checkpoints else []),
    }
    only_for = setting.metadata["only_for"]
    return not only_for or not traits.isdisjoint(only_for)


def _refused(program: str, recipe: Recipe) -> set[str]:
    """Return the settings of a program that a round by the recipe refuses or fills in, see `rounds.settings`."""
    refused = set()
    if program == "sample" and recipe.rewards_section:
        refused.add("rewards")
    if program in round_settings.PLAYING and program != round_settings.playing_section(recipe):
        refused.add("environment")
    return refused
