"""List of imports, and undoing one. For managers."""

from dataclasses import asdict

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from feedback import imports
from feedback.actions import members
from feedback.api import strict
from feedback.api.views import api_view
from feedback.models import Import

MAX_LISTED = 100


class ImportCounts(strict.Serializer):
    prompts = serializers.IntegerField()
    completions = serializers.IntegerField()
    comparisons = serializers.IntegerField()
    demonstrations = serializers.IntegerField(default=0, help_text="How many of the completions are demonstrations.")
    completed = serializers.IntegerField(help_text="Known prompts that got new external ids, references or metadata.")


class ImportSerializer(strict.ModelSerializer):
    actor = serializers.CharField(source="actor.username", default=None, allow_null=True)
    undone_by = serializers.CharField(source="undone_by.username", default=None, allow_null=True)
    counts = ImportCounts(help_text="Rows that the import made.")

    class Meta:
        model = Import
        fields = ("id", "how", "actor", "created_at", "counts", "undone_at", "undone_by")


class RemovedCounts(strict.Serializer):
    prompts = serializers.IntegerField()
    completions = serializers.IntegerField()
    comparisons = serializers.IntegerField()


class KeptSerializer(strict.Serializer):
    kind = serializers.CharField(help_text="comparisons, completions or prompts.")
    reason = serializers.CharField(help_text="ranked, skipped, answered, held, used, shared, answered or completed.")
    count = serializers.IntegerField()
    message = serializers.CharField(help_text="Kind, reason and count as a sentence.")


class UndoneImportSerializer(strict.Serializer):
    removed = RemovedCounts()
    stayed = KeptSerializer(many=True)


@extend_schema(operation_id="imports_list", responses=ImportSerializer(many=True))
@api_view(["GET"])
def import_list(request: Request, slug: str) -> Response:
    """List the last 100 imports, the newest first. For managers."""
    project = members.manager_of(request.user, slug).project
    return Response(ImportSerializer(imports.last_imports(project, MAX_LISTED), many=True).data)


@extend_schema(operation_id="imports_undo", responses={200: UndoneImportSerializer})
@api_view(["DELETE"])
def import_detail(request: Request, slug: str, import_id: int) -> Response:
    """Undo an import, except what is in use. For managers.

    Comparisons that nobody has ranked, skipped or leased are removed, then completions that nothing uses, then
    prompts without completions. The other rows stay; the answer gives the reasons.
    """
    membership = members.manager_of(request.user, slug)
    undone = imports.undo_import(imports.find_import(membership.project, import_id), membership.user)
    return Response(UndoneImportSerializer(asdict(undone)).data)
