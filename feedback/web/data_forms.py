"""The filters of the data pages. A form has the fields of its list only."""

from datetime import datetime, time, timedelta
from typing import Any

from django import forms
from django.http import QueryDict
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from feedback.models import Project, Prompt
from feedback.models.flags import flags_of
from feedback.reports.data.filters import MAX_SEARCH_LENGTH, Filters
from feedback.reports.data.lists import DataList

STATES = {
    "open": _("Wants rankings"),
    "ranked": _("Ranked"),
    "disagreement": _("Disagreement"),
    "adjudicated": _("Settled"),
    "gold": _("Gold"),
    "live": _("Live"),
    "overruled": _("Overruled"),
    "returned": _("Returned"),
    "discarded": _("Discarded"),
    "withdrawn": _("Withdrawn"),
    "all": _("All revisions"),
    "counting": _("To imitate"),
}
SORTS = {"newest": _("Newest first"), "oldest": _("Oldest first"), "disagreement": _("Most disagreement first")}
SPLITS = {Prompt.Split.TRAIN: _("To train on"), Prompt.Split.HELD_OUT: _("Held out")}
EVERY = ("", _("All"))
DAY = forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d")


class DataForm(forms.Form):
    """The search, filters and order of one list."""

    search = forms.CharField(
        label=_("Search"),
        required=False,
        max_length=MAX_SEARCH_LENGTH,
        widget=forms.TextInput(attrs={"type": "search"}),
    )
    external_id = forms.CharField(label=_("External id"), required=False, max_length=200)
    split = forms.ChoiceField(label=_("Prompts"), required=False, choices=[EVERY, *SPLITS.items()])
    source = forms.ChoiceField(label=_("Source"), required=False)
    annotator = forms.ChoiceField(label=_("Annotator"), required=False)
    flag = forms.ChoiceField(label=_("Flag"), required=False)
    state = forms.ChoiceField(label=_("State"), required=False)
    has_comment = forms.BooleanField(label=_("With a comment"), required=False)
    has_reason = forms.BooleanField(label=_("With a reason"), required=False)
    since = forms.DateField(label=_("From"), required=False, widget=DAY)
    until = forms.DateField(label=_("To"), required=False, widget=DAY)
    sort = forms.ChoiceField(label=_("Order"), required=False)

    def __init__(self, listed: DataList, project: Project, data: QueryDict) -> None:
        super().__init__(data)
        for name in set(self.fields) - {*listed.filters, "sort"}:
            del self.fields[name]
        states = [(name, STATES[name]) for name in listed.states]
        # The first state is the list's default where it has one that leaves rows out.
        self._choose("state", states if listed.name == "rankings" else [EVERY, *states])
        self._choose("source", [EVERY, *((name, name) for name in _names(project.sources, "name", data.get("source")))])
        members = project.memberships.order_by("user__username")
        people = _names(members, "user__username", data.get("annotator"))
        self._choose("annotator", [EVERY, *((name, name) for name in people)])
        flags = dict.fromkeys([*flags_of(project), *filter(None, [data.get("flag")])])
        self._choose("flag", [EVERY, *((name, name) for name in flags)])
        self._choose("sort", [(name, SORTS[name]) for name in listed.sorts])

    def _choose(self, name: str, choices: list[tuple[Any, Any]]) -> None:
        field = self.fields.get(name)
        if isinstance(field, forms.ChoiceField):
            field.choices = choices

    @property
    def filters(self) -> Filters:
        """Return the filters of the valid form. The last day is included."""
        values = {name: value for name, value in self.cleaned_data.items() if name != "sort" and value}
        if "since" in values:
            values["since"] = _midnight(values["since"])
        if "until" in values:
            values["until"] = _midnight(values["until"] + timedelta(days=1))
        return Filters(**values)

    @property
    def order(self) -> str:
        return self.cleaned_data["sort"] or "newest"

    @property
    def is_filtered(self) -> bool:
        return any(value for name, value in self.cleaned_data.items() if name != "sort")

    def visible(self) -> list[forms.BoundField]:
        """Return the fields beside the search."""
        return [field for field in self if field.name != "search"]


def _names(rows: Any, field: str, chosen: str | None) -> list[str]:
    """Return the names of the choices. The chosen one is among them, because a link may name a former member."""
    names = list(rows.order_by(field).values_list(field, flat=True))
    return names if not chosen or chosen in names else [*names, chosen]


def _midnight(day: Any) -> datetime:
    return timezone.make_aware(datetime.combine(day, time()))
