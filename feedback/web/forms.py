"""Forms of the pages. They check single fields; `feedback.actions` checks what depends on the database."""

from datetime import datetime, time
from typing import Any
from uuid import UUID

from django import forms
from django.contrib.auth.forms import UserCreationForm
from django.contrib.postgres.forms import SimpleArrayField
from django.http import QueryDict
from django.utils import timezone
from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy as _

from feedback.actions import invitations
from feedback.actions.ranking_details import MAX_COMMENT_LENGTH, RankingDetails
from feedback.actions.spans import VisibleSpan
from feedback.api.scopes import SCOPES
from feedback.errors import Invalid
from feedback.models import MAX_LIMIT, MAX_NAMES, Membership, Project, User
from feedback.queue import sampling
from feedback.queue.limits import LIMITS


class JoinForm(UserCreationForm):
    """The account of a person who was invited."""

    class Meta:
        model = User
        fields = ("username",)

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.fields["username"].help_text = _("Letters, digits and @ . + - _")
        self.fields["password1"].help_text = _("At least 8 characters, not only digits, and no common password.")
        self.fields["password2"].help_text = ""


class InvitationForm(forms.Form):
    """A new invitation."""

    role = forms.ChoiceField(label=_("Role"), choices=Membership.Role.choices)
    name = forms.CharField(label=_("For whom (optional)"), max_length=100, required=False)
    places = forms.IntegerField(
        label=_("How many people"), min_value=1, max_value=invitations.MAX_PLACES, initial=1, required=False
    )

    def clean_places(self) -> int:
        return self.cleaned_data["places"] or 1


class ErasureForm(forms.Form):
    password = forms.CharField(
        label=_("Your password"),
        max_length=4096,
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
    )


class TokenForm(forms.Form):
    """A new API token. Nothing chosen: not limited."""

    name = forms.CharField(label=_("Name"), max_length=100)
    days = forms.TypedChoiceField(
        label=_("Expires"),
        choices=[("", _("never")), (30, _("in 30 days")), (90, _("in 90 days")), (365, _("in a year"))],
        coerce=int,
        empty_value=None,
        required=False,
    )
    scopes = forms.MultipleChoiceField(
        label=_("Only for"),
        choices=list(SCOPES.items()),
        widget=forms.CheckboxSelectMultiple,
        required=False,
        help_text=_("None chosen: all that you may do."),
    )
    projects = forms.MultipleChoiceField(
        label=_("Only in"),
        widget=forms.CheckboxSelectMultiple,
        required=False,
        help_text=_("None chosen: in all your projects."),
    )

    def __init__(self, data: QueryDict | None = None, *, projects: list[tuple[str, str]]) -> None:
        super().__init__(data)
        self.fields["projects"].choices = projects
        if not projects:
            del self.fields["projects"]

    def clean(self) -> dict[str, Any]:
        fields = super().clean() or {}
        return fields | {name: fields.get(name) or None for name in ("scopes", "projects")}


class ListField(SimpleArrayField):
    """Values in one line, separated by commas."""

    def __init__(self, base_field: forms.Field, *, max_length: int, help_text: Any = "", **kwargs: Any) -> None:
        hint = format_lazy(_("Up to {count}, separated by commas."), count=max_length)
        help_text = format_lazy("{} {}", help_text, hint)
        super().__init__(base_field, max_length=max_length, help_text=help_text, **kwargs)

    def prepare_value(self, value: Any) -> Any:
        return ", ".join(value) if isinstance(value, list) else value


class ProjectForm(forms.ModelForm):
    """A new project. Labels, help texts and limits of settings are those of the model's fields."""

    class Meta:
        model = Project
        fields = ("name", "slug", "guidelines")


FLAG_LISTS = ("information_flags", "review_flags", "flags")
SETTING_GROUPS = (
    (_("Project"), ("name", "guidelines")),
    (_("Questions to annotators"), ("strength_points", "one_key_pairs", "attributes", *FLAG_LISTS)),
    (_("Queue"), ("sampling_rule", "wanted_rankings", "extra_rankings", "lease_minutes", "comparisons_ahead", *LIMITS)),
    (
        _("Quality"),
        ("gold_percent", "qualification_items", "qualification_percent", "pauses_careless", "annotators_see_quality"),
    ),
    (_("Training"), ("held_out_percent", "ranking_weights", "anchors")),
)


class ProjectSettingsForm(forms.ModelForm):
    """The settings of a project, in groups. A choice of one value is not shown."""

    class Meta:
        model = Project
        fields = [name for _heading, names in SETTING_GROUPS for name in names]
        field_classes = dict.fromkeys(("attributes", *FLAG_LISTS), ListField)

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        rules = sorted(sampling.RULES)
        if len(rules) > 1:
            text = self.fields["sampling_rule"]
            choices = [(name, name) for name in rules]
            self.fields["sampling_rule"] = forms.ChoiceField(
                choices=choices, label=text.label, help_text=text.help_text, initial=text.initial
            )
        else:
            del self.fields["sampling_rule"]

    def groups(self) -> list[tuple[Any, list[forms.BoundField]]]:
        """Return the headings of the settings page, each with its fields."""
        visible = [(heading, [name for name in names if name in self.fields]) for heading, names in SETTING_GROUPS]
        return [(heading, [self[name] for name in names]) for heading, names in visible]


class MemberForm(forms.Form):
    username = forms.CharField(label=_("Username"), max_length=150)
    role = forms.ChoiceField(label=_("Role"), choices=Membership.Role.choices)


class RoleForm(forms.Form):
    role = forms.ChoiceField(choices=Membership.Role.choices)


class NamesField(ListField):
    """A few names, whose help does not repeat how many there may be."""

    def __init__(self, *, name_length: int, **kwargs: Any) -> None:
        super().__init__(forms.CharField(max_length=name_length), max_length=MAX_NAMES, **kwargs)
        self.help_text = kwargs.get("help_text", "")


class RoutingRuleForm(forms.Form):
    """A rule: prompts with one of the tags go only to members of one of the groups."""

    tags = NamesField(label=_("Prompts tagged"), name_length=100)
    groups = NamesField(label=_("go only to"), name_length=50)


class MemberWorkForm(forms.Form):
    """Groups and limits of a member. An empty limit is the project's."""

    groups = NamesField(label=_("Groups"), name_length=50, required=False)
    daily_limit = forms.IntegerField(label=_("A day"), min_value=0, max_value=MAX_LIMIT, required=False)
    total_limit = forms.IntegerField(label=_("In total"), min_value=0, max_value=MAX_LIMIT, required=False)
    share_limit = forms.IntegerField(label=_("Share, percent"), min_value=0, max_value=100, required=False)

    def __init__(self, data: QueryDict | None = None, *, member: Membership) -> None:
        super().__init__(data, initial=vars(member), auto_id=f"{member.user_id}-%s")
        for name, field in self.fields.items():  # the fields are in the columns of a table, the form in the last one
            field.widget.attrs |= {"form": f"work-{member.user_id}", "aria-label": f"{member.user}: {field.label}"}
            if name != "groups":
                field.widget.attrs["placeholder"] = getattr(member.project, name) or "–"


class LeaseForm(forms.Form):
    """The id of a lease that the page holds."""

    lease = forms.UUIDField()


class SkipForm(LeaseForm):
    reason = forms.CharField(max_length=500, required=False)


class DemonstrationForm(forms.Form):
    comparison = forms.IntegerField()
    place = forms.IntegerField(required=False)  # of the completion that was edited; missing: an empty page
    text = forms.CharField(max_length=100_000, strip=False)

    def clean_text(self) -> str:
        """Return the text with the line feeds that were typed: browsers send CR LF for each one."""
        return str(self.cleaned_data["text"]).replace("\r\n", "\n")


class RankingForm(forms.Form):
    """A ranking as the page sends it; `actions.rankings` checks it against the project and the comparison.

    Fields with numbers in their names, where place is the position in the order of display, from 0:
    `rank-<place>` for each completion; `rating-<place>-<attribute>` for each rating; `span` for each marked span, as
    `<place>:<start>:<end>:<mark>:<quote>` (see `spans.VisibleSpan`).
    """

    key = forms.UUIDField()
    seconds = forms.FloatField(min_value=0, required=False)  # missing if the page runs without JavaScript
    comment = forms.CharField(max_length=MAX_COMMENT_LENGTH, required=False)
    strength = forms.IntegerField(required=False)

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        ranks = {name: value for name, value in self.data.items() if name.startswith("rank-")}
        try:
            cleaned["ranks"] = [int(ranks[f"rank-{place}"]) for place in range(len(ranks))]
        except (KeyError, ValueError):
            raise forms.ValidationError(_("Every completion needs a rank, as a number.")) from None
        try:
            cleaned["ratings"] = self._ratings(len(ranks))
            cleaned["spans"] = [_parse_span(span) for span in self.data.getlist("span")]
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
        cleaned = self.cleaned_data
        return {
            "comment": cleaned["comment"],
            "strength": cleaned["strength"],
            "flags": self.data.getlist("flags"),
            "ratings": cleaned["ratings"],
            "spans": cleaned["spans"],
        }

    @property
    def key_and_time(self) -> dict[str, Any]:
        return {"idempotency_key": self.cleaned_data["key"], "seconds": self.cleaned_data["seconds"] or 0.0}


def _parse_span(text: str) -> VisibleSpan:
    place, start, end, mark, quote = text.split(":", 4)
    return VisibleSpan(int(place), int(start), int(end), mark, quote)


class LeasedRankingForm(RankingForm, LeaseForm):
    """A new ranking of a leased comparison."""


class AdjudicationForm(RankingForm):
    """A reviewer's ranking that settles a comparison."""

    reason = forms.CharField(max_length=1000, required=False)


class ReasonForm(forms.Form):
    reason = forms.CharField(max_length=1000)


class RankingReviewForm(ReasonForm):
    """The ranking to return or discard, and the reason."""

    ranking = forms.IntegerField()


class SinceForm(forms.Form):
    """A day; it stands for the time from its midnight on."""

    since = forms.DateField(label=_("Since"), widget=forms.DateInput(attrs={"type": "date"}))

    @property
    def moment(self) -> datetime:
        return timezone.make_aware(datetime.combine(self.cleaned_data["since"], time.min))


class DiscardSinceForm(SinceForm):
    """Discard one person's rankings since a day; `expected` is the number of rankings that the page announced."""

    reason = forms.CharField(max_length=1000)
    expected = forms.IntegerField(min_value=1)


def checked(form: forms.Form) -> dict[str, Any]:
    """Return the cleaned data of a form that a script filled. Raises Invalid with the first error."""
    if form.is_valid():
        return form.cleaned_data
    field, errors = next(iter(form.errors.items()))
    raise Invalid(errors[0] if field == "__all__" else f"{field}: {errors[0]}")


def read_leases(parameters: QueryDict) -> list[UUID]:
    """Return the ids of the leases that the page holds, from the parameters named `held`. Raises Invalid."""
    try:
        return [UUID(lease) for lease in parameters.getlist("held")]
    except ValueError:
        raise Invalid(_("A lease id must be a UUID.")) from None
