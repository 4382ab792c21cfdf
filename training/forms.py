"""Forms of the console. The round form has the most important settings; the API accepts all of them."""

from typing import Any

from django import forms
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from training.rounds import settings as round_settings
from training.rounds.settings import Sections

# Section, setting, label, help text. The type of the default decides the kind of field.
FIELDS: list[tuple[str, str, str | Promise, str | Promise]] = [
    ("ppo", "steps", _("Policy steps"), _("Batches of completions that the policy learns from.")),
    ("ppo", "batch_episodes", _("Completions per step"), _("More are slower and give a steadier gradient.")),
    ("ppo", "learning_rate", _("Policy learning rate"), _("0: chosen by the size of the model.")),
    ("ppo", "kl_coefficient", _("KL penalty"), _("Penalty per nat of KL divergence from the served checkpoint.")),
    ("reward", "epochs", _("Passes over the rankings"), _("With more than a few, the reward model overfits.")),
    ("reward", "learning_rate", _("Reward model learning rate"), _("0: chosen by the size of the model.")),
    ("round", "prompts", _("Prompts to answer"), _("Prompts that the new checkpoint answers, to be ranked next.")),
    ("sample", "completions_per_prompt", _("Completions per prompt"), _("A comparison has at most nine.")),
    (
        "sample",
        "temperature",
        _("Temperature"),
        _("Of the completions to rank next; 0 always takes the most probable token."),
    ),
    ("common", "max_completion_tokens", _("Maximum completion length"), _("In tokens.")),
    ("round", "processes", _("Processes"), _("One per GPU; 1 without a GPU.")),
]


class RoundForm(forms.Form):
    """Form of a new round's settings. `overrides` returns the changed ones.

    `again` is the number of an earlier round whose settings the new one has, except for the changes.
    """

    again = forms.IntegerField(required=False, widget=forms.HiddenInput)

    def __init__(self, data: Any, settings: Sections, learns: bool = True, again: int | None = None) -> None:
        """Build the fields. `settings` are complete sections, as `round_settings.resolve` returns them."""
        super().__init__(data, initial={"again": again})
        self.learns = learns
        self.terms = round_settings.reward_terms(settings["ppo"])
        self.uses_reward_model = round_settings.uses_reward_model(settings["ppo"])
        for section, name, label, text in FIELDS:
            if not learns and section not in ("round", "sample", "common"):
                continue
            if section == "reward" and not self.uses_reward_model:
                continue
            default = settings["sample" if section == "common" else section][name]
            kind = forms.IntegerField if isinstance(default, int) else forms.FloatField
            field = kind(label=label, help_text=text, initial=default)
            if isinstance(default, float):
                field.widget.attrs["step"] = "any"
            self.fields[f"{section}-{name}"] = field

    @property
    def overrides(self) -> Sections:
        """Return the changed settings by section."""
        changed: Sections = {}
        for key in self.changed_data:
            section, _dash, name = key.partition("-")
            for target in round_settings.PROGRAMS if section == "common" else (section,):
                if name:
                    changed.setdefault(target, {})[name] = self.cleaned_data[key]
        return changed


class LoopForm(forms.Form):
    round_every = forms.IntegerField(
        label=_("New rankings"),
        required=False,
        min_value=1,
        help_text=_("A round starts after this many new rankings. Leave it empty to start rounds by hand only."),
    )


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
