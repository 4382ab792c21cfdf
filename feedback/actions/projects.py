"""Creating projects and changing their settings."""

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils.translation import gettext as _

from feedback import audit
from feedback.errors import Conflict, Invalid
from feedback.models import Membership, Project, User

# The others are state, such as the share of the open trial: it may have changed since the project was read.
EDITABLE = [field.name for field in Project._meta.concrete_fields if field.editable and not field.primary_key]


@transaction.atomic
def create_project(owner: User, project: Project) -> Project:
    """Save a new project with its creator as its first manager. Raises Conflict if its slug is taken, or Invalid."""
    _check(project)
    try:
        # A savepoint: the query in the handler would fail in the transaction that the constraint has aborted.
        with transaction.atomic():
            project.save()
    except IntegrityError as error:
        if not Project.objects.filter(slug=project.slug).exists():
            raise
        raise Conflict(
            _('There is a project "%(slug)s" already: choose another address.') % {"slug": project.slug}
        ) from error
    Membership.objects.create(project=project, user=owner, role=Membership.Role.MANAGER)
    audit.record("project.create", project, project, after=audit.values_of(project, EDITABLE), actor=owner)
    return project


@transaction.atomic
def save_settings(project: Project) -> None:
    """Store changed settings. They apply to comparisons and leases made from now on. Raises Invalid."""
    _check(project)
    before = audit.stored_values_of(project, EDITABLE)
    project.save(update_fields=EDITABLE)
    audit.record("project.settings", project, project, before=before, after=audit.values_of(project, EDITABLE))


def _check(project: Project) -> None:
    """Raise Invalid if settings contradict each other."""
    try:
        project.clean()
    except ValidationError as error:
        raise Invalid(" ".join(error.messages)) from error
