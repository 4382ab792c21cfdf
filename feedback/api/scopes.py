"""Scopes of API tokens: what a program may read or write with a token.

A scope is `<resource>:read` or `<resource>:write`. A GET needs the first, every other method the second; neither
includes the other. Each URL names its resource with `register`; a token with scopes is refused where none is named.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from rest_framework import permissions
from rest_framework.request import Request

from feedback.errors import Forbidden, NotFound
from feedback.models import ApiToken, Project

if TYPE_CHECKING:  # at run time a cycle, as in strict.py
    from rest_framework.views import APIView

CHAT = "chat"  # requests to a served checkpoint, see `manage.py serve`
# In the order of the account page.
SCOPES = {
    "preferences:read": gettext_lazy("Export preferences and demonstrations, read figures and ratings"),
    "prompts:read": gettext_lazy("Read prompts, completions, comparisons, rankings and imports"),
    "prompts:write": gettext_lazy("Add prompts, completions, comparisons and gold, undo imports"),
    "rankings:read": gettext_lazy("Read one's own rankings and figures"),
    "rankings:write": gettext_lazy("Rank, skip, undo"),
    "review:read": gettext_lazy("Read what waits for review"),
    "review:write": gettext_lazy("Review"),
    "rounds:read": gettext_lazy("Read rounds, checkpoints, trials and machines"),
    "rounds:write": gettext_lazy("Start and cancel rounds and trials, import and promote checkpoints"),
    "projects:read": gettext_lazy("Read projects, settings, members and invitations"),
    "projects:write": gettext_lazy("Make projects, change settings, members and invitations"),
    "webhooks:read": gettext_lazy("Read webhooks and their deliveries"),
    "webhooks:write": gettext_lazy("Make, change and test webhooks, deliver events again"),
    "audit:read": gettext_lazy("Read the audit log"),
    CHAT: gettext_lazy("Send requests to the served model"),
}
RESOURCES = {scope.partition(":")[0] for scope in SCOPES} - {CHAT}
UNRESTRICTED = "tokens"  # the resource of the tokens themselves: no scope opens it

_resources: dict[str, str] = {}  # by URL name


def register(resources: Mapping[str, tuple[str, ...]]) -> None:
    """Name the resource of URLs. resources: names of URLs by resource."""
    for resource, names in resources.items():
        assert resource in RESOURCES | {UNRESTRICTED}, resource
        _resources.update(dict.fromkeys(names, resource))


def scope_of(url_name: str | None, method: str) -> str | None:
    """Return the scope that a request needs; None if only a token without scopes may send it."""
    resource = _resources.get(url_name or "", UNRESTRICTED)
    scope = f"{resource}:{'read' if method in permissions.SAFE_METHODS else 'write'}"
    return scope if scope in SCOPES else None


class HasScope(permissions.BasePermission):
    """Permission that keeps a token to its scopes and projects. Sessions have neither."""

    def has_permission(self, request: Request, view: "APIView") -> bool:
        token, match = request.auth, request.resolver_match
        if not isinstance(token, ApiToken) or match is None:
            return True
        needed = scope_of(match.url_name, str(request.method))
        if token.scopes is not None and needed not in token.scopes:
            if needed is None:
                raise Forbidden(_("This token has scopes, and this address needs one without: use another token."))
            raise Forbidden(_('This token lacks the scope "%(scope)s": use another token.') % {"scope": needed})
        slug = match.kwargs.get("slug")
        if token.project_ids is None:
            return True
        if slug is None:
            if match.url_name == "api-projects" and request.method in permissions.SAFE_METHODS:
                return True  # the view lists the token's projects only
            raise Forbidden(_("This token is limited to some projects: use another token."))
        if not Project.objects.filter(slug=slug, pk__in=token.project_ids).exists():
            raise NotFound(_("You have no such project."))  # as for a project of which the user is no member
        return True
