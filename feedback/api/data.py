"""Prompts, completions and comparisons in; preferences out: JSON Lines, for managers."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import islice
from typing import Any

from django.http import StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.decorators import api_view, parser_classes
from rest_framework.request import Request
from rest_framework.response import Response

from feedback import export, intake, people, reliability
from feedback.api.idempotency import idempotent
from feedback.models import Project, Prompt, ReliabilityReport
from feedback.parsers import JsonLinesParser

JSON_LINES = "application/x-ndjson"
LARGEST = 2**63 - 1
ROWS_A_CHUNK = 200


class PromptsWanted(serializers.Serializer):
    compare = serializers.BooleanField(default=True, help_text="Make a comparison of each row's completions.")
    again = serializers.BooleanField(default=False, help_text="Make a comparison even of what is compared already.")


class PromptsAnswer(serializers.Serializer):
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
    comparisons = serializers.IntegerField(help_text="How many comparisons were made.")
    compared_before = serializers.IntegerField(help_text="How many lines' completions were compared already.")


class CompletionsWanted(serializers.Serializer):
    source = serializers.CharField(max_length=200, help_text="Who wrote them: one name for the whole body.")


class CompletionsAnswer(serializers.Serializer):
    completion_ids = serializers.ListField(child=serializers.IntegerField(), help_text="Aligned with the lines.")


class ComparisonsWanted(serializers.Serializer):
    wanted_rankings = serializers.IntegerField(
        default=None, allow_null=True, min_value=1, max_value=100, help_text="The project's unless given."
    )
    priority = serializers.IntegerField(default=0, min_value=-32768, max_value=32767, help_text="Higher comes first.")
    again = serializers.BooleanField(default=False, help_text="Make a comparison even of what is compared already.")


class ComparisonsAnswer(serializers.Serializer):
    comparison_ids = serializers.ListField(
        child=serializers.IntegerField(allow_null=True),
        help_text="Aligned with the lines; null where fewer than two texts differ.",
    )


class GoldAnswer(serializers.Serializer):
    comparison_ids = serializers.ListField(child=serializers.IntegerField(), help_text="Aligned with the lines.")


class ExportWanted(serializers.Serializer):
    format = serializers.ChoiceField(
        choices=sorted(export.FORMATS), default="trl", help_text="trl: pairs for TRL's trainers; rankings: whole."
    )
    after = serializers.IntegerField(
        default=0, min_value=0, max_value=LARGEST, help_text="Only what came after this cursor."
    )
    split = serializers.ChoiceField(choices=Prompt.Split.choices, default=None, allow_null=True)
    weights = serializers.ChoiceField(
        choices=("equal", "reliability"),
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


@_takes_lines("prompts_add", PromptsWanted, PromptsAnswer)
@api_view(["POST"])
@parser_classes([JsonLinesParser])
@idempotent
def prompt_list(request: Request, slug: str) -> Response:
    """Add prompts, all or none: one JSON object a line, with `messages` or `prompt`, and optionally `external_id`,
    `references`, `metadata` and `completions`, of which a comparison is made. A known prompt is not made again: it
    gets what is new of it. The same lines sent again change nothing."""
    project = people.manager_of(request.user, slug).project
    added = intake.add_prompts(project, _rows(request), **_wanted(PromptsWanted, request))
    told = asdict(added)
    return Response(told | {"comparisons": told.pop("compared")}, status=201)


@_takes_lines("completions_add", CompletionsWanted, CompletionsAnswer)
@api_view(["POST"])
@parser_classes([JsonLinesParser])
@idempotent
def completion_list(request: Request, slug: str) -> Response:
    """Add completions by one source, all or none: one JSON object a line, with `prompt_id` or `external_id`, `text`,
    and optionally `sampling`."""
    project = people.manager_of(request.user, slug).project
    source = _wanted(CompletionsWanted, request)["source"]
    return Response({"completion_ids": intake.import_completions(project, source, _rows(request))}, status=201)


@_takes_lines("comparisons_add", ComparisonsWanted, ComparisonsAnswer)
@api_view(["POST"])
@parser_classes([JsonLinesParser])
@idempotent
def comparison_list(request: Request, slug: str) -> Response:
    """Make comparisons, all or none: one `{"completion_ids": [2 to 9 ids]}` a line. Texts that are compared already
    are known by that comparison, unless it is to be made `again`."""
    project = people.manager_of(request.user, slug).project
    wanted = _wanted(ComparisonsWanted, request)
    groups = intake.read_all(_rows(request), intake.read_group)
    return Response({"comparison_ids": intake.add_comparisons(project, groups, **wanted).ids}, status=201)


@extend_schema(operation_id="gold_add", request={JSON_LINES: OpenApiTypes.BINARY}, responses={201: GoldAnswer})
@api_view(["POST"])
@parser_classes([JsonLinesParser])
@idempotent
def gold_list(request: Request, slug: str) -> Response:
    """Make comparisons whose right ranking is known, all or none: one `{"completion_ids", "ranks"}` a line. They test
    annotators, who are not told which ones they are, and go into no export."""
    project = people.manager_of(request.user, slug).project
    return Response({"comparison_ids": intake.add_gold(project, _rows(request))}, status=201)


@extend_schema(
    operation_id="preferences_export",
    parameters=[
        ExportWanted,
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
    ],
    responses={(200, JSON_LINES): OpenApiTypes.BINARY},
)
@api_view(["GET"])
def preference_list(request: Request, slug: str) -> StreamingHttpResponse:
    """What people said, as JSON Lines, in the order of the record. For managers.

    `rankings`: one ranking that counts a line. `trl`: one `{"prompt", "chosen", "rejected"}` a pair; ties are left out.
    With `after`, a line replaces earlier ones of the same `comparison_id` and `annotator` with a lower `revision`; one
    that says `retracted` only takes them back: the ranking was `discarded`, `returned` to its annotator or `overruled`
    by a reviewer, or (`trl`) is all `tied` now.
    """
    project = people.manager_of(request.user, slug).project
    wanted = _wanted(ExportWanted, request)
    until = export.sequence_cutoff(project)
    report = _report(project, wanted)
    rows = export.FORMATS[wanted["format"]](
        project,
        wanted["after"],
        until,
        split=wanted["split"],
        reliability=reliability.values(report) if report else None,
    )
    response = _streamed(rows, project, f"{wanted['format']}.jsonl", until)
    if report:
        response["Accord-Reliability-As-Of"] = str(report.until)
    return response


def _report(project: Project, wanted: dict[str, Any]) -> ReliabilityReport | None:
    """What weighs the rankings; None: they all count the same. Before the first report nobody is known to differ."""
    if (wanted["weights"] or project.ranking_weights) == "equal":
        return None
    if wanted["reliability_as_of"] is not None:
        return reliability.as_of(project, wanted["reliability_as_of"])
    return reliability.latest(project)


@extend_schema(operation_id="demonstrations_export", responses={(200, JSON_LINES): OpenApiTypes.BINARY})
@api_view(["GET"])
def demonstration_list(request: Request, slug: str) -> StreamingHttpResponse:
    """What people wrote to be imitated, as JSON Lines. For managers."""
    project = people.manager_of(request.user, slug).project
    return _streamed(export.demonstrations(project), project, "demonstrations.jsonl")


def _wanted(serializer: type[serializers.Serializer], request: Request) -> dict[str, Any]:
    wanted = serializer(data=request.query_params.dict())
    wanted.is_valid(raise_exception=True)
    return wanted.validated_data


def _rows(request: Request) -> Iterable[object]:
    # An empty body never reaches the parser: DRF answers it with an empty dict.
    return request.data if isinstance(request.data, Iterator) else []


def _streamed(
    rows: Iterator[dict[str, Any]], project: Project, name: str, cursor: int | None = None
) -> StreamingHttpResponse:
    response = StreamingHttpResponse(_encoded(rows), content_type=JSON_LINES)
    response["Content-Disposition"] = f'attachment; filename="{project.slug}-{name}"'
    response["X-Accel-Buffering"] = "no"
    if cursor is not None:
        response["Accord-Cursor"] = str(cursor)
    return response


def _encoded(rows: Iterator[dict[str, Any]]) -> Iterator[bytes]:
    """Many rows a chunk: a chunk costs a system call and a frame, a row costs neither."""
    while chunk := list(islice(rows, ROWS_A_CHUNK)):
        yield "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in chunk).encode()
