"""Forms of the console. That of a new round is in `round_form`."""

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from training.models import Endpoint, LoopSettings
from training.rounds.recipes import RECIPES


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


class EndpointForm(forms.ModelForm):
    """The fields of an endpoint; `LIMITS` are those that few people change."""

    LIMITS = ("concurrency", "timeout_seconds", "retries")

    key = forms.CharField(
        label=_("Key"),
        required=False,
        max_length=1000,
        widget=forms.PasswordInput(attrs={"autocomplete": "off"}),
        help_text=_("Stored encrypted and never shown. A server without keys needs none."),
    )
    without_key = forms.BooleanField(label=_("Remove the stored key"), required=False)

    class Meta:
        model = Endpoint
        fields = [
            *("name", "url", "key", "without_key", "model"),
            *("prompt_price", "completion_price", "concurrency", "timeout_seconds", "retries"),
        ]
        widgets = {"model": forms.TextInput(attrs={"list": "models", "autocomplete": "off"})}

    field_order = Meta.fields

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if self.instance.encrypted_key:
            ends = self.instance.key_ends
            self.fields["key"].widget.attrs["placeholder"] = f"…{ends}" if ends else "…"
            self.fields["key"].help_text = _("A key is stored, encrypted. Write another one to replace it.")
        else:
            del self.fields["without_key"]

        for name in ("prompt_price", "completion_price"):
            if (price := getattr(self.instance, name)) is not None:
                self.initial[name] = f"{price.normalize():f}"

    def main_fields(self) -> list[forms.BoundField]:
        return [field for field in self if field.name not in self.LIMITS]

    def limit_fields(self) -> list[forms.BoundField]:
        return [field for field in self if field.name in self.LIMITS]

    def limits_have_errors(self) -> bool:
        return any(field.errors for field in self.limit_fields())

    def _post_clean(self) -> None:
        """Leave the checks of the model, and the row, to `training.endpoints.records`."""

    def values(self) -> dict[str, Any]:
        """Return what was written, for `records.create` and `records.change`; the key only if there is a new one."""
        values = dict(self.cleaned_data)
        if values.pop("without_key", False):
            values["key"] = ""
        elif not values["key"] and self.instance.encrypted_key:
            del values["key"]
        return values
