"""Functions that the management commands share."""

from django.core.management.base import CommandError

from feedback.models import Project


def find_project(slug: str) -> Project:
    """Return the project of this slug. Raises CommandError."""
    project = Project.objects.filter(slug=slug).first()
    if project is None:
        raise CommandError(f'There is no project "{slug}".')
    return project
