"""Forms of the console. The round form has the most important settings; the API accepts all of them."""

from collections.abc import Sequence
from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from training.learner.reward_terms import TERMS
from training.models import LoopSettings
from training.rounds.recipes import RECIPES, recipe_of
from training.rounds.recipes.description import RANKINGS, Counts, FormField, Recipe, Sections, Text
from training.rounds.recipes.parts import GUARD_FIELD, environment_field
from training.rounds.settings import choices_of
from training.web import dialogue_fields

# Fields of the completions to rank next, after those of the recipe.
SAMPLE_FIELDS = (
    FormField(
        "round", "prompts", _("Prompts to answer"), _("Prompts that the new checkpoint answers, to be ranked next.")
    ),
    FormField("sample", "completions_per_prompt", _("Completions per prompt"), _("A comparison has at most nine.")),
    FormField(
        "sample",
        "temperature",
        _("Temperature"),
        _("Temperature of the completions to rank next. 0 always takes the most probable token."),
    ),
)
# Fields of every round.
COMMON_FIELDS = (
    FormField("common", "max_completion_tokens", _("Maximum completion length"), _("In tokens.")),
    FormField("round", "processes", _("Processes"), _("One per GPU; 1 without a GPU.")),
)


KEPT_TERMS = "kept"  # reward terms that the form does not offer


class RoundForm(forms.Form):
    """Form of a new round's settings. `overrides` returns the recipe and the changed ones.

    `again` is the number of an earlier round whose settings the new one has, except for the changes.
    """

    again = forms.IntegerField(required=False, widget=forms.HiddenInput)

    def __init__(
        self,
        data: Any,
        settings: Sections,
        only_samples: bool = False,
        again: int | None = None,
        users: Sequence[str] = (),
        checkpoints: Sequence[str] = (),
    ) -> None:
        """Build the fields. `settings` are complete sections, as `round_settings.resolve` returns them.

        only_samples: the round only writes completions to rank, whatever its recipe. users: the choices of a simulated
        user besides lines (`dialogue_fields`). checkpoints: names to choose from, the served one first.
        """
        super().__init__(data, initial={"again": again})
        self.only_samples = only_samples
        self.settings = settings
        self.recipe = recipe_of(settings)
        # The reward terms that the policy learns from. Without a section of their own they only score the samples.
        self.terms = self.recipe.reward_terms(settings) if self.recipe.rewards_section else []
        jobs = self.recipe.jobs(settings, Counts())
        self.learns_from_rankings = any(RANKINGS in job.inputs.values() for job in jobs)
        for field in _fields(self.recipe, only_samples):
            section, name, label, text = field
            default = settings[self.recipe.programs[-1] if section == "common" else section][name]
            if name == "environment":
                for key, made in dialogue_fields.fields_of(field, default, users).items():
                    self.fields[f"{section}-{key}"] = made
                continue
            if name == "checkpoints":
                self.fields[f"{section}-{name}"] = _checkpoints_field(label, text, default, checkpoints)
                continue
            if isinstance(default, list):
                self.fields[f"{section}-{name}"] = _metric_field(label, text, default)
                continue
            self.fields[f"{section}-{name}"] = field_of(default, choices_of(section, name), label, text)

    def clean(self) -> dict[str, Any]:
        """Refuse settings of a simulated user that the round would not use."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        suffix = f"-{dialogue_fields.USER}"
        for section in [key.removesuffix(suffix) for key in self.fields if key.endswith(suffix)]:
            unused = dialogue_fields.unused_of(cleaned, section, self.changed_data)
            for name, sentence in unused.items():
                self.add_error(f"{section}-{name}", sentence)
        return cleaned

    @property
    def overrides(self) -> Sections:
        """Return the recipe and the changed settings by section."""
        changed: Sections = {"round": {"recipe": self.recipe.name}}
        # Named checkpoints always, because the form proposes some where the settings name none.
        for key in dict.fromkeys([*self.changed_data, *(key for key in self.fields if key == "round-checkpoints")]):
            section, _dash, name = key.partition("-")
            for target in self.recipe.programs if section == "common" else (section,):
                if name.startswith("environment"):
                    stored = self.settings[section]["environment"]
                    made = dialogue_fields.environment_of(self.cleaned_data, section, stored)
                    changed.setdefault(section, {})["environment"] = made
                elif name:
                    value = self.cleaned_data[key]
                    changed.setdefault(target, {})[name] = [{"name": value}] if name == "rewards" else value
        return changed


def _fields(recipe: Recipe, only_samples: bool) -> tuple[FormField, ...]:
    sampled = SAMPLE_FIELDS if "sample" in recipe.programs and recipe.learns else ()
    dialogues = _dialogue_fields(recipe, only_samples)
    if only_samples:
        return (*sampled, *dialogues, *COMMON_FIELDS)
    guards = (GUARD_FIELD,) if recipe.learns else ()
    return (*recipe.fields, *sampled, *dialogues, *guards, *COMMON_FIELDS)


def _dialogue_fields(recipe: Recipe, only_samples: bool) -> tuple[FormField, ...]:
    """Return the field of the environment of the samples, unless the recipe's own fields have it or it has none.

    The programs ppo and evaluate play the dialogues of their rounds. The policy of best_of_n answers once.
    """
    if "ppo" in recipe.programs:
        return (environment_field("ppo"),) if only_samples else ()
    is_own = "sample" in recipe.programs and "best_of_n" not in recipe.programs
    return (environment_field("sample"),) if is_own else ()


def _checkpoints_field(
    label: Text, text: Text, names: Sequence[str], choices: Sequence[str]
) -> forms.MultipleChoiceField:
    """Return the choice of named checkpoints: at first the named ones, else the served one and the newest other."""
    return forms.MultipleChoiceField(
        label=label,
        help_text=text,
        initial=list(names or choices[:2]),
        choices=[(name, name) for name in dict.fromkeys([*choices, *names])],
        widget=forms.CheckboxSelectMultiple,
    )


def _metric_field(label: Text, text: Text, terms: list[dict[str, Any]]) -> forms.ChoiceField:
    """Return the choice of the text metric that is the only reward term. Other terms can be kept, not chosen."""
    metrics = {name: name for name, term in TERMS.items() if term.needs_references}
    is_metric = len(terms) == 1 and terms[0].keys() == {"name"} and terms[0]["name"] in metrics
    kept = {} if is_metric else {KEPT_TERMS: " + ".join(str(term.get("name")) for term in terms)}
    initial = terms[0]["name"] if is_metric else KEPT_TERMS
    return forms.ChoiceField(label=label, help_text=text, initial=initial, choices=list((kept | metrics).items()))


def field_of(default: Any, choices: tuple[str, ...], label: Text, help_text: Text) -> forms.Field:
    """Return the field of one setting; the type of its default decides the kind."""
    if choices:
        return forms.ChoiceField(label=label, help_text=help_text, initial=default, choices=[(c, c) for c in choices])
    if isinstance(default, bool):
        return forms.BooleanField(label=label, help_text=help_text, initial=default, required=False)
    if isinstance(default, int):
        return forms.IntegerField(label=label, help_text=help_text, initial=default)
    widget = forms.NumberInput(attrs={"step": "any"})
    return forms.FloatField(label=label, help_text=help_text, initial=default, widget=widget)


class GuardTextsForm(forms.Form):
    file = forms.FileField(
        label=_("File"),
        help_text=_('JSON Lines with one object {"text": "..."} per line (.jsonl), or one text (.txt, .md), in UTF-8.'),
    )


class LoopForm(forms.Form):
    round_every = forms.IntegerField(
        label=_("New rankings"),
        required=False,
        min_value=1,
        help_text=_("A round starts after this many new rankings. Leave it empty to start rounds by hand only."),
    )
    recipe = forms.ChoiceField(
        label=_("Recipe"),
        required=False,
        choices=[(recipe.name, recipe.label) for recipe in RECIPES.values() if recipe.learns],
        help_text=_("Recipe of these rounds, and of every round that you start without choosing a recipe."),
    )


class GateForm(forms.Form):
    gate = forms.ChoiceField(
        label=_("Who promotes"),
        choices=LoopSettings.Gate.choices,
        help_text=_("The gate promotes a candidate once its lower bound has passed 50 %, unless a guard fell."),
    )
    futile_below = forms.FloatField(
        label=_("Futile below, in percent"),
        required=False,
        min_value=50,
        max_value=99,
        help_text=_(
            "A trial also ends once the candidate surely wins less than this, such as 52. Empty: it goes on. This "
            "holds for trials that start later."
        ),
    )

    @staticmethod
    def percent_of(share: float) -> float | None:
        """Return the value of `futile_below` for a stored share."""
        return round(100 * share, 4) if share > 0.5 else None


class ImportForm(forms.Form):
    path = forms.CharField(
        label=_("Folder"),
        max_length=1000,
        help_text=_("Folder of a Hugging Face model on this machine, or the hub id of a downloaded one."),
    )
    label = forms.CharField(
        label=_("Label"), max_length=200, help_text=_("Name of the checkpoint, and source of its completions.")
    )
    serve = forms.BooleanField(
        label=_("Serve it"),
        required=False,
        initial=True,
        help_text=_("Serve it after a worker has checked that it is computed exactly here."),
    )
