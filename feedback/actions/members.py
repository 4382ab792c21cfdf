"""Who belongs to a project, and with which role; and the keys people hold to the API."""

from django.db import IntegrityError, transaction
from django.db.models import Count, F, Max, Q, QuerySet
from django.utils.translation import gettext as _

from feedback import archive, statements
from feedback.errors import Conflict, Forbidden, NotFound
from feedback.models import ApiToken, Membership, Project, User

# Asked with every request.
PLACE = f"""
    SELECT {statements.columns(Membership, "membership")}, {statements.columns(Project, "project")}
    FROM feedback_project AS project JOIN feedback_membership AS membership ON membership.project_id = project.id
    WHERE project.slug = %s AND membership.user_id = %s"""


def membership_of(user: User, slug: str) -> Membership:
    """This person's place in a project. Strangers learn nothing: not even that the project exists.

    Raises Archived where the request would write to an archived project: see archive.py.
    """
    (row,) = statements.run(PLACE, [slug, user.pk]) or (None,)
    if row is None:
        raise NotFound(_("There is no such project among yours."))
    end = statements.width(Membership)
    membership = statements.build(Membership, row[:end])
    membership.user, membership.project = user, statements.build(Project, row[end:])
    archive.refuse_writing(membership.project)
    return membership


def manager_of(user: User, slug: str) -> Membership:
    membership = membership_of(user, slug)
    if not membership.is_manager:
        raise Forbidden(_("Only the project's managers may open this page."))
    return membership


def reviewer_of(user: User, slug: str) -> Membership:
    membership = membership_of(user, slug)
    if not membership.may_review:
        raise Forbidden(_("Only the project's reviewers and managers may do this."))
    return membership


def member_named(project: Project, user_id: int) -> User:
    """Somebody who belongs to the project, or has ranked in it before they left."""
    found = User.objects.filter(Q(memberships__project=project) | Q(rankings__project=project), pk=user_id).first()
    if found is None:
        raise NotFound(_("There is nobody of that number in this project."))
    return found


def members_of(project: Project) -> QuerySet[Membership]:
    """The members by name, with `ranking_count` (live ones in this project) and `last_ranked_at`."""
    here = Q(user__rankings__project=F("project"), user__rankings__is_live=True)
    return (
        project.memberships.select_related("user")
        .annotate(
            ranking_count=Count("user__rankings", filter=here),
            last_ranked_at=Max("user__rankings__created_at", filter=here),
        )
        .order_by("user__username")
    )


def save_settings(project: Project) -> None:
    """Store a project's changed settings. They hold for what comes in from now on."""
    project.save()


@transaction.atomic
def create_project(owner: User, project: Project) -> Project:
    """Save a new project, with its creator as its first manager. Raises Conflict if its slug is taken."""
    try:
        with transaction.atomic():
            project.save()
    except IntegrityError as error:
        if not Project.objects.filter(slug=project.slug).exists():
            raise
        raise Conflict(
            _('There is a project "%(slug)s" already: choose another address.') % {"slug": project.slug}
        ) from error
    Membership.objects.create(project=project, user=owner, role=Membership.Role.MANAGER)
    return project


@transaction.atomic
def add_member(project: Project, username: str, role: str) -> Membership:
    user = User.objects.filter(username=username.strip(), is_active=True).first()
    if user is None:
        raise NotFound(
            _("Nobody here has the user name «%(username)s». An administrator can make the account.")
            % {"username": username.strip()}
        )
    membership, is_new = Membership.objects.get_or_create(project=project, user=user, defaults={"role": role})
    if not is_new:
        raise Conflict(_("%(user)s is a member already.") % {"user": user})
    return membership


@transaction.atomic
def change_role(project: Project, user_id: int, role: str) -> Membership:
    membership = _locked(project, user_id)
    if membership.is_manager and role != Membership.Role.MANAGER:
        _refuse_to_lose_last_manager(project)
    membership.role = role
    membership.save(update_fields=["role"])
    return membership


@transaction.atomic
def remove_member(project: Project, user_id: int) -> None:
    """End a membership. The person's rankings stay, and what they hold goes to others (a trigger sees to it)."""
    membership = _locked(project, user_id)
    if membership.is_manager:
        _refuse_to_lose_last_manager(project)
    membership.delete()


def revoke_token(user: User, token_id: int) -> None:
    deleted, _by_table = ApiToken.objects.filter(user=user, pk=token_id).delete()
    if not deleted:
        raise NotFound(_("This token is gone already."))


def _locked(project: Project, user_id: int) -> Membership:
    # All managers' rows are locked in one order, so that two of them cannot remove each other at once.
    list(project.memberships.filter(role=Membership.Role.MANAGER).order_by("pk").select_for_update())
    membership = project.memberships.select_related("user").filter(user_id=user_id).first()
    if membership is None:
        raise NotFound(_("This person is not a member."))
    return membership


def _refuse_to_lose_last_manager(project: Project) -> None:
    if project.memberships.filter(role=Membership.Role.MANAGER).count() == 1:
        raise Conflict(_("This is the project's only manager: make somebody else a manager first."))
