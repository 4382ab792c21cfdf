"""Roles that single sign-on gives: at each sign-in they become what the provider says."""

from collections.abc import Iterable, Mapping
from typing import Any

from django.db import transaction

from feedback import audit
from feedback.actions import members
from feedback.errors import Conflict
from feedback.models import Membership, Project, User

RANKS: dict[str, int] = {"annotator": 1, "reviewer": 2, "manager": 3}


def values_of(claims: Mapping[str, Any], claim: str) -> set[str]:
    """Return the values of a claim: a text, or a list of texts. "a.b" is the claim b within the claim a.

    What the provider's userinfo lacks is taken from the ID token.
    """
    sources = [claims.get("userinfo") or {}, claims.get("id_token") or {}, claims]
    for source in sources:
        value: Any = source
        for part in [claim] if isinstance(source, Mapping) and claim in source else claim.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is not None:
            return {str(one) for one in value} if isinstance(value, list | tuple) else {str(value)}
    return set()


@transaction.atomic
def apply(user: User, provider: Mapping[str, Any], claims: Mapping[str, Any]) -> None:
    """Make the person's roles those of the claim, in the projects that the provider's map names.

    The highest role counts. Without a matching value the membership ends; a project keeps its last manager. Other
    projects stay as they are, and so do superusers.
    """
    values = values_of(claims, provider["claim"]) if provider["claim"] else set()
    if provider["administrators"] and not user.is_superuser:
        before, user.is_staff = user.is_staff, bool(values & set(provider["administrators"]))
        if user.is_staff != before:
            user.save(update_fields=["is_staff"])
            was, becomes = {"is_staff": before}, {"is_staff": user.is_staff}
            audit.record("account.profile", None, user, before=was, after=becomes, actor=user)
    mapped: dict[str, list[str]] = {}
    for one in provider["roles"]:
        mapped.setdefault(one["project"], []).extend([one["role"]] if one["value"] in values else [])
    for project in Project.objects.filter(slug__in=mapped, archived_at=None).order_by("pk"):
        _set_role(user, project, mapped[project.slug])


def _set_role(user: User, project: Project, roles: Iterable[str]) -> None:
    role = max(roles, key=lambda one: RANKS[one], default=None)
    membership = Membership.objects.filter(user=user, project=project).first()
    try:
        if membership is None:
            if role is not None:
                members.add_member(project, user.get_username(), role)
        elif role is None:
            members.remove_member(project, user.pk)
        elif membership.role != role:
            members.change_role(project, user.pk, role)
    except Conflict:  # the project's only manager
        return
