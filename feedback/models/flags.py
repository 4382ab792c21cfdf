"""Flags: labels that annotators put on rankings, and their meaning for training."""

from collections.abc import Sequence

from django.db.models import Q

from feedback.models.people import Project

ALL_BAD, ALL_GOOD = "all bad", "all good"  # flags that every project has


def flags_of(project: Project) -> list[str]:
    """Return every flag that an annotator of the project may set."""
    return [ALL_BAD, ALL_GOOD, *project.flags, *project.information_flags, *project.review_flags]


def trainable_flags(project: Project) -> list[str]:
    """Return the flags with which a ranking is still trained on.

    Any other flag means "not for training", also one that was removed from the project's settings since.
    """
    return [ALL_BAD, ALL_GOOD, *project.information_flags, *project.review_flags]


def is_trainable(project: Project, flags: Sequence[str]) -> bool:
    """Return whether no flag of a ranking means "not for training"."""
    return set(flags).issubset(trainable_flags(project))


def trainable(project: Project) -> Q:
    """Return the condition on rankings that no flag means "not for training"."""
    return Q(flags__contained_by=trainable_flags(project))
