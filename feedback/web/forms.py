"""What people type into pages, checked field by field. What only the database can judge is judged in the modules."""

from datetime import datetime, time
from typing import Any
from uuid import UUID

from django import forms
from django.contrib.postgres.forms import SimpleArrayField
from django.http import QueryDict
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from feedback.actions.ranking_details import MAX_COMMENT_LENGTH, RankingDetails
from feedback.actions.spans import SeenSpan
from feedback.errors import Invalid
from feedback.models import Membership, Project


class TokenForm(forms.Form):
    name = forms.CharField(label=_("Name"), max_length=100)


class ProjectForm(forms.ModelForm):
    """A new project. Labels, help texts and limits of settings are those of the model's fields."""

    class Meta:
        model = Project
        fields = ("name", "slug", "guidelines")


SETTING_GROUPS = (
    (_("Project"), ("name", "guidelines")),
    (_("Questions to annotators"), ("strength_points", "one_key_pairs", "attributes", "flags")),
    (_("Queue"), ("wanted_rankings", "extra_opinions", "lease_minutes", "comparisons_ahead")),
    (_("Quality"), ("gold_percent", "qualification_items", "qualification_percent", "annotators_see_quality")),
    (_("Training"), ("held_out_percent", "ranking_weights")),
)


class ProjectSettingsForm(forms.ModelForm):
    """The settings of a project, in groups."""

    class Meta:
        model = Project
        fields = [name for _heading, names in SETTING_GROUPS for name in names]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for field in self.fields.values():
            if isinstance(field, SimpleArrayField):
                entry = _("Up to %(count)s, separated by commas.") % {"count": field.max_length}
                field.help_text = f"{field.help_text} {entry}"

    def groups(self) -> list[tuple[Any, list[forms.BoundField]]]:
        """Return the headings of the settings page, each with its fields."""
        return [(heading, [self[name] for name in names]) for heading, names in SETTING_GROUPS]


class MemberForm(forms.Form):
    username = forms.CharField(label=_("User name"), max_length=150)
    role = forms.ChoiceField(label=_("Role"), choices=Membership.Role.choices)


class RoleForm(forms.Form):
    role = forms.ChoiceField(choices=Membership.Role.choices)


class PromptsForm(forms.Form):
    file = forms.FileField(label=_("File"), help_text=_("JSON Lines, in UTF-8: one prompt a line."))
    compare = forms.BooleanField(
        label=_("Make a comparison of each prompt’s completions"), required=False, initial=True
    )
    again = forms.BooleanField(
        label=_("Also where these completions are in a comparison already"),
        required=False,
        help_text=_("Without this, uploading the same file again changes nothing."),
    )


class LeaseForm(forms.Form):
    """Names a lease that the page holds."""

    lease = forms.UUIDField()


class SkipForm(LeaseForm):
    reason = forms.CharField(max_length=500, required=False)


class DemonstrationForm(forms.Form):
    comparison = forms.IntegerField()
    text = forms.CharField(max_length=100_000, strip=False)

    def clean_text(self) -> str:
        """Return the text as written. A browser sends each line feed of a text area as a carriage return and it."""
        return str(self.cleaned_data["text"]).replace("\r\n", "\n")


class RankingForm(forms.Form):
    """A ranking as the page sends it. What it says is checked where the project and the comparison are known.

    `rank-<place>` for each completion, in the order of display; `rating-<place>-<attribute>` for what is rated;
    `span` for each marked one, `<place>:<start>:<end>:<mark>:<quote>` (see `spans.SeenSpan`).
    """

    key = forms.UUIDField()
    seconds = forms.FloatField(min_value=0, required=False)  # without scripts nobody measures
    comment = forms.CharField(max_length=MAX_COMMENT_LENGTH, required=False)
    strength = forms.IntegerField(required=False)

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        given = {name: value for name, value in self.data.items() if name.startswith("rank-")}
        try:
            cleaned["ranks"] = [int(given[f"rank-{place}"]) for place in range(len(given))]
        except (KeyError, ValueError):
            raise forms.ValidationError(_("Every completion needs a rank, as a number.")) from None
        try:
            cleaned["ratings"] = self._ratings(len(given))
            cleaned["spans"] = [_seen_span(span) for span in self.data.getlist("span")]
        except (IndexError, ValueError):
            raise forms.ValidationError(_("A rating or a marked span cannot be read.")) from None
        return cleaned

    def _ratings(self, size: int) -> dict[str, list[int | None]]:
        ratings: dict[str, list[int | None]] = {}
        for name, value in self.data.items():
            if name.startswith("rating-"):
                _rating, place, attribute = name.split("-", 2)
                ratings.setdefault(attribute, [None] * size)[int(place)] = int(value)
        return ratings

    @property
    def details(self) -> RankingDetails:
        """The keyword arguments of `record_ranking` and `revise_ranking` besides ranks, key and time."""
        given = self.cleaned_data
        return {
            "comment": given["comment"],
            "strength": given["strength"],
            "flags": self.data.getlist("flags"),
            "ratings": given["ratings"],
            "spans": given["spans"],
        }

    @property
    def measured(self) -> dict[str, Any]:
        return {"idempotency_key": self.cleaned_data["key"], "seconds": self.cleaned_data["seconds"] or 0.0}


def _seen_span(sent: str) -> SeenSpan:
    place, start, end, mark, quote = sent.split(":", 4)
    return SeenSpan(int(place), int(start), int(end), mark, quote)


class LeasedRankingForm(RankingForm, LeaseForm):
    """A first ranking, of a comparison that is held."""


class AdjudicationForm(RankingForm):
    """A reviewer's own ranking, which settles the comparison."""

    reason = forms.CharField(max_length=1000, required=False)


class RankingReviewForm(forms.Form):
    """Which ranking is returned or discarded, and why."""

    ranking = forms.IntegerField()
    reason = forms.CharField(max_length=1000)


class SinceForm(forms.Form):
    """A day: everything from its first moment on."""

    since = forms.DateField(label=_("Since"), widget=forms.DateInput(attrs={"type": "date"}))

    @property
    def moment(self) -> datetime:
        return timezone.make_aware(datetime.combine(self.cleaned_data["since"], time.min))


class DiscardSinceForm(SinceForm):
    """All that one person said since then; `expected` is how many rankings the page said that this is."""

    reason = forms.CharField(max_length=1000)
    expected = forms.IntegerField(min_value=1)


def checked(form: forms.Form) -> dict[str, Any]:
    """What the form holds, or a refusal that names the first thing wrong with it. For forms that scripts fill."""
    if form.is_valid():
        return form.cleaned_data
    field, errors = next(iter(form.errors.items()))
    raise Invalid(errors[0] if field == "__all__" else f"{field}: {errors[0]}")


def read_leases(sent: QueryDict) -> list[UUID]:
    """The leases that the page has on hand, sent as `held`."""
    try:
        return [UUID(given) for given in sent.getlist("held")]
    except ValueError:
        raise Invalid(_("A lease is named by its UUID.")) from None
