"""The list of projects, the account page with its API tokens, and new projects."""

from typing import Any

from allauth.account.internal.flows.reauthentication import is_reauthentication_required
from allauth.core.exceptions import ReauthenticationRequired
from django.contrib import messages
from django.contrib.auth import logout as log_out
from django.contrib.auth.decorators import login_required
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import translation
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from feedback import audit
from feedback.actions import members, projects, tokens
from feedback.models import ApiToken, Project, User
from feedback.reports import progress
from feedback.web.accounts import sessions
from feedback.web.accounts.forms import ProfileForm
from feedback.web.forms import ProjectForm, TokenForm


@login_required
@require_GET
def home(request: HttpRequest) -> HttpResponse:
    return render(request, "home.html", {"memberships": progress.memberships_of(request.user)})


@login_required
@never_cache
def account(request: HttpRequest) -> HttpResponse:
    """Show the account page. A new token's key appears only in the response to the POST that created it."""
    projects = list(request.user.projects.order_by("name").values_list("slug", "name"))
    form = TokenForm(request.POST if request.method == "POST" else None, projects=projects)
    key = None
    if request.method == "POST" and form.is_valid():
        _token, key = tokens.issue_token(request.user, **form.cleaned_data)
        form = TokenForm(projects=projects)
    return render(request, "account/page.html", _context(request) | {"form": form, "key": key})


def _context(request: HttpRequest) -> dict[str, Any]:
    projects = list(request.user.projects.order_by("name").values_list("slug", "name"))
    listed = [
        (token, tokens.is_expired(token), limits_of(token)) for token in request.user.api_tokens.order_by("-created_at")
    ]
    return {
        "form": TokenForm(projects=projects),
        "tokens": listed,
        "profile_form": ProfileForm(instance=request.user),
        "sessions": sessions.sessions_of(request),
    }


@login_required
@never_cache
@require_POST
def profile(request: HttpRequest) -> HttpResponse:
    """Change mail address, language and time zone."""
    form = ProfileForm(request.POST, instance=User.objects.get(pk=request.user.pk))
    if not form.is_valid():
        return render(request, "account/page.html", _context(request) | {"profile_form": form}, status=400)
    if "email" in form.changed_data and is_reauthentication_required(request, app="allauth.mfa"):
        raise ReauthenticationRequired  # links for a new password go to this address
    with transaction.atomic():
        before = audit.stored_values_of(form.instance, form.fields)
        user = form.save()
        audit.record("account.profile", None, user, before=before, after=audit.values_of(user, form.fields))
    with translation.override(user.language or translation.get_language()):
        messages.success(request, _("Saved."))
    return redirect("account")


@login_required
@require_POST
def end_session(request: HttpRequest, session_id: int) -> HttpResponse:
    sessions.end_session(request.user, session_id)
    messages.success(request, _("That browser is signed out."))
    return redirect("account")


@login_required
@require_POST
def end_all_sessions(request: HttpRequest) -> HttpResponse:
    """Sign out everywhere, here too."""
    sessions.end_all_sessions(request.user)
    log_out(request)
    messages.success(request, _("You are signed out everywhere."))
    return redirect("sign-in")


def limits_of(token: ApiToken) -> str:
    """Return what a token is limited to, or "" for one without limits."""
    projects = Project.objects.filter(pk__in=token.project_ids or []).order_by("slug").values_list("slug", flat=True)
    limits = [", ".join(token.scopes or []), ", ".join(projects)]
    if token.project_ids is not None and not projects:
        limits[1] = _("projects that do not exist any more")
    return " · ".join(filter(None, limits))


@login_required
@require_POST
def revoke_token(request: HttpRequest, token_id: int) -> HttpResponse:
    tokens.revoke_token(request.user, token_id)
    messages.success(request, _("The token is revoked: programs that use it are refused from now on."))
    return redirect("account")


@login_required
def new_project(request: HttpRequest) -> HttpResponse:
    members.check_administrator(
        request.user, _("Only administrators of this site may create projects: ask one of them.")
    )
    form = ProjectForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        project = projects.create_project(request.user, form.save(commit=False))
        return redirect("prompts", project.slug)
    return render(request, "project/new.html", {"form": form})
