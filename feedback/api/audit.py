"""The audit log: of a project for its managers, of everything for administrators."""

from typing import Any

from django.utils.translation import gettext as _
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from feedback import audit
from feedback.actions import members
from feedback.api import strict
from feedback.api.views import api_view
from feedback.errors import Forbidden
from feedback.models import AuditEntry, Project
from feedback.reports import audit_log
from feedback.reports.data.pages import MAX_ROWS_PER_PAGE, ROWS_PER_PAGE

ACTS = sorted({*audit.ACTS} | {act.partition(".")[0] for act in audit.ACTS})


class AuditQuery(strict.Serializer):
    act = serializers.ChoiceField(
        choices=ACTS, default="", allow_blank=True, help_text="An act, or the acts on such things: `round`."
    )
    actor = serializers.CharField(default="", allow_blank=True, max_length=200, help_text="Name.")
    object_type = serializers.CharField(default="", allow_blank=True, max_length=40)
    object_id = serializers.CharField(default="", allow_blank=True, max_length=40)
    since = serializers.DateTimeField(default=None, allow_null=True)
    until = serializers.DateTimeField(default=None, allow_null=True, help_text="Not included.")
    cursor = serializers.CharField(default="", allow_blank=True, max_length=200, help_text="`next` of the page before.")
    limit = serializers.IntegerField(default=ROWS_PER_PAGE, min_value=1, max_value=MAX_ROWS_PER_PAGE)


class AuditEntrySerializer(strict.ModelSerializer):
    """An act. `before` and `after` have the values that it changed."""

    at = serializers.DateTimeField(source="created_at")
    actor = serializers.CharField(source="actor_name", help_text='Username, or a program such as "gate".')
    is_person = serializers.SerializerMethodField()
    token = serializers.CharField(source="token_name", help_text="Name of the API token that was used; or empty.")
    project = serializers.CharField(source="project_slug", help_text="Empty: it concerns no project.")
    before = serializers.DictField()
    after = serializers.DictField()

    class Meta:
        model = AuditEntry
        fields = (
            *("id", "at", "act", "actor", "is_person", "via", "token", "project"),
            *("object_type", "object_id", "object_name", "before", "after"),
        )

    def get_is_person(self, entry: AuditEntry) -> bool:
        return entry.actor_id is not None


class AuditPageSerializer(strict.Serializer):
    rows = AuditEntrySerializer(many=True)
    next = serializers.CharField(allow_null=True, help_text="Cursor of the next page; null: this is the last.")


@extend_schema(operation_id="audit_list", parameters=[AuditQuery], responses=AuditPageSerializer)
@api_view(["GET"])
def project_audit(request: Request, slug: str) -> Response:
    """List the administrative acts in a project, newest first. For managers."""
    return _page(members.manager_of(request.user, slug).project, request)


@extend_schema(operation_id="audit_list_all", parameters=[AuditQuery], responses=AuditPageSerializer)
@api_view(["GET"])
def site_audit(request: Request) -> Response:
    """List all administrative acts, newest first. For administrators."""
    if not request.user.is_staff:
        raise Forbidden(_("Only administrators of this site may read its audit log."))
    return _page(None, request)


def _page(project: Project | None, request: Request) -> Response:
    values: dict[str, Any] = strict.validated_query(AuditQuery, request)
    cursor, size = values.pop("cursor"), values.pop("limit")
    page = audit_log.read(project, audit_log.AuditFilters(**values), cursor=cursor, size=size)
    return Response({"rows": AuditEntrySerializer(page.entries, many=True).data, "next": page.next or None})
