"""Imports: rows that were added together and can be undone together."""

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from feedback.models.people import Project, User


class Import(models.Model):
    """One upload. The prompts, completions and comparisons that it made refer to it by `made_by_import`."""

    class How(models.TextChoices):
        PAGE = "page", _("page")
        API = "api", _("API")
        COMMAND = "command", _("command line")

    project = models.ForeignKey(Project, models.CASCADE, related_name="imports", db_index=False)
    actor = models.ForeignKey(
        User, models.SET_NULL, null=True, blank=True, related_name="+", help_text="Null for the command line."
    )
    how = models.CharField(max_length=7, choices=How.choices)
    counts = models.JSONField(
        default=dict,
        help_text="Numbers of rows that the import added, by kind; `completed`: prompts that it added details to.",
    )
    created_at = models.DateTimeField(auto_now_add=True)
    undone_at = models.DateTimeField(null=True, blank=True)
    undone_by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(how__in=["page", "api", "command"]), name="import_how"),
            models.CheckConstraint(
                condition=Q(undone_at__isnull=False) | Q(undone_by__isnull=True), name="import_undone_at_some_time"
            ),
        ]
        indexes = [models.Index(fields=["project", "-id"], name="import_newest")]

    def __str__(self) -> str:
        return f"import {self.pk}"
