"""Prompts, completions and comparisons in; preferences out: JSON Lines, for managers."""

import json
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict
from itertools import islice
from typing import Any

from django.db.models import Count, Max, QuerySet
from django.http import StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.cache import get_conditional_response
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.decorators import parser_classes
from rest_framework.request import Request
from rest_framework.response import Response

from feedback import imports
from feedback.actions import members
from feedback.api import strict
from feedback.api.idempotency import idempotent
from feedback.api.parsers import JsonLinesParser
from feedback.api.views import api_view
from feedback.export.demonstrations import demonstrations
from feedback.export.formats import registry
from feedback.export.skips import skips
from feedback.models import Demonstration, Import, Project, Skip
from feedback.reports import preference_export

JSON_LINES = "application/x-ndjson"
LARGEST = 2**63 - 1
ROWS_A_CHUNK = 200


IMPORT_ID = "DELETE imports/<import_id> undoes it; null: nothing was new."


class PromptsQuery(strict.Serializer):
    compare = serializers.BooleanField(default=True, help_text="Make a comparison of each row's completions.")
    again = serializers.BooleanField(
        default=False, help_text="Make a comparison even where these completions are in one already."
    )


class PromptsResponse(strict.Serializer):
    prompt_ids = serializers.ListField(child=serializers.IntegerField(), help_text="Aligned with the lines.")
    created = serializers.IntegerField(help_text="How many of the prompts are new.")
    changed = serializers.IntegerField(help_text="How many known prompts got new external ids, references or metadata.")
    completion_ids = serializers.ListField(
        child=serializers.ListField(child=serializers.IntegerField()),
        help_text="Aligned with the lines and their completions.",
    )
    comparison_ids = serializers.ListField(
        child=serializers.IntegerField(allow_null=True), help_text="Aligned with the lines; null: there is none."
    )
    import_id = serializers.IntegerField(allow_null=True, help_text=IMPORT_ID)
    comparisons = serializers.IntegerField(help_text="How many comparisons were made.")
    compared_before = serializers.IntegerField(help_text="How many lines' completions were compared already.")


class CompletionsQuery(strict.Serializer):
    source = serializers.CharField(max_length=200, help_text="Who wrote them: one name for the whole body.")


class CompletionsResponse(strict.Serializer):
    completion_ids = serializers.ListField(child=serializers.IntegerField(), help_text="Aligned with the lines.")
    import_id = serializers.IntegerField(allow_null=True, help_text=IMPORT_ID)


class ComparisonsQuery(strict.Serializer):
    wanted_rankings = serializers.IntegerField(
        default=None, allow_null=True, min_value=1, max_value=100, help_text="The project's unless given."
    )
    priority = serializers.IntegerField(default=0, min_value=-32768, max_value=32767, help_text="Higher comes first.")
    again = serializers.BooleanField(
        default=False, help_text="Make a comparison even where these completions are in one already."
    )


class ComparisonsResponse(strict.Serializer):
    comparison_ids = serializers.ListField(
        child=serializers.IntegerField(allow_null=True),
        help_text="Aligned with the lines; null where fewer than two texts differ.",
    )
    import_id = serializers.IntegerField(allow_null=True, help_text=IMPORT_ID)


class GoldResponse(strict.Serializer):
    comparison_ids = serializers.ListField(child=serializers.IntegerField(), help_text="Aligned with the lines.")
    import_id = serializers.IntegerField(allow_null=True, help_text=IMPORT_ID)


class FormatField(serializers.ChoiceField):
    """Name of a registered export format.

    Serializers copy their fields by constructing them anew, so the choices are those registered at that time.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(choices=registry.names(), **kwargs)


class ExportQuery(strict.Serializer):
    format = FormatField(default=preference_export.DEFAULT_FORMAT, help_text=f"One line is {registry.descriptions()}")
    after = serializers.IntegerField(
        default=0, min_value=0, max_value=LARGEST, help_text="Only what came after this cursor."
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
        help_text="What a ranking counts; the project's setting unless given.",
    )
    reliability_as_of = serializers.IntegerField(
        default=None,
        allow_null=True,
        min_value=0,
        max_value=LARGEST,
        help_text="Weigh by the reliability of that moment, as Accord-Reliability-As-Of gave it; else by the latest.",
    )


def _takes_lines(operation: str, wanted: type[serializers.Serializer], answer: type[serializers.Serializer]) -> Any:
    return extend_schema(
        operation_id=operation,
        parameters=[wanted],
        request={JSON_LINES: OpenApiTypes.BINARY},
        responses={201: answer},
    )


@_takes_lines("prompts_add", PromptsQuery, PromptsResponse)
@api_view(["POST"])
@parser_classes([JsonLinesParser])
@idempotent
def prompt_list(request: Request, slug: str) -> Response:
    """Add prompts, all or none: one JSON object a line, with `messages` or `prompt`, and optionally `external_id`,
    `references`, `metadata` and `completions`, of which a comparison is made. A known prompt is not made again: it
    gets what is new of it. The same lines sent again change nothing."""
    project = members.manager_of(request.user, slug).project
    wanted = _wanted(PromptsQuery, request)
    with _recorded(request, project) as record:
        told = asdict(imports.add_prompts(project, _rows(request), made_by_import=record, **wanted))
    return Response(told | {"comparisons": told.pop("compared"), "import_id": record.pk}, status=201)


@_takes_lines("completions_add", CompletionsQuery, CompletionsResponse)
@api_view(["POST"])
@parser_classes([JsonLinesParser])
@idempotent
def completion_list(request: Request, slug: str) -> Response:
    """Add completions by one source, all or none: one JSON object a line, with `prompt_id` or `external_id`, `text`,
    and optionally `sampling`."""
    project = members.manager_of(request.user, slug).project
    source = _wanted(CompletionsQuery, request)["source"]
    with _recorded(request, project) as record:
        ids = imports.import_completions(project, source, _rows(request), made_by_import=record)
    return Response({"completion_ids": ids, "import_id": record.pk}, status=201)


@_takes_lines("comparisons_add", ComparisonsQuery, ComparisonsResponse)
@api_view(["POST"])
@parser_classes([JsonLinesParser])
@idempotent
def comparison_list(request: Request, slug: str) -> Response:
    """Make comparisons, all or none: one `{"completion_ids": [2 to 9 ids]}` a line. Texts that are compared already
    are known by that comparison, unless it is to be made `again`."""
    project = members.manager_of(request.user, slug).project
    wanted = _wanted(ComparisonsQuery, request)
    groups = imports.read_all(_rows(request), imports.read_group)
    with _recorded(request, project) as record:
        compared = imports.add_comparisons(project, groups, made_by_import=record, **wanted)
    return Response({"comparison_ids": compared.ids, "import_id": record.pk}, status=201)


@extend_schema(operation_id="gold_add", request={JSON_LINES: OpenApiTypes.BINARY}, responses={201: GoldResponse})
@api_view(["POST"])
@parser_classes([JsonLinesParser])
@idempotent
def gold_list(request: Request, slug: str) -> Response:
    """Make comparisons whose right ranking is known, all or none: one `{"completion_ids", "ranks"}` a line. They test
    annotators, who are not told which ones they are, and go into no export."""
    project = members.manager_of(request.user, slug).project
    with _recorded(request, project) as record:
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
            description="Of which moment the weights are. Send it as `reliability_as_of` to have the same ones again.",
        ),
        OpenApiParameter(
            "Accord-Cursor", str, OpenApiParameter.HEADER, response=[200], description="Send it as `after` next time."
        ),
        OpenApiParameter(
            "ETag",
            str,
            OpenApiParameter.HEADER,
            response=[200],
            description="Sent back as If-None-Match, it is answered 304 as long as the lines are the same.",
        ),
    ],
    responses={(200, JSON_LINES): OpenApiTypes.BINARY},
)
@api_view(["GET"])
def preference_list(request: Request, slug: str) -> HttpResponseBase:
    """What people said, as JSON Lines, in the order of the record. For managers.

    `rankings`: one ranking that counts a line. `table`: the same in columns whose types are fixed from the first line
    on, with what has no fixed shape as JSON in texts. `trl`: one `{"prompt", "chosen", "rejected"}` a pair, of the
    training prompts unless `split` says otherwise; ties are left out, `strength` is 0 where none was given.
    With `after`, a line replaces earlier ones of the same `comparison_id` and `annotator` with a lower `revision`; one
    that says `retracted` only takes them back: the ranking was `discarded`, `returned` to its annotator or `overruled`
    by a reviewer, or (`trl`) is all `tied` now.
    """
    project = members.manager_of(request.user, slug).project
    query = _wanted(ExportQuery, request)
    format_name = query.pop("format")
    exported = preference_export.export(project, format_name, **query)
    headers = {"Accord-Cursor": str(exported.cursor)}
    if exported.report:
        headers["Accord-Reliability-As-Of"] = str(exported.report.until)
    return _streamed(request, exported.rows, project, f"{format_name}.jsonl", exported.etag, headers)


@extend_schema(operation_id="demonstrations_export", responses={(200, JSON_LINES): OpenApiTypes.BINARY})
@api_view(["GET"])
def demonstration_list(request: Request, slug: str) -> HttpResponseBase:
    """What people wrote to be imitated, as JSON Lines. For managers."""
    project = members.manager_of(request.user, slug).project
    written = Demonstration.objects.filter(completion__prompt__project=project)
    etag = preference_export.etag_of("demonstrations", project.pk, *_extent(written))
    return _streamed(request, demonstrations(project), project, "demonstrations.jsonl", etag)


@extend_schema(operation_id="skips_export", responses={(200, JSON_LINES): OpenApiTypes.BINARY})
@api_view(["GET"])
def skip_list(request: Request, slug: str) -> HttpResponseBase:
    """What annotators would not rank, and the reasons that they gave, as JSON Lines. For managers."""
    project = members.manager_of(request.user, slug).project
    etag = preference_export.etag_of("skips", project.pk, *_extent(Skip.objects.filter(comparison__project=project)))
    return _streamed(request, skips(project), project, "skips.jsonl", etag)


def _recorded(request: Request, project: Project) -> AbstractContextManager[Import]:
    return imports.record_import(project, str(Import.How.API), request.user)


def _extent(rows: QuerySet[Any]) -> tuple[Any, ...]:
    """What changes with every row that is added or removed."""
    return tuple(rows.aggregate(count=Count("pk"), last=Max("pk")).values())


def _wanted(serializer: type[serializers.Serializer], request: Request) -> dict[str, Any]:
    wanted = serializer(data=request.query_params.dict())
    wanted.is_valid(raise_exception=True)
    return wanted.validated_data


def _rows(request: Request) -> Iterable[object]:
    # An empty body never reaches the parser: DRF answers it with an empty dict.
    return request.data if isinstance(request.data, Iterator) else []


def _streamed(
    request: Request,
    rows: Iterator[dict[str, Any]],
    project: Project,
    name: str,
    etag: str,
    headers: dict[str, str] | None = None,
) -> HttpResponseBase:
    """Answer with the rows as JSON Lines, or 304 where the client has these very lines already."""
    response = StreamingHttpResponse(_encoded(rows), content_type=JSON_LINES)
    response["Content-Disposition"] = f'attachment; filename="{project.slug}-{name}"'
    response["X-Accel-Buffering"] = "no"
    response["ETag"] = etag
    response["Cache-Control"] = "private, no-cache"  # kept by the client, and asked for again each time
    for header, value in (headers or {}).items():
        response[header] = value
    answer = get_conditional_response(request._request, etag=etag, response=response)
    assert answer is not None
    for header, value in (headers or {}).items():
        answer[header] = value  # a 304 keeps the standard's headers alone
    return answer


def _encoded(rows: Iterator[dict[str, Any]]) -> Iterator[bytes]:
    """Many rows a chunk: a chunk costs a system call and a frame, a row costs neither."""
    while chunk := list(islice(rows, ROWS_A_CHUNK)):
        yield "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in chunk).encode()
