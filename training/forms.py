"""The settings of a new round as a form: the few that matter first; the API takes them all."""

from typing import Any

from django import forms
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from training.rounds import settings as round_settings
from training.rounds.settings import Sections

# Section, setting, label, help. The kind of field follows from the default.
FIELDS: list[tuple[str, str, str | Promise, str | Promise]] = [
    ("ppo", "steps", _("Policy steps"), _("Batches of completions that the policy learns from.")),
    ("ppo", "batch_episodes", _("Completions a step"), _("More of them: steadier, and slower.")),
    ("ppo", "learning_rate", _("Policy learning rate"), _("0: by the model's size; large models need less.")),
    ("ppo", "kl_coefficient", _("KL penalty"), _("What straying from the served model costs, per nat.")),
    ("reward", "epochs", _("Passes over the rankings"), _("More than a few, and the reward model learns by heart.")),
    ("reward", "learning_rate", _("Reward model learning rate"), _("0: by the model's size.")),
    ("round", "prompts", _("Prompts to answer"), _("How many prompts the new checkpoint answers, to be ranked next.")),
    ("sample", "completions_per_prompt", _("Completions a prompt"), _("At most nine come into one comparison.")),
    ("sample", "temperature", _("Temperature"), _("Of what is ranked next; 0 always takes the likeliest token.")),
    ("common", "max_completion_tokens", _("Longest completion"), _("In tokens.")),
    ("round", "processes", _("Processes"), _("One for each GPU; 1 without.")),
]


class RoundForm(forms.Form):
    """Shows the settings that a round would have, and gives back what was changed.

    `again` is the number of an earlier round whose settings all hold, but for what is changed here.
    """

    again = forms.IntegerField(required=False, widget=forms.HiddenInput)

    def __init__(self, data: Any, settings: Sections, learns: bool = True, again: int | None = None) -> None:
        """`settings` are whole sections, as `round_settings.resolve` returns them."""
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
        changed: Sections = {}
        for key in self.changed_data:
            section, _dash, name = key.partition("-")
            for each in round_settings.PROGRAMS if section == "common" else (section,):
                if name:
                    changed.setdefault(each, {})[name] = self.cleaned_data[key]
        return changed


class LoopForm(forms.Form):
    round_every = forms.IntegerField(
        label=_("New rankings"),
        required=False,
        min_value=1,
        help_text=_("A round starts by itself after this many; empty: only by hand."),
    )


class ImportForm(forms.Form):
    path = forms.CharField(
        label=_("Folder"),
        max_length=1000,
        help_text=_("A Hugging Face model on this machine, or the hub name of one that was downloaded to it."),
    )
    label = forms.CharField(label=_("Label"), max_length=200, help_text=_("What its completions are filed under."))
    serve = forms.BooleanField(
        label=_("Serve it"),
        required=False,
        initial=True,
        help_text=_("From when a worker has found that it is computed exactly here."),
    )
