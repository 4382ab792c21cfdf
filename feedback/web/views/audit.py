"""The audit log: of a project for its managers, of everything for administrators."""

from datetime import datetime, time, timedelta
from typing import Any

from django import forms
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from feedback import audit
from feedback.actions import members
from feedback.errors import Forbidden, Invalid
from feedback.models import Project
from feedback.reports import audit_log

DAY = forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d")
SUBJECTS = {
    "account": gettext_lazy("Accounts"),
    "admin": gettext_lazy("Admin site"),
    "checkpoint": gettext_lazy("Checkpoints"),
    "comparison": gettext_lazy("Comparisons"),
    "completion": gettext_lazy("Completions"),
    "guard_texts": gettext_lazy("Guard texts"),
    "import": gettext_lazy("Imports"),
    "invitation": gettext_lazy("Invitations"),
    "loop": gettext_lazy("Settings of rounds"),
    "member": gettext_lazy("Members"),
    "password": gettext_lazy("Passwords"),
    "person": gettext_lazy("Erasures"),
    "project": gettext_lazy("Projects"),
    "prompt": gettext_lazy("Prompts"),
    "review": gettext_lazy("Reviews"),
    "round": gettext_lazy("Rounds"),
    "token": gettext_lazy("API tokens"),
    "trial": gettext_lazy("Trials"),
    "webhook": gettext_lazy("Webhooks"),
}


class AuditForm(forms.Form):
    """The filters of the audit log."""

    act = forms.ChoiceField(label=gettext_lazy("What"), required=False)
    actor = forms.ChoiceField(label=gettext_lazy("Who"), required=False)
    since = forms.DateField(label=gettext_lazy("From"), required=False, widget=DAY)
    until = forms.DateField(label=gettext_lazy("To"), required=False, widget=DAY)

    def __init__(self, data: QueryDict, project: Project | None) -> None:
        super().__init__(data)
        every: Any = ("", _("All"))
        acts, people = self.fields["act"], self.fields["actor"]
        assert isinstance(acts, forms.ChoiceField) and isinstance(people, forms.ChoiceField)
        acts.choices = [every, *SUBJECTS.items()]
        people.choices = [every, *((name, name) for name in audit_log.actors(project))]

    @property
    def filters(self) -> audit_log.AuditFilters:
        """Return the filters of the valid form. The last day is included."""
        values = {name: value for name, value in self.cleaned_data.items() if value}
        if "since" in values:
            values["since"] = _midnight(values["since"])
        if "until" in values:
            values["until"] = _midnight(values["until"] + timedelta(days=1))
        return audit_log.AuditFilters(**values)


def _midnight(day: Any) -> datetime:
    return timezone.make_aware(datetime.combine(day, time()))


@login_required
@never_cache
@require_GET
def of_project(request: HttpRequest, slug: str) -> HttpResponse:
    membership = members.manager_of(request.user, slug)
    context = {"project": membership.project, "membership": membership, "page": "settings", "tab": "audit"}
    return _page(request, membership.project, context)


@login_required
@never_cache
@require_GET
def of_site(request: HttpRequest) -> HttpResponse:
    if not request.user.is_staff:
        raise Forbidden(_("Only administrators of this site may read its audit log."))
    return _page(request, None, {})


def _page(request: HttpRequest, project: Project | None, context: dict[str, Any]) -> HttpResponse:
    form = AuditForm(request.GET, project)
    page = audit_log.AuditPage([], "")
    if form.is_valid():
        try:
            page = audit_log.read(project, form.filters, cursor=request.GET.get("cursor", ""))
        except Invalid as refusal:
            form.add_error(None, refusal.message)
    query = request.GET.copy()
    query.pop("cursor", None)
    first = query.urlencode()
    if page.next:
        query["cursor"] = page.next
    context |= {
        "filters": form,
        "is_filtered": any(form.data.get(name) for name in form.fields),
        "rows": [(entry, audit.ACTS.get(entry.act, entry.act), audit_log.changes_of(entry)) for entry in page.entries],
        "first_page": f"?{first}" if "cursor" in request.GET else "",
        "next_page": f"?{query.urlencode()}" if page.next else "",
    }
    return render(request, "project/audit.html", context)
