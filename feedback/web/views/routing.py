"""The page on which managers say who gets which work: routing rules, groups and limits of members."""

from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from feedback.actions import members, routing
from feedback.errors import Invalid
from feedback.models import Membership
from feedback.reports import routing as reports
from feedback.web.forms import MemberWorkForm, RoutingRuleForm


@login_required
def page(request: HttpRequest, slug: str) -> HttpResponse:
    """Show the rules and the members' groups and limits, and add a rule."""
    membership = members.manager_of(request.user, slug)
    form = RoutingRuleForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            rules = _rules(membership)
            rules.append((form.cleaned_data["tags"], form.cleaned_data["groups"]))
            routing.save_rules(membership.project, rules)
            messages.success(request, _("Saved. The rule holds from now on."))
            return redirect("routing", slug)
        except Invalid as refusal:
            form.add_error("tags", refusal.message)
    return _page(request, membership, form=form)


@login_required
@require_POST
def remove_rule(request: HttpRequest, slug: str, rule_id: int) -> HttpResponse:
    membership = members.manager_of(request.user, slug)
    rules = membership.project.routing_rules.exclude(pk=rule_id).order_by("pk").values_list("tags", "groups")
    routing.save_rules(membership.project, list(rules))
    messages.success(request, _("The rule is removed."))
    return redirect("routing", slug)


@login_required
@require_POST
def change_member(request: HttpRequest, slug: str, user_id: int) -> HttpResponse:
    """Change a member's groups and limits."""
    membership = members.manager_of(request.user, slug)
    form = MemberWorkForm(request.POST, member=members.member_with_id(membership.project, user_id))
    if not form.is_valid():
        return _page(request, membership, changed={user_id: form})
    routing.change_work(membership.project, user_id, **form.cleaned_data)
    messages.success(request, _("Saved."))
    return redirect("routing", slug)


def _rules(membership: Membership) -> list[tuple[list[str], list[str]]]:
    return list(membership.project.routing_rules.order_by("pk").values_list("tags", "groups"))


def _page(
    request: HttpRequest,
    membership: Membership,
    *,
    form: RoutingRuleForm | None = None,
    changed: dict[int, MemberWorkForm] | None = None,
) -> HttpResponse:
    people = list(members.members_of(membership.project).select_related("project"))
    context: dict[str, Any] = {
        "project": membership.project,
        "membership": membership,
        "page": "people",
        "form": form or RoutingRuleForm(),
        "people": [(person, (changed or {}).get(person.user_id) or MemberWorkForm(member=person)) for person in people],
        "overview": reports.overview(membership.project),
    }
    return render(request, "project/routing.html", context)
