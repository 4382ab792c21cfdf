"""Pages of a project: guidelines for all members; people, prompts and settings for managers."""

from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from feedback import imports
from feedback.actions import invitations, members, password_links, pauses, projects
from feedback.errors import AccordError, Invalid
from feedback.imports.lines import read_lines
from feedback.models import Import, Membership
from feedback.rendering import render as render_markdown
from feedback.reports import progress
from feedback.reports.data import lists
from feedback.web.accounts.sessions import end_all_sessions
from feedback.web.file_forms import PromptsForm
from feedback.web.forms import InvitationForm, MemberForm, ProjectSettingsForm, RoleForm, checked
from feedback.web.views import data

MAX_IMPORTS_LISTED = 20
MAX_INVITATIONS_LISTED = 50
MAX_PAUSES_LISTED = 20


@login_required
@require_GET
def guidelines(request: HttpRequest, slug: str) -> HttpResponse:
    membership = members.membership_of(request.user, slug)
    return _page(request, membership, "guidelines", {"guidelines": render_markdown(membership.project.guidelines)})


@login_required
def settings(request: HttpRequest, slug: str) -> HttpResponse:
    membership = members.manager_of(request.user, slug)
    form = ProjectSettingsForm(request.POST or None, instance=membership.project)
    if request.method == "POST" and form.is_valid():
        projects.save_settings(form.save(commit=False))
        messages.success(request, _("Saved."))
        return redirect("project-settings", slug)
    return _page(request, membership, "settings", {"form": form, "tab": "settings"})


@login_required
def people(request: HttpRequest, slug: str) -> HttpResponse:
    membership = members.manager_of(request.user, slug)
    form = MemberForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            members.add_member(membership.project, form.cleaned_data["username"], form.cleaned_data["role"])
            return redirect("people", slug)
        except AccordError as refusal:
            form.add_error("username", refusal.message)
    return _people_page(request, membership, form=form)


def _people_page(request: HttpRequest, membership: Membership, **context: Any) -> HttpResponse:
    forms = {"form": MemberForm(), "invitation_form": InvitationForm()}
    lists = {
        "members": members.members_of(membership.project),
        "invitations": [
            (invitation, invitations.state_of(invitation))
            for invitation in invitations.invitations_of(membership.project)[:MAX_INVITATIONS_LISTED]
        ],
        "roles": Membership.Role.choices,
        "pauses": pauses.pauses_of(membership.project)[:MAX_PAUSES_LISTED],
    }
    return _page(request, membership, "people", {**forms, **lists, **context})


@login_required
@never_cache
@require_POST
def invite(request: HttpRequest, slug: str) -> HttpResponse:
    """Make an invitation. Its link is shown in this response only."""
    membership = members.manager_of(request.user, slug)
    form = InvitationForm(request.POST)
    if not form.is_valid():
        return _people_page(request, membership, invitation_form=form)
    invitation, key = invitations.invite(membership, **form.cleaned_data)
    link = request.build_absolute_uri(reverse("join", args=[key]))
    return _people_page(request, membership, link=link, invited=invitation)


@login_required
@require_POST
def revoke(request: HttpRequest, slug: str, invitation_id: int) -> HttpResponse:
    invitations.revoke(members.manager_of(request.user, slug).project, invitation_id)
    messages.success(request, _("The invitation is withdrawn: its link does nothing any more."))
    return redirect("people", slug)


@login_required
@never_cache
@require_POST
def password_link(request: HttpRequest, slug: str, user_id: int) -> HttpResponse:
    """Make a link with which a member sets a new password. It is shown in this response only."""
    membership = members.manager_of(request.user, slug)
    person = members.current_or_former_member(membership.project, user_id)
    link = request.build_absolute_uri(reverse("new-password", args=password_links.password_link(membership, user_id)))
    return _people_page(request, membership, link=link, link_for=person)


@login_required
@require_POST
def change_role(request: HttpRequest, slug: str, user_id: int) -> HttpResponse:
    membership = members.manager_of(request.user, slug)
    members.change_role(membership.project, user_id, checked(RoleForm(request.POST))["role"])
    return redirect("people", slug)


@login_required
@require_POST
def pause(request: HttpRequest, slug: str, user_id: int) -> HttpResponse:
    membership = members.manager_of(request.user, slug)
    pauses.pause(membership.project, user_id, membership.user)
    return redirect("people", slug)


@login_required
@require_POST
def resume(request: HttpRequest, slug: str, user_id: int) -> HttpResponse:
    membership = members.manager_of(request.user, slug)
    pauses.resume(membership.project, user_id, membership.user)
    return redirect("people", slug)


@login_required
@require_POST
def remove_member(request: HttpRequest, slug: str, user_id: int) -> HttpResponse:
    membership = members.manager_of(request.user, slug)
    members.remove_member(membership.project, user_id)
    return redirect("people", slug)


@login_required
@require_POST
def set_active(request: HttpRequest, slug: str, user_id: int) -> HttpResponse:
    """Deactivate a member's account or activate it again. An account that is activated has to sign in again."""
    membership = members.manager_of(request.user, slug)
    user = members.set_active(request.user, membership.project, user_id, request.POST.get("active") == "yes")
    if not user.is_active:
        end_all_sessions(user)
    return redirect("people", slug)


@login_required
def prompts(request: HttpRequest, slug: str) -> HttpResponse:
    """List the prompts, and accept an uploaded file; its errors are listed line by line."""
    membership = members.manager_of(request.user, slug)
    form = PromptsForm(request.POST or None, request.FILES or None)
    errors: list[dict[str, Any]] = []
    if request.method == "POST" and form.is_valid():
        try:
            rows = read_lines(form.cleaned_data["file"])
            options = {name: form.cleaned_data[name] for name in ("compare", "again")}
            with imports.record_import(membership.project, str(Import.How.PAGE), membership.user) as record:
                added = imports.add_prompts(membership.project, rows, made_by_import=record, **options)
            messages.success(request, _summary(added))
            return redirect("prompts", slug)
        except Invalid as refusal:
            form.add_error("file", refusal.message)
            errors = refusal.details.get("errors", [])
    context = {
        **data.list_context(request, membership, lists.PROMPTS),
        "page": "data",
        "form": form,
        "errors": errors,
        "imports": imports.last_imports(membership.project, MAX_IMPORTS_LISTED),
    }
    return _page(request, membership, "prompts", context)


@login_required
@never_cache
@require_GET
def inventory(request: HttpRequest, slug: str) -> HttpResponse:
    """Return the numbers of the project's rows as a fragment of the prompts page."""
    project = members.manager_of(request.user, slug).project
    context = {"project": project, "inventory": progress.inventory(project)}
    return render(request, "project/_inventory.html", context)


@login_required
@require_POST
def undo_import(request: HttpRequest, slug: str, import_id: int) -> HttpResponse:
    """Undo an import and report the removed rows and those that stay."""
    membership = members.manager_of(request.user, slug)
    undone = imports.undo_import(imports.find_import(membership.project, import_id), membership.user)
    counts = {name: f"{number:,}" for name, number in undone.removed.items()}
    removed = _("Removed: prompts %(prompts)s, completions %(completions)s, comparisons %(comparisons)s.") % counts
    messages.success(request, " ".join([removed, *(kept.message for kept in undone.stayed)]))
    return redirect("prompts", slug)


def _summary(added: imports.AddedPrompts) -> str:
    """Return a sentence about the result of an upload."""
    known = len(set(added.prompt_ids)) - added.created
    parts = [
        ngettext("%(n)s new prompt", "%(n)s new prompts", added.created) % {"n": added.created},
        ngettext("%(n)s known already", "%(n)s known already", known) % {"n": known},
        ngettext("%(n)s comparison made", "%(n)s comparisons made", added.compared) % {"n": added.compared},
    ]
    if added.changed:
        changed = ngettext("%(n)s known prompt completed", "%(n)s known prompts completed", added.changed)
        parts.insert(2, changed % {"n": added.changed})
    if added.compared_before:
        before = ngettext("%(n)s was there already", "%(n)s were there already", added.compared_before)
        parts.append(before % {"n": added.compared_before})
    return ", ".join(parts) + "."


def _page(request: HttpRequest, membership: Membership, page: str, context: dict[str, Any]) -> HttpResponse:
    context = {"project": membership.project, "membership": membership, "page": page, **context}
    return render(request, f"project/{page}.html", context)
