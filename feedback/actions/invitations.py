"""Invitations: a manager makes a link, and a person who opens it makes an account and is a member."""

import secrets
from datetime import timedelta

from django.contrib.auth.hashers import make_password
from django.db import transaction
from django.db.models import QuerySet, TextChoices
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from feedback import audit
from feedback.actions.tokens import digest_of
from feedback.errors import Conflict, NotFound
from feedback.models import Invitation, Membership, Project, User

LASTS = timedelta(days=7)
MAX_PLACES = 1000


class State(TextChoices):
    """The state of an invitation: open, or the reason why it cannot be used."""

    OPEN = "open", gettext_lazy("open")
    USED = "used", gettext_lazy("used")
    EXPIRED = "expired", gettext_lazy("expired")
    WITHDRAWN = "withdrawn", gettext_lazy("withdrawn")
    ARCHIVED = "archived", gettext_lazy("project archived")


class Ended(Conflict):
    """An invitation that nobody can use any more."""

    status = 410
    code = "gone"


@transaction.atomic
def invite(manager: Membership, role: str, name: str = "", places: int = 1) -> tuple[Invitation, str]:
    """Return a new invitation to the manager's project and its key, which cannot be shown again."""
    key = secrets.token_urlsafe(24)
    invitation = Invitation.objects.create(
        project=manager.project,
        role=role,
        name=name.strip(),
        digest=digest_of(key),
        places=places,
        made_by=manager.user,
        expires_at=timezone.now() + LASTS,
    )
    audit.record(
        "invitation.create", manager.project, invitation, after=audit.values_of(invitation, ["role", "name", "places"])
    )
    return invitation, key


def invitations_of(project: Project) -> QuerySet[Invitation]:
    """Return the project's invitations, the newest first."""
    return project.invitations.select_related("made_by", "project").order_by("-pk")


def state_of(invitation: Invitation) -> State:
    """Return whether the invitation can be used, and if not, why."""
    ends = {
        State.WITHDRAWN: invitation.revoked_at is not None,
        State.USED: invitation.used >= invitation.places,
        State.EXPIRED: invitation.expires_at <= timezone.now(),
        State.ARCHIVED: invitation.project.archived_at is not None,
    }
    return next((State(state) for state, is_so in ends.items() if is_so), State(State.OPEN))


def find_open(key: str) -> Invitation:
    """Return the invitation with this key, its project loaded. Raises NotFound, or Ended if it cannot be used."""
    invitation = Invitation.objects.select_related("project").filter(digest=digest_of(key)).first()
    if invitation is None:
        raise NotFound(_("This invitation does not exist: check that the link is complete."))
    sentences = {
        State.WITHDRAWN: _("This invitation was withdrawn: ask the person who sent it for a new one."),
        State.USED: _("This invitation has been used: ask the person who sent it for a new one."),
        State.EXPIRED: _("This invitation has expired: ask the person who sent it for a new one."),
        State.ARCHIVED: _("This project is archived: nobody can join it any more."),
    }
    if (state := state_of(invitation)) != State.OPEN:
        raise Ended(sentences[state])
    return invitation


@transaction.atomic
def join(key: str, user: User) -> Membership:
    """Make a user a member. Raises NotFound, Ended, or Conflict for a member, who uses no place."""
    invitation = _lock(key)
    membership, is_new = Membership.objects.get_or_create(
        project=invitation.project, user=user, defaults={"role": invitation.role}
    )
    if not is_new:
        raise Conflict(_("You are a member of this project already."))
    _use(invitation, user)
    return membership


@transaction.atomic
def join_as_new_user(key: str, username: str, password: str) -> Membership:
    """Make an account with this password and make it a member. The caller has checked both.

    Raises NotFound, Ended, or Conflict if the name has been taken meanwhile.
    """
    encoded = make_password(password)  # a tenth of a second: not while the invitation is locked
    invitation = _lock(key)
    user, is_new = User.objects.get_or_create(username=username, defaults={"password": encoded})
    if not is_new:
        raise Conflict(_("Somebody has this name already: choose another."))
    membership = Membership.objects.create(project=invitation.project, user=user, role=invitation.role)
    _use(invitation, user)
    return membership


def find_invitation(project: Project, invitation_id: int) -> Invitation:
    """Return an invitation of the project. Raises NotFound."""
    invitation = invitations_of(project).filter(pk=invitation_id).first()
    if invitation is None:
        raise NotFound(_("This project has no such invitation."))
    return invitation


@transaction.atomic
def revoke(project: Project, invitation_id: int) -> None:
    """End an invitation. Those who have joined stay. Raises NotFound."""
    revoked = project.invitations.filter(pk=invitation_id, revoked_at=None).update(revoked_at=timezone.now())
    invitation = project.invitations.filter(pk=invitation_id).first()
    if invitation is None:
        raise NotFound(_("This project has no such invitation."))
    if revoked:
        audit.record("invitation.withdraw", project, invitation, after={"revoked_at": invitation.revoked_at})


def _lock(key: str) -> Invitation:
    find_open(key)
    list(Invitation.objects.filter(digest=digest_of(key)).select_for_update())
    return find_open(key)


def _use(invitation: Invitation, user: User) -> None:
    invitation.used += 1
    invitation.save(update_fields=["used"])
    values = {"role": invitation.role, "invitation": invitation.pk}
    audit.record("invitation.use", invitation.project, user, after=values, actor=user)
