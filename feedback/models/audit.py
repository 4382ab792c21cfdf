"""Audit log: administrative acts, with the values before and after."""

from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from django.utils.translation import gettext_lazy as _

from feedback.models.people import Project, User


class AuditEntry(models.Model):
    """One act: who did what, when, to which object. A trigger refuses every change (feedback/sql/audit.sql).

    It outlives the account, the project and the object that it names, so it has no foreign keys in the database.
    """

    class Via(models.TextChoices):
        PAGE = "page", _("page")
        API = "api", _("API")
        COMMAND = "command", _("command line")
        WORKER = "worker", _("worker")
        SHELL = "shell", _("program")

    created_at = models.DateTimeField(auto_now_add=True)
    act = models.CharField(max_length=40, help_text="One of feedback.audit.ACTS.")
    via = models.CharField(max_length=7, choices=Via.choices)
    actor = models.ForeignKey(
        User, models.DO_NOTHING, null=True, db_constraint=False, db_index=False, related_name="+", help_text="A person."
    )
    actor_name = models.CharField(max_length=200, help_text='Username, or the name of a program, such as "gate".')
    token_name = models.CharField(max_length=100, blank=True, help_text="Name of the API token that was used.")
    project = models.ForeignKey(
        Project, models.DO_NOTHING, null=True, db_constraint=False, db_index=False, related_name="+"
    )
    project_slug = models.CharField(max_length=50, blank=True)
    object_type = models.CharField(max_length=40, blank=True, help_text="Such as round.")
    object_id = models.CharField(max_length=40, blank=True)
    object_name = models.CharField(max_length=300, blank=True)
    before = models.JSONField(default=dict, encoder=DjangoJSONEncoder)
    after = models.JSONField(default=dict, encoder=DjangoJSONEncoder)

    class Meta:
        verbose_name_plural = "audit entries"
        indexes = [
            models.Index(fields=["project", "-created_at", "-id"], name="audit_of_project"),
            models.Index(fields=["-created_at", "-id"], name="audit_of_site"),
            models.Index(fields=["actor"], name="audit_of_actor"),
        ]

    def __str__(self) -> str:
        return f"{self.actor_name}: {self.act} {self.object_name}"
