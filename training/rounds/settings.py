"""Settings of a round: its own, and those of the programs that its recipe uses.

Settings come in sections: `round` (below), one for every program of the recipe (the dataclasses of
`learner.runtime.config`), and `common`, which applies to all these programs. The settings of a start override those of
the project's loop, which override the defaults. A round stores the complete result, so that it can be repeated.
"""

# ruff: noqa: RUF009 (setting() only makes a dataclasses.field)

import dataclasses
import json
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from django.utils.translation import gettext as _

from feedback.errors import Invalid
from training.learner.environments import SINGLE_TURN
from training.learner.runtime.config import CONFIGS, Settings, current_names
from training.learner.runtime.fields import as_kind, check_fields, default_of, setting
from training.learner.runtime.jobdir import BadInput
from training.rounds.recipes import DEFAULT, RECIPES, recipe_of
from training.rounds.recipes.description import NONE, Counts, Recipe, Sections
from training.rounds.sources import read_sources

# Former name to name, of settings of the section "round". The former names are accepted until version 0.3.
RENAMED = {"second_opinions": "extra_ranking_share"}
# Set by `run_round.jobs`: the models follow from the recipe, never from the person who starts the round.
MODELS = ("model", "base_model", "reference_model", "reward_model", "critic_model", "root_model", "last_reward_model")
FILLED_IN = (*MODELS, "keep_critic")  # the last one follows from critic_start
NOTHING_COUNTED = Counts()
# Settings of the environment dialogue in a round, besides those of every user.
USER_SETTINGS = {"script": {"lines"}, "checkpoint": {"model", "instruction"}, "endpoint": {"instruction"}}
SETTINGS_OF_EVERY_USER = {"name", "user", "turns", "end_word"}
PLAYING = ("ppo", "evaluate", "sample")  # sections with an environment; a round plays in the first one that it has
MAX_LINE_LENGTH = 10_000  # characters of a simulated user's line


@dataclass(frozen=True)
class RoundSettings:
    """Settings of the round itself, outside its programs."""

    recipe: str = setting(
        DEFAULT,
        choices=tuple(RECIPES),
        label="Recipe",
        help="Recipe: the programs that the round runs, and the data that they learn from.",
    )
    prompts: int = setting(
        200,
        low=1,
        only_for=("learns",),
        label="Prompts to answer",
        help="Maximum prompts that the new checkpoint answers, to be ranked next.",
    )
    comparison_size: int = setting(
        4, low=2, high=9, only_for=("learns",), label="Completions of a comparison", help="Completions of a comparison."
    )
    spare_completions: int = setting(
        0,
        low=0,
        high=9,
        only_for=("learns",),
        label="Spare completions",
        help="Further completions of each prompt, which replace near-duplicates of others in its comparison.",
    )
    sources: dict[str, Any] = setting(
        {},
        only_for=("learns",),
        label="Mixture of sources",
        help="Sources whose completions are compared, with their shares, such as "
        '{"new": 2, "served": 1, "checkpoint:NAME": 1, "endpoint:NAME": {"count": 1, "temperature": 0.7}}. '
        "Empty: the new checkpoint alone.",
    )
    extra_ranking_share: float = setting(
        0.0,
        low=0,
        high=1,
        only_for=("learns",),
        label="Extra rankings",
        help="Share of new comparisons with one extra ranking.",
    )
    shown_prompts: int = setting(
        24,
        low=0,
        only_for=("learns",),
        label="Prompts shown side by side",
        help="Prompts that the base answers too, for the side-by-side page.",
    )
    policy_prompts: int = setting(
        10_000,
        low=1,
        only_for=("ppo", "best_of_n"),
        label="Training prompts of the policy",
        help="Maximum training prompts of the policy's program.",
    )
    evaluation_prompts: int = setting(
        500,
        low=1,
        only_for=("evaluate",),
        label="Held-out prompts",
        help="Maximum held-out prompts that an evaluation answers.",
    )
    guard_prompts: int = setting(
        200,
        low=0,
        only_for=("guards",),
        label="Held-out prompts of the guards",
        help="Maximum held-out prompts on which guards compare the new checkpoint with its base, and on which the KL "
        "from base and root is measured. 0: neither, and no guard texts.",
    )
    checkpoints: list[str] = setting(
        [],
        only_for=("trial",),
        label="Checkpoints",
        help="Names of the two to four checkpoints of a trial. The first is the one to beat, as a rule the served one.",
    )
    trial_prompts: int = setting(
        400,
        low=1,
        only_for=("trial",),
        label="Prompts of the trial",
        help="Maximum prompts that the checkpoints of a trial answer, held-out prompts first.",
    )
    trial_share: int = setting(
        25,
        low=1,
        high=100,
        only_for=("trial",),
        label="Share of the queue, in percent",
        help="Comparisons of the trial, in percent of those that annotators rank.",
    )
    trial_may_train: bool = setting(
        True,
        only_for=("trial",),
        label="Its rankings may train",
        help="Whether rankings of a trial train later rounds. Those of held-out prompts never do.",
    )
    trial_worthwhile_share: float = setting(
        0.5,
        low=0.5,
        below=1,
        only_for=("trial",),
        label="Worthwhile win share",
        help="A trial is futile once the candidate surely wins fewer of the decisive votes than this. 0.5: never.",
    )
    sft_first: str = setting(
        "auto",
        choices=("auto", "always", "never"),
        only_for=("ppo", "best_of_n", "dpo", "kto"),
        label="Imitate demonstrations first",
        help="Whether the round first imitates the demonstrations. auto: with at least min_demonstrations.",
    )
    min_demonstrations: int = setting(
        50,
        low=1,
        only_for=("ppo", "best_of_n", "dpo", "kto"),
        label="Demonstrations needed",
        help="With sft_first auto: minimum of demonstrations to imitate them.",
    )
    reference: str = setting(
        "base",
        choices=("base", "root"),
        only_for=("ppo", "best_of_n", "dpo"),
        label="Stay close to",
        help="Model that the policy stays close to. base: the model that it starts from (the base, after imitation if "
        "any). root: the imported ancestor of the base.",
    )
    reward_start: str = setting(
        "base",
        choices=("base", "last"),
        only_for=("reward",),
        label="The reward model starts",
        help="Where the training of the reward model starts. base: at the model that the policy starts from. last: "
        "at the reward model of the round that made the base, see continued_epochs and kept_share of reward.",
    )
    full_reward_every: int = setting(
        3,
        low=0,
        only_for=("reward",),
        label="Rounds between full trainings",
        help="With reward_start last: rounds from one training of the reward model that starts from the base to the "
        "next. 0: only the first.",
    )
    critic_start: str = setting(
        "new",
        choices=("new", "last"),
        only_for=("ppo",),
        label="The critic starts",
        help="Where the critic of ppo starts. new: a separate one at the round's reward model (without one, its values "
        "are 0), a shared one at 0. last: at the critic of the round that made the base, if it kept one of this kind.",
    )
    anchors: bool = setting(
        False,
        only_for=("reward",),
        label="Learn from All bad and All good",
        help="Whether the reward model learns from All bad and All good, as pairs against an anchor.",
    )
    min_rated_completions: int = setting(
        100,
        low=1,
        only_for=("reward",),
        label="Rated completions needed",
        help="Minimum of rated completions of training prompts for the reward model to learn an attribute.",
    )
    weights: str = setting(
        "equal",
        choices=("equal", "reliability"),
        only_for=("reward", "dpo", "kto"),
        label="Weight of each ranking",
        help="Weight of each ranking in training.",
    )
    seed: int = setting(0, low=0, only_for=("learns", "trial"), label="Seed", help="Seed of the choice of prompts.")
    processes: int = setting(
        1, low=1, high=16, label="Processes", help="Processes of each program; above 1 by accelerate launch."
    )

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Read and check JSON values. Raise BadInput for an unknown name or a bad value."""
        kinds = typing.get_type_hints(cls)
        if unknown := sorted(set(values) - set(kinds)):
            raise BadInput(f"unknown setting {unknown[0]!r} for the round")
        return cls(**{name: as_kind(name, value, kinds[name]) for name, value in values.items()})

    def __post_init__(self) -> None:
        check_fields(self)
        if not all(isinstance(name, str) for name in self.checkpoints):
            raise BadInput(f"checkpoints must be names, not {self.checkpoints!r}")
        read_sources(self.sources)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def choices_of(section: str, name: str) -> tuple[str, ...]:
    """Return the values that a setting of a section may have; () if it is no choice."""
    kind: Any = RoundSettings if section == "round" else CONFIGS.get(section, Settings)
    limits = kind.__dataclass_fields__[name].metadata.get("limits", {})
    return tuple(limits.get("choices", ()))


def resolve(
    *overrides: Sections, seed: int, positions: int | None = None, counts: Counts = NOTHING_COUNTED
) -> Sections:
    """Return the complete settings of a round; later `overrides` win. Raise Invalid if they cannot be used.

    `seed` is the default seed of the round and of each program. Default lengths are shortened to fit into the base's
    `positions` (its context length in tokens), if that is known. Lengths that a person chose are not changed. A later
    override may choose another recipe: sections that it does not use are then left out, except for the environment of
    their dialogues.
    """
    recipe = recipe_in(*overrides)
    try:
        own_settings = RoundSettings.from_json({"seed": seed, **merged("round", overrides)})
        unchecked: Sections = {"round": own_settings.to_json()}
        for program in recipe.programs:
            chosen = merged(program, overrides)
            if program == playing_section(recipe):
                chosen = environment_in(*overrides) | chosen
            chosen = dict(recipe.defaults.get(program, {})) | chosen
            if program == "sample":
                wanted = own_settings.comparison_size + own_settings.spare_completions
                chosen = {"completions_per_prompt": wanted} | chosen
            unchecked[program] = {**defaults_of(program), "seed": seed, **default_lengths(chosen, positions), **chosen}
        recipe.check(unchecked)
        models = {job.program: job.models for job in reversed(recipe.jobs(unchecked, counts))}
        checked = {
            program: check_program(program, unchecked[program], models.get(program, {})) for program in recipe.programs
        }
    except BadInput as error:
        raise Invalid(_("The round's settings cannot be used: %(error)s.") % {"error": error}) from error
    return {"round": own_settings.to_json(), **checked}


def playing_section(recipe: Recipe) -> str:
    """Return the section whose program plays the dialogues of a round; "" if its policy answers once."""
    if "best_of_n" in recipe.programs:
        return ""
    return next(name for name in PLAYING if name in recipe.programs)


def environment_in(*overrides: Sections) -> dict[str, Any]:
    """Return the last environment in these sections, as a setting; {} if there is none.

    A project of dialogues has it in the section of its recipe. Rounds by another recipe play the same dialogues.
    """
    playing = [values for sections in overrides for name, values in sections.items() if name in PLAYING]
    chosen = [values["environment"] for values in playing if "environment" in values]
    return {"environment": chosen[-1]} if chosen else {}


def recipe_in(*overrides: Any) -> Recipe:
    """Return the recipe that the last of these sections chooses. Raise Invalid as `check_sections` does."""
    recipe = RECIPES[DEFAULT]
    for sections in overrides:
        recipe = check_sections(sections, recipe)
    return recipe


def check_defaults(settings: Any) -> None:
    """Raise Invalid unless `settings` can be those of a project's rounds."""
    resolve(settings, seed=0)
    recipe = recipe_in(settings)
    if not recipe.learns:
        raise Invalid(
            _('The recipe "%(recipe)s" trains nothing: choose it for one round, not for all rounds of the project.')
            % {"recipe": recipe.name}
        )


def completed(settings: Sections) -> Sections:
    """Return stored settings with the defaults of settings that were added since."""
    recipe = recipe_of(settings)
    programs = {
        program: defaults_of(program) | dict(recipe.defaults.get(program, {})) | settings.get(program, {})
        for program in recipe.programs
    }
    return {"round": RoundSettings().to_json() | settings.get("round", {}), **programs}


def defaults_of(program: str) -> dict[str, Any]:
    """Return the default of every setting of a program, without those that the round fills in."""
    fields = dataclasses.fields(CONFIGS[program])
    return {field.name: default_of(field) for field in fields if field.name not in FILLED_IN}


def default_lengths(chosen: dict[str, Any], positions: int | None) -> dict[str, int]:
    """Return default token limits of prompt and completion that fit into `positions` together with the chosen ones."""
    if positions is None:
        return {}
    prompt = _length(chosen, "max_prompt_tokens")
    # By default a third of the context is left to the completion.
    available = positions - prompt if prompt else positions // 3
    completion = _length(chosen, "max_completion_tokens") or min(Settings.max_completion_tokens, available)
    return {
        "max_prompt_tokens": max(1, min(Settings.max_prompt_tokens, positions - completion)),
        "max_completion_tokens": max(1, completion),
    }


def _length(chosen: dict[str, Any], name: str) -> int | None:
    """Return a chosen length; None if there is none or it is no integer, which the program's check refuses."""
    value = chosen.get(name)
    return value if isinstance(value, int) else None


def merged(section: str, overrides: tuple[Sections, ...]) -> dict[str, Any]:
    """Merge the values of one section; later overrides win, and a program's values win over common ones."""
    values: dict[str, Any] = {}
    for sections in overrides:
        if section != "round":
            values |= current_names(sections.get("common", {}))
        values |= with_current_names(section, sections.get(section, {}))
    return values


def with_current_names(section: str, values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a section under their current names. Raise BadInput if both names of one are present."""
    if section != "round":
        return current_names(values)
    for former, name in RENAMED.items():
        if former in values and name in values:
            raise BadInput(f"{former} is the former name of {name}: set only {name}")
    return {RENAMED.get(name, name): value for name, value in values.items()}


def changed(sections: Sections, changes: Sections) -> Sections:
    """Return the sections with these changes applied."""
    names = [*sections, *(name for name in changes if name not in sections)]
    return {name: sections.get(name, {}) | changes.get(name, {}) for name in names}


def check_sections(sections: Any, recipe: Recipe) -> Recipe:
    """Return the recipe that `sections` choose, else `recipe`.

    Raise Invalid unless `sections` is an object of sections of that recipe, each an object, that set nothing that the
    round fills in.
    """
    if not isinstance(sections, dict) or not all(isinstance(values, dict) for values in sections.values()):
        raise Invalid(
            _("Settings must be an object of sections (%(known)s), each an object of settings.")
            % {"known": ", ".join(sections_of(recipe))}
        )
    if "\\u0000" in json.dumps(sections):
        raise Invalid(_("Settings contain a NUL character, which the database cannot store."))
    try:
        json.dumps(sections, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise Invalid(_("Settings contain half of a surrogate pair, so they are not valid Unicode.")) from None
    recipe = chosen_recipe(sections, recipe)
    for section, values in sections.items():
        if section not in sections_of(recipe):
            raise Invalid(
                _('The recipe "%(recipe)s" has no section "%(section)s" of settings: use %(known)s.')
                % {"recipe": recipe.name, "section": section, "known": ", ".join(sections_of(recipe))}
            )
        if section == "sample" and values.get("rewards") and recipe.rewards_section:
            raise Invalid(
                _('A round scores its samples by the rewards of its policy: set "rewards" in section "%(section)s".')
                % {"section": recipe.rewards_section}
            )
        if section == "sample" and values.get("environment", SINGLE_TURN) != SINGLE_TURN:
            check_samples_may_be_dialogues(recipe)
        if "keep_critic" in values:
            raise Invalid(_('The round sets "keep_critic" itself: set "critic_start" in section "round".'))
        if models := [name for name in MODELS if name in values]:
            raise Invalid(
                _('The round sets "%(setting)s" itself: serve another checkpoint to start from that one.')
                % {"setting": models[0]}
            )
    return recipe


def check_samples_may_be_dialogues(recipe: Recipe) -> None:
    """Raise Invalid if the policy learns from samples of its own: then the samples to rank are played as those are."""
    if "ppo" in recipe.programs:
        raise Invalid(_('Samples are dialogues as the policy plays them: set "environment" in section "ppo".'))
    if "best_of_n" in recipe.programs:
        raise Invalid(
            _('The policy of the recipe "%(recipe)s" answers once, so it cannot sample dialogues: use ppo.')
            % {"recipe": recipe.name}
        )


def chosen_recipe(sections: Sections, recipe: Recipe) -> Recipe:
    """Return the recipe that the section "round" names, else `recipe`. Raise Invalid for an unknown name."""
    name = sections.get("round", {}).get("recipe", recipe.name)
    if not isinstance(name, str) or name not in RECIPES:
        raise Invalid(_('There is no recipe "%(name)s": use %(known)s.') % {"name": name, "known": ", ".join(RECIPES)})
    return RECIPES[name]


def sections_of(recipe: Recipe) -> tuple[str, ...]:
    """Return the names of the sections of settings that a recipe accepts."""
    return ("round", "common", *recipe.programs)


def check_environment_of_round(environment: Mapping[str, Any]) -> None:
    """Raise BadInput unless the environment is single_turn, or a dialogue with settings that a round may have.

    A class would run code on this machine, an address would make it send requests anywhere, and a folder would load any
    model of it: a manager in a browser must not do that. See `rounds.simulated_user`.
    """
    if environment["name"] == SINGLE_TURN["name"]:
        return
    if environment["name"] != "dialogue":
        raise BadInput(f"the environment {environment['name']} can only be used in programs run by hand")
    user = environment.get("user", "script")
    allowed = USER_SETTINGS[user] | SETTINGS_OF_EVERY_USER
    if other := sorted(set(environment) - allowed):
        raise BadInput(
            f'the environment dialogue of a round with the user "{user}" has no setting {other[0]!r}: '
            f"use {', '.join(sorted(allowed))}; other settings are for programs run by hand"
        )
    if user == "checkpoint" and not environment.get("model", "").strip():
        raise BadInput('the user "checkpoint" needs the setting model, the name of a checkpoint of the project')
    if user != "script":
        return
    lines = environment.get("lines", [])
    if not lines or not all(is_line(line) for line in lines):
        raise BadInput(
            f"lines of the environment dialogue must be texts of at most {MAX_LINE_LENGTH} characters, one at least"
        )


def is_line(line: Any) -> bool:
    """Return whether the value can be a line of a simulated user."""
    return isinstance(line, str) and bool(line.strip()) and len(line) <= MAX_LINE_LENGTH


def check_program(program: str, values: dict[str, Any], models: Mapping[str, str]) -> dict[str, Any]:
    """Return a program's settings, checked as it checks them, without those that the round fills in. Raise BadInput."""
    filled = {"model": "model"} | {name: "" if source == NONE else "model" for name, source in models.items()}
    config = CONFIGS[program].from_json(values | filled).to_json()
    if any(term["name"] == "python" for term in config.get("rewards", [])):
        # This term imports and calls any function: a manager in a browser must not run code on this machine.
        raise BadInput("the reward term python can only be used in programs run by hand")
    check_environment_of_round(config.get("environment", SINGLE_TURN))
    return {name: value for name, value in config.items() if name not in FILLED_IN}
