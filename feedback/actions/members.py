"""Access to projects and changes of their members."""

from django.db import transaction
from django.db.models import Count, F, Max, Q, QuerySet
from django.utils.translation import gettext as _

from feedback import archive, audit, statements
from feedback.actions import second_factor
from feedback.errors import Conflict, Forbidden, NotFound
from feedback.models import Membership, Project, User

# Runs with every request.
MEMBERSHIP = f"""
    SELECT {statements.columns(Membership, "membership")}, {statements.columns(Project, "project")}
    FROM feedback_project AS project JOIN feedback_membership AS membership ON membership.project_id = project.id
    WHERE project.slug = %s AND membership.user_id = %s"""


def membership_of(user: User, slug: str) -> Membership:
    """Return the user's membership of a project, with the project loaded.

    Raises NotFound if there is none: users who are not members must not learn that the project exists. Raises Archived
    if the request would write to an archived project (see `archive.py`).
    """
    (row,) = statements.run(MEMBERSHIP, [slug, user.pk]) or (None,)
    if row is None:
        raise NotFound(_("You have no such project."))
    end = statements.width(Membership)
    membership = statements.build(Membership, row[:end])
    membership.user, membership.project = user, statements.build(Project, row[end:])
    archive.refuse_writing(membership.project)
    return membership


def manager_of(user: User, slug: str) -> Membership:
    """Return the user's membership of a project like `membership_of`; raise Forbidden unless it is a manager's.

    Raises SecondFactorNeeded if the installation demands a second factor of managers.
    """
    membership = membership_of(user, slug)
    if not membership.is_manager:
        raise Forbidden(_("Only the project's managers may open this page."))
    second_factor.check(user)
    return membership


def check_administrator(user: User, refusal: str) -> None:
    """Raise Forbidden with this sentence unless the user is an administrator, or SecondFactorNeeded."""
    if not user.is_staff:
        raise Forbidden(refusal)
    second_factor.check(user)


def reviewer_of(user: User, slug: str) -> Membership:
    """Return the user's membership of a project like `membership_of`; raise Forbidden unless they may review."""
    membership = membership_of(user, slug)
    if not membership.may_review:
        raise Forbidden(_("Only the project's reviewers and managers may do this."))
    return membership


def current_or_former_member(project: Project, user_id: int) -> User:
    """Return a user who is a member of the project, or who ranked in it and left."""
    is_or_was_member = Q(memberships__project=project) | Q(rankings__project=project)
    user = User.objects.filter(is_or_was_member, pk=user_id).first()
    if user is None:
        raise NotFound(_("This project has no member with that number."))
    return user


def members_of(project: Project) -> QuerySet[Membership]:
    """Return the memberships by username, with `ranking_count` (live rankings in the project) and `last_ranked_at`."""
    live_here = Q(user__rankings__project=F("project"), user__rankings__is_live=True)
    return (
        project.memberships.select_related("user")
        .annotate(
            ranking_count=Count("user__rankings", filter=live_here),
            last_ranked_at=Max("user__rankings__created_at", filter=live_here),
        )
        .order_by("user__username")
    )


def member_with_id(project: Project, user_id: int) -> Membership:
    """Return the membership of a user, with user and project loaded. Raises NotFound."""
    membership = project.memberships.select_related("user", "project").filter(user_id=user_id).first()
    if membership is None:
        raise NotFound(_("This person is not a member."))
    return membership


@transaction.atomic
def add_member(project: Project, username: str, role: str) -> Membership:
    """Make an active user a member. Raises NotFound for an unknown username, Conflict for a member."""
    user = User.objects.filter(username=username.strip(), is_active=True).first()
    if user is None:
        raise NotFound(
            _('There is no user with the name "%(username)s". An administrator can make the account.')
            % {"username": username.strip()}
        )
    membership, is_new = Membership.objects.get_or_create(project=project, user=user, defaults={"role": role})
    if not is_new:
        raise Conflict(_("%(user)s is a member already.") % {"user": user})
    audit.record("member.add", project, user, after={"role": role})
    return membership


@transaction.atomic
def change_role(project: Project, user_id: int, role: str) -> Membership:
    membership = _lock_member(project, user_id)
    if membership.is_manager and role != Membership.Role.MANAGER:
        _refuse_to_lose_last_manager(project)
    before, membership.role = membership.role, role
    membership.save(update_fields=["role"])
    audit.record("member.role", project, membership.user, before={"role": before}, after={"role": role})
    return membership


@transaction.atomic
def remove_member(project: Project, user_id: int) -> None:
    """End a membership. The member's rankings stay; a database trigger opens the slots of their leases."""
    membership = _lock_member(project, user_id)
    if membership.is_manager:
        _refuse_to_lose_last_manager(project)
    audit.record("member.remove", project, membership.user, before={"role": membership.role})
    membership.delete()


@transaction.atomic
def set_active(administrator: User, project: Project, user_id: int, active: bool) -> User:
    """Deactivate a member's account, or activate it again. Rankings stay; the leases go back (`freed_slots.sql`).

    Raises Forbidden for who is no administrator, or no superuser where the member is one; Conflict for oneself, and for
    the only active manager of a project.
    """
    check_administrator(administrator, _("Only administrators of this site may deactivate an account."))
    user = _lock_member(project, user_id).user
    if user == administrator:
        raise Conflict(_("You cannot deactivate your own account: ask another administrator."))
    if user.is_superuser and not administrator.is_superuser:
        raise Forbidden(_("Only superusers may deactivate a superuser."))
    if not active:
        _refuse_to_lose_active_managers(user)
    if user.is_active != active:
        user.is_active = active
        user.save(update_fields=["is_active"])
        audit.record("account.activate" if active else "account.deactivate", None, user)
    return user


def _refuse_to_lose_active_managers(user: User) -> None:
    for membership in user.memberships.filter(role=Membership.Role.MANAGER).select_related("project"):
        managers = membership.project.memberships.filter(role=Membership.Role.MANAGER, user__is_active=True)
        if not managers.exclude(user=user).exists():
            raise Conflict(
                _("%(user)s is the only manager of %(project)s: make somebody else a manager first.")
                % {"user": user, "project": membership.project}
            )


def _lock_member(project: Project, user_id: int) -> Membership:
    # All managers' rows are locked, in one order. Otherwise two managers could remove each other at the same time.
    list(project.memberships.filter(role=Membership.Role.MANAGER).order_by("pk").select_for_update())
    membership = project.memberships.select_related("user").filter(user_id=user_id).first()
    if membership is None:
        raise NotFound(_("This person is not a member."))
    return membership


def _refuse_to_lose_last_manager(project: Project) -> None:
    if project.memberships.filter(role=Membership.Role.MANAGER).count() == 1:
        raise Conflict(_("This is the project's only manager: make somebody else a manager first."))
