"""Imports: rows that were added together and can be undone together."""

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from feedback.models.people import Project, User


class Import(models.Model):
    """One upload. The rows that it made refer to it by `made_by_import`.

    A file that a worker imports is stored until the end (`stored_as`). It is `draft` while a manager looks at its first
    rows, `waiting` for a worker, `running`, and then `finished` or `failed`. Other imports are finished at once.
    """

    class How(models.TextChoices):
        PAGE = "page", _("page")
        API = "api", _("API")
        COMMAND = "command", _("command line")

    class State(models.TextChoices):
        DRAFT = "draft", _("not imported yet")
        WAITING = "waiting", _("waiting")
        RUNNING = "running", _("running")
        FINISHED = "finished", _("finished")
        FAILED = "failed", _("failed")

    project = models.ForeignKey(Project, models.CASCADE, related_name="imports", db_index=False)
    actor = models.ForeignKey(
        User, models.SET_NULL, null=True, blank=True, related_name="+", help_text="Null for the command line."
    )
    how = models.CharField(max_length=7, choices=How.choices)
    counts = models.JSONField(
        default=dict,
        help_text="Numbers of rows that the import added, by kind; `completed`: prompts that it added details to.",
    )
    state = models.CharField(
        max_length=8, choices=State.choices, default=State.FINISHED, db_default="finished", editable=False
    )
    file_name = models.CharField(max_length=200, blank=True, db_default="", editable=False)
    stored_as = models.CharField(
        max_length=100,
        blank=True,
        db_default="",
        editable=False,
        help_text="Name of the file in the folder of uploads.",
    )
    map = models.JSONField(default=dict, db_default={}, editable=False, help_text="The column map, as TOML has it.")
    options = models.JSONField(default=dict, db_default={}, editable=False, help_text="What the manager chose.")
    done = models.FloatField(default=0, db_default=0, editable=False, help_text="Share of the file that was read.")
    report = models.JSONField(
        default=dict, db_default={}, editable=False, help_text="Rows, imported, unchanged, left out and errors by line."
    )
    heartbeat_at = models.DateTimeField(null=True, editable=False, help_text="When the worker last wrote a batch.")
    created_at = models.DateTimeField(auto_now_add=True)
    undone_at = models.DateTimeField(null=True, blank=True)
    undone_by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(how__in=["page", "api", "command"]), name="import_how"),
            models.CheckConstraint(
                condition=Q(state__in=["draft", "waiting", "running", "finished", "failed"]), name="import_state"
            ),
            models.CheckConstraint(
                condition=Q(undone_at__isnull=False) | Q(undone_by__isnull=True), name="import_undone_at_some_time"
            ),
        ]
        indexes = [
            models.Index(fields=["project", "-id"], name="import_newest"),
            models.Index(
                fields=["state"], name="import_to_run", condition=Q(state__in=["draft", "waiting", "running"])
            ),
        ]

    def __str__(self) -> str:
        return f"import {self.pk}"
