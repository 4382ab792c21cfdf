"""Imports of prompts, completions and comparisons, and exports, all as JSON Lines. For managers."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import Any

from django.db.models import Count, Max, QuerySet
from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.decorators import parser_classes
from rest_framework.request import Request
from rest_framework.response import Response

from feedback import imports
from feedback.actions import members
from feedback.api import strict
from feedback.api.parsers import JsonLinesParser
from feedback.api.views import api_view
from feedback.export.demonstrations import demonstrations, imitable
from feedback.export.files import GZIP, JSON_LINES, KINDS, MEDIA_TYPES, encoded
from feedback.export.formats import registry
from feedback.export.responses import download
from feedback.export.skips import skips
from feedback.models import Import, Project, Skip
from feedback.reports import preference_export

IMPORT_ID_HELP = "DELETE imports/<import_id> undoes the import; null: nothing was new."
AGAIN_HELP = "Make a comparison even where the same completions have one."


class PromptsQuery(strict.Serializer):
    compare = serializers.BooleanField(default=True, help_text="Make a comparison of each line's completions.")
    again = serializers.BooleanField(default=False, help_text=AGAIN_HELP)


class PromptsResponse(strict.Serializer):
    prompt_ids = serializers.ListField(child=serializers.IntegerField(), help_text="Aligned with the lines.")
    created = serializers.IntegerField(help_text="Number of new prompts.")
    changed = serializers.IntegerField(
        help_text="Number of known prompts that got new external ids, references or metadata."
    )
    completion_ids = serializers.ListField(
        child=serializers.ListField(child=serializers.IntegerField()),
        help_text="Aligned with the lines and their completions.",
    )
    comparison_ids = serializers.ListField(
        child=serializers.IntegerField(allow_null=True), help_text="Aligned with the lines; null: no comparison."
    )
    import_id = serializers.IntegerField(allow_null=True, help_text=IMPORT_ID_HELP)
    comparisons = serializers.IntegerField(help_text="Number of new comparisons.")
    compared_before = serializers.IntegerField(help_text="Number of lines whose completions had a comparison already.")


class CompletionsQuery(strict.Serializer):
    source = serializers.CharField(max_length=200, help_text="Name of the source of all completions in the body.")


class CompletionsResponse(strict.Serializer):
    completion_ids = serializers.ListField(child=serializers.IntegerField(), help_text="Aligned with the lines.")
    import_id = serializers.IntegerField(allow_null=True, help_text=IMPORT_ID_HELP)


class ComparisonsQuery(strict.Serializer):
    wanted_rankings = serializers.IntegerField(
        default=None,
        allow_null=True,
        min_value=1,
        max_value=100,
        help_text="Rankings wanted of each comparison. Default: the project's setting.",
    )
    priority = serializers.IntegerField(
        default=0, min_value=-32768, max_value=32767, help_text="Higher priority is served first."
    )
    again = serializers.BooleanField(default=False, help_text=AGAIN_HELP)


class ComparisonsResponse(strict.Serializer):
    comparison_ids = serializers.ListField(
        child=serializers.IntegerField(allow_null=True),
        help_text="Aligned with the lines; null where fewer than two texts differ.",
    )
    import_id = serializers.IntegerField(allow_null=True, help_text=IMPORT_ID_HELP)


class GoldResponse(strict.Serializer):
    comparison_ids = serializers.ListField(child=serializers.IntegerField(), help_text="Aligned with the lines.")
    import_id = serializers.IntegerField(allow_null=True, help_text=IMPORT_ID_HELP)


class FormatField(serializers.ChoiceField):
    """Name of a registered export format.

    Serializers copy their fields by constructing them again, so the choices are those registered at that time.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(choices=registry.names(), **kwargs)


class FlaggedQuery(strict.Serializer):
    include_flagged = serializers.BooleanField(
        default=False, help_text='Include what has a flag that means "not for training".'
    )


class ExportQuery(FlaggedQuery):
    format = FormatField(default=preference_export.DEFAULT_FORMAT, help_text=f"One line is {registry.descriptions()}")
    after = serializers.IntegerField(
        default=0,
        min_value=0,
        max_value=strict.MAX_BIGINT,
        help_text="Cursor of an earlier export: return only later rankings.",
    )
    until = serializers.IntegerField(
        default=None,
        allow_null=True,
        min_value=0,
        max_value=strict.MAX_BIGINT,
        help_text="Cursor of an earlier export: return the rankings as they were then. Default: now.",
    )
    split = serializers.ChoiceField(
        choices=preference_export.SPLITS,
        default=None,
        allow_null=True,
        help_text=registry.split_default(),
    )
    weights = serializers.ChoiceField(
        choices=preference_export.WEIGHTS,
        default=None,
        allow_null=True,
        help_text="Weight of a ranking; resample repeats rankings instead. Default: the project's setting.",
    )
    reliability_as_of = serializers.IntegerField(
        default=None,
        allow_null=True,
        min_value=0,
        max_value=strict.MAX_BIGINT,
        help_text="Use the reliability report that Accord-Reliability-As-Of named. Default: the latest up to `until`.",
    )
    ties = serializers.ChoiceField(
        choices=preference_export.TIES,
        default=None,
        allow_null=True,
        help_text="Write ties as rows, or omit them. In formats of pairs a tie is a row in both orders with half the "
        "weight. Default: the format's.",
    )
    file = serializers.ChoiceField(
        choices=KINDS,
        default="jsonl",
        help_text="Kind of file. csv and parquet: formats whose columns have fixed types.",
    )
    gzip = serializers.BooleanField(
        default=False, help_text="Compress JSON Lines or CSV: a file whose name ends with .gz."
    )
    aggregated = serializers.BooleanField(default=False, help_text="One ranking a comparison: the annotators' votes.")
    annotator = serializers.CharField(
        default="", allow_blank=True, max_length=150, help_text="Only rankings of this person: username or pseudonym."
    )
    source = serializers.CharField(
        default="", allow_blank=True, max_length=200, help_text="Only comparisons with a completion of this source."
    )
    round = serializers.IntegerField(
        default=None,
        allow_null=True,
        min_value=1,
        max_value=strict.MAX_BIGINT,
        help_text="Only comparisons with a completion that this round wrote.",
    )
    tag = serializers.CharField(
        default="", allow_blank=True, max_length=200, help_text='Only prompts whose metadata has this tag in "tags".'
    )
    imported = serializers.BooleanField(
        default=None, allow_null=True, help_text="true: only imported rankings. false: only rankings made here."
    )
    min_agreement = serializers.FloatField(
        default=None,
        allow_null=True,
        min_value=0,
        max_value=1,
        help_text="Only comparisons whose annotators agree at least this much; two or more must have ranked.",
    )
    min_reliability = serializers.FloatField(
        default=None,
        allow_null=True,
        min_value=0,
        max_value=1,
        help_text="Only annotators of at least this reliability.",
    )


def _takes_lines(operation: str, query: type[serializers.Serializer], response: type[serializers.Serializer]) -> Any:
    return extend_schema(
        operation_id=operation,
        parameters=[query],
        request={JSON_LINES: OpenApiTypes.BINARY},
        responses={201: response},
    )


@_takes_lines("prompts_add", PromptsQuery, PromptsResponse)
@api_view(["POST"])
@parser_classes([JsonLinesParser])
def prompt_list(request: Request, slug: str) -> Response:
    """Add prompts, all or none.

    Each line is a JSON object with `messages` or `prompt`, and optionally `external_id`, `references`, `metadata` and
    `completions`, of which a comparison is made. A prompt that exists already gets the line's new references, metadata
    and external id. The same lines sent again change nothing.
    """
    project = members.manager_of(request.user, slug).project
    query = strict.validated_query(PromptsQuery, request)
    with _recorded_import(request, project) as record:
        added = asdict(imports.add_prompts(project, _rows(request), made_by_import=record, **query))
    del added["news"]
    return Response(added | {"comparisons": added.pop("compared"), "import_id": record.pk}, status=201)


@_takes_lines("completions_add", CompletionsQuery, CompletionsResponse)
@api_view(["POST"])
@parser_classes([JsonLinesParser])
def completion_list(request: Request, slug: str) -> Response:
    """Add completions by one source, all or none.

    Each line is a JSON object with `prompt_id` or `external_id`, `text` or the `turns` of a dialogue (messages, from
    the assistant's first to its last), and optionally `sampling` and `demonstration` (true: the model is to imitate
    it).
    """
    project = members.manager_of(request.user, slug).project
    source = strict.validated_query(CompletionsQuery, request)["source"]
    with _recorded_import(request, project) as record:
        ids = imports.import_completions(project, source, _rows(request), made_by_import=record)
    return Response({"completion_ids": ids, "import_id": record.pk}, status=201)


@_takes_lines("comparisons_add", ComparisonsQuery, ComparisonsResponse)
@api_view(["POST"])
@parser_classes([JsonLinesParser])
def comparison_list(request: Request, slug: str) -> Response:
    """Make comparisons, all or none. Each line is `{"completion_ids": [2 to 9 ids]}`.

    Where the same texts have a comparison already, its id is returned, unless `again` is true.
    """
    project = members.manager_of(request.user, slug).project
    query = strict.validated_query(ComparisonsQuery, request)
    groups = imports.read_all(_rows(request), imports.read_group)
    with _recorded_import(request, project) as record:
        compared = imports.add_comparisons(project, groups, made_by_import=record, **query)
    return Response({"comparison_ids": compared.ids, "import_id": record.pk}, status=201)


@extend_schema(operation_id="gold_add", request={JSON_LINES: OpenApiTypes.BINARY}, responses={201: GoldResponse})
@api_view(["POST"])
@parser_classes([JsonLinesParser])
def gold_list(request: Request, slug: str) -> Response:
    """Make gold comparisons, all or none. Each line is `{"completion_ids": [...], "ranks": [...]}`, aligned.

    Gold tests annotators, who cannot distinguish it from other comparisons. No export of preferences contains it.
    """
    project = members.manager_of(request.user, slug).project
    with _recorded_import(request, project) as record:
        ids = imports.add_gold(project, _rows(request), made_by_import=record)
    return Response({"comparison_ids": ids, "import_id": record.pk}, status=201)


@extend_schema(
    operation_id="preferences_export",
    parameters=[
        ExportQuery,
        OpenApiParameter(
            "Accord-Reliability-As-Of",
            str,
            OpenApiParameter.HEADER,
            response=[200],
            description="Reliability report of the weights. Send it as `reliability_as_of` to get the same weights.",
        ),
        OpenApiParameter(
            "Accord-Cursor",
            str,
            OpenApiParameter.HEADER,
            response=[200],
            description="Send it as `after` to get only later rankings.",
        ),
        OpenApiParameter(
            "ETag",
            str,
            OpenApiParameter.HEADER,
            response=[200],
            description="If sent back as If-None-Match, the response is 304 while the lines are unchanged.",
        ),
        OpenApiParameter(
            "Want-Repr-Digest",
            str,
            OpenApiParameter.HEADER,
            description="With HEAD: `sha-256=1` asks for the SHA-256 of the file (RFC 9530), which reads all of it.",
        ),
        OpenApiParameter(
            "Repr-Digest",
            str,
            OpenApiParameter.HEADER,
            response=[200],
            description="SHA-256 of the file, base64 between colons; only in the answer to HEAD with Want-Repr-Digest.",
        ),
    ],
    responses={
        (200, media_type.partition(";")[0]): OpenApiTypes.BINARY for media_type in (*MEDIA_TYPES.values(), GZIP)
    },
)
@api_view(["GET"])
def preference_list(request: Request, slug: str) -> HttpResponseBase:
    """Export the rankings of the project as a file, in the order of the record. For managers.

    Ties are in `rankings` and `table`; `trl` leaves them out. With `after`, a line replaces earlier lines of the same
    `comparison_id` and `annotator` with a lower `revision`. A line with `retracted` only removes them: the ranking was
    `discarded`, `returned` or `overruled` by a reviewer, `withdrawn` by its annotator, is now `flagged` as not for
    training, or (`trl` only) is now `tied`.
    """
    project = members.manager_of(request.user, slug).project
    query = strict.validated_query(ExportQuery, request)
    exported = preference_export.export(project, **preference_export.choices_of(query))
    return preference_export.as_response(request._request, project, exported)


@extend_schema(
    operation_id="demonstrations_export", parameters=[FlaggedQuery], responses={(200, JSON_LINES): OpenApiTypes.BINARY}
)
@api_view(["GET"])
def demonstration_list(request: Request, slug: str) -> HttpResponseBase:
    """Export the demonstrations of the project as JSON Lines, without withdrawn and discarded ones. For managers."""
    project = members.manager_of(request.user, slug).project
    include_flagged = strict.validated_query(FlaggedQuery, request)["include_flagged"]
    # Which are withdrawn, discarded or flagged can change without a new row, so the tag holds the ids themselves.
    ids = imitable(project, include_flagged=include_flagged).order_by("pk").values_list("pk", flat=True)
    etag = preference_export.etag_of("demonstrations", project.pk, *ids)
    rows = demonstrations(project, include_flagged=include_flagged)
    return _json_lines(request, project, "demonstrations", rows, etag)


@extend_schema(operation_id="skips_export", responses={(200, JSON_LINES): OpenApiTypes.BINARY})
@api_view(["GET"])
def skip_list(request: Request, slug: str) -> HttpResponseBase:
    """Export the skips of the project, with the annotators' reasons, as JSON Lines. For managers."""
    project = members.manager_of(request.user, slug).project
    etag = preference_export.etag_of("skips", project.pk, *_extent(Skip.objects.filter(comparison__project=project)))
    return _json_lines(request, project, "skips", skips(project), etag)


def _json_lines(
    request: Request, project: Project, name: str, rows: Iterator[dict[str, Any]], etag: str
) -> HttpResponseBase:
    return download(request._request, encoded(rows, "jsonl", None), project, f"{name}.jsonl", JSON_LINES, etag)


def _recorded_import(request: Request, project: Project) -> AbstractContextManager[Import]:
    return imports.record_import(project, str(Import.How.API), request.user)


def _extent(rows: QuerySet[Any]) -> tuple[Any, ...]:
    """Return values that change with every row that is added or removed."""
    return tuple(rows.aggregate(count=Count("pk"), last=Max("pk")).values())


def _rows(request: Request) -> Iterable[object]:
    # REST framework gives an empty body to no parser: `request.data` is then an empty dict.
    return request.data if isinstance(request.data, Iterator) else []
