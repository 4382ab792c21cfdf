"""Imports of files through maps, their reports, and undoing one. For managers."""

from dataclasses import asdict

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import parser_classes
from rest_framework.request import Request
from rest_framework.response import Response

from feedback import imports
from feedback.actions import members
from feedback.api import strict
from feedback.api.pages import ListQuery, as_page
from feedback.api.parsers import FILE, FileParser
from feedback.api.views import api_view
from feedback.imports import maps, uploads
from feedback.imports.loading import MAX_REPORTED
from feedback.models import Import

MAX_LISTED = 100


class ImportCounts(strict.Serializer):
    prompts = serializers.IntegerField(default=0)
    completions = serializers.IntegerField(default=0)
    comparisons = serializers.IntegerField(default=0)
    rankings = serializers.IntegerField(default=0)
    skips = serializers.IntegerField(default=0)
    gold = serializers.IntegerField(default=0, help_text="How many of the comparisons are gold.")
    demonstrations = serializers.IntegerField(default=0, help_text="How many of the completions are demonstrations.")
    completed = serializers.IntegerField(
        default=0, help_text="Known prompts that got new external ids, references or metadata."
    )


class RowErrorSerializer(strict.Serializer):
    line = serializers.IntegerField(help_text="Line, or number of the row, from 1.")
    field = serializers.CharField(default="", help_text="Column; empty: the whole row.")
    value = serializers.CharField(default="", help_text="The beginning of its value.")
    reason = serializers.CharField(default="")


class ReportSerializer(strict.Serializer):
    rows = serializers.IntegerField(default=0)
    imported = serializers.IntegerField(default=0, help_text="Rows that added something.")
    unchanged = serializers.IntegerField(default=0, help_text="Rows whose data was there already.")
    error_count = serializers.IntegerField(default=0)
    errors = RowErrorSerializer(many=True, default=list, help_text=f"The first {MAX_REPORTED}.")
    left_out = serializers.DictField(
        child=serializers.IntegerField(),
        default=dict,
        help_text="How often something was left out, such as a strength.",
    )
    stopped = serializers.CharField(default="", help_text="Why it ended early; empty: it did not.")


class ImportSerializer(strict.ModelSerializer):
    actor = serializers.CharField(source="actor.username", default=None, allow_null=True)
    undone_by = serializers.CharField(source="undone_by.username", default=None, allow_null=True)
    counts = ImportCounts(help_text="Rows that the import made.")
    map = serializers.CharField(source="map.name", default="", help_text="Name of the map that reads the file.")
    report = ReportSerializer(help_text="Results of the rows of a file, so far.")

    class Meta:
        model = Import
        fields = (
            *("id", "how", "actor", "created_at", "state", "file_name", "map", "done", "counts", "report"),
            *("undone_at", "undone_by"),
        )


class RemovedCounts(strict.Serializer):
    rankings = serializers.IntegerField(default=0)
    skips = serializers.IntegerField(default=0)
    prompts = serializers.IntegerField()
    completions = serializers.IntegerField()
    comparisons = serializers.IntegerField()


class KeptSerializer(strict.Serializer):
    kind = serializers.CharField(help_text="rankings, comparisons, completions or prompts.")
    reason = serializers.CharField(
        help_text="read, reviewed, ranked, skipped, answered, held, used, shared, answered or completed."
    )
    count = serializers.IntegerField()
    message = serializers.CharField(help_text="Kind, reason and count as a sentence.")


class UndoneImportSerializer(strict.Serializer):
    removed = RemovedCounts()
    stayed = KeptSerializer(many=True)


class LoadQuery(strict.Serializer):
    name = serializers.CharField(
        default="",
        allow_blank=True,
        max_length=200,
        help_text="Name of the file; its ending tells CSV from TSV and lines from an array.",
    )
    map = serializers.ChoiceField(
        choices=sorted(maps.shipped()), default=None, allow_null=True, help_text="Map of the file. Default: recognised."
    )
    judge = serializers.CharField(
        default="",
        allow_blank=True,
        max_length=200,
        help_text="Name of the imported person for judgements that name nobody. Default: the map's.",
    )
    compare = serializers.BooleanField(
        default=True, help_text="Make comparisons for annotators of rows without a judgement."
    )
    stop_at_error = serializers.BooleanField(
        default=False, help_text="Import what comes before the first row that cannot be imported, and stop there."
    )
    strict = serializers.BooleanField(
        default=False, help_text="Import nothing if a row is refused; for files of at most 128 KiB."
    )


@extend_schema(
    methods=["GET"], operation_id="imports_list", parameters=[ListQuery], responses=ImportSerializer(many=True)
)
@extend_schema(
    methods=["POST"],
    operation_id="imports_load",
    parameters=[LoadQuery],
    request={FILE: OpenApiTypes.BINARY},
    responses={201: ImportSerializer},
)
@api_view(["GET", "POST"], commits=True)
@parser_classes([FileParser])
def import_list(request: Request, slug: str) -> Response:
    """List the imports, newest first (100 without `limit`); import a file of any known format. For managers.

    The body of a POST is the file: JSON Lines, a JSON array, CSV, TSV or Parquet, plain, gzip or zstd. A small file is
    imported before the answer; a larger one is `waiting`, and imports/<import_id> has its progress.
    """
    membership = members.manager_of(request.user, slug)
    if request.method == "GET":
        rows = imports.imports_of(membership.project)
        return as_page(request, rows, ImportSerializer, key="pk", most=MAX_LISTED)
    query = strict.validated_query(LoadQuery, request)
    name, map_name = query.pop("name"), query.pop("map")
    made = maps.find(map_name) if map_name else None
    record = uploads.add_upload(
        membership.project,
        name,
        request.data,
        how=str(Import.How.API),
        actor=membership.user,
        made=made,
        must_fit=True,
    )
    return Response(ImportSerializer(uploads.start(record, **query)).data, status=201)


@extend_schema(methods=["GET"], operation_id="imports_read", responses=ImportSerializer)
@extend_schema(methods=["DELETE"], operation_id="imports_undo", responses={200: UndoneImportSerializer})
@api_view(["GET", "DELETE"])
def import_detail(request: Request, slug: str, import_id: int) -> Response:
    """Read an import with its report; undo it, except what is in use. For managers.

    Rankings that no export and no round has read are removed, others are withdrawn. Comparisons that nobody has ranked,
    skipped or leased are removed, then completions that nothing uses, then prompts without completions. The other rows
    stay; the answer gives the reasons.
    """
    membership = members.manager_of(request.user, slug)
    record = imports.find_import(membership.project, import_id)
    if request.method == "GET":
        return Response(ImportSerializer(record).data)
    return Response(UndoneImportSerializer(asdict(imports.undo_import(record, membership.user))).data)
