"""The page behind an invitation's link: make an account, or join with the account that is signed in."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from feedback.actions import invitations
from feedback.errors import Conflict
from feedback.models import Membership
from feedback.web.accounts.sign_in import sign_in
from feedback.web.forms import JoinForm


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def join(request: HttpRequest, key: str) -> HttpResponse:
    """Show the form, or join. A new member goes on to the ranking page at once; a manager to the first page."""
    invitation = invitations.find_open(key)
    is_known = request.user.is_authenticated
    if is_known and request.method == "POST":
        membership = invitations.join(key, request.user)
        _welcome(request, membership)
        return redirect(_first_page(membership))
    form = None if is_known else JoinForm(request.POST or None)
    if form is not None and request.method == "POST" and form.is_valid():
        try:
            fields = form.cleaned_data
            membership = invitations.join_as_new_user(key, fields["username"], fields["password1"])
        except invitations.Ended:
            raise
        except Conflict as refusal:
            form.add_error("username", refusal.message)
        else:
            response = sign_in(request, membership.user, "password", _first_page(membership))
            _welcome(request, membership)
            return response
    return render(request, "join.html", {"invitation": invitation, "form": form, "key": key})


def _welcome(request: HttpRequest, membership: Membership) -> None:
    messages.success(request, _("Welcome to %(project)s.") % {"project": membership.project})


def _first_page(membership: Membership) -> str:
    return reverse("home") if membership.is_manager else reverse("rank", args=[membership.project.slug])
