"""One completion: its checkpoint, round and reward model, and everybody who ranked it. For managers."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from feedback.actions import data_rows, members
from feedback.api import strict
from feedback.api.annotation import MessageSerializer
from feedback.api.data_lists import POSITION_HELP, RankingRowSerializer
from feedback.api.views import api_view
from feedback.models import Source
from feedback.reports.data import rows
from training import provenance


class ComparedInSerializer(strict.Serializer):
    """A comparison that the completion is in."""

    comparison = serializers.IntegerField(source="comparison.pk")
    position = serializers.IntegerField(help_text=POSITION_HELP)
    is_held = serializers.BooleanField(help_text="You hold a lease on it: its rankings are left out.")
    rankings = RankingRowSerializer(many=True, help_text="The live revisions.")


class CompletionDetailSerializer(strict.Serializer):
    completion = serializers.IntegerField(source="row.completion.pk")
    prompt = serializers.IntegerField(source="row.completion.prompt_id")
    source = serializers.CharField(source="row.completion.source.name")
    source_kind = serializers.CharField(
        source="row.completion.source.kind", help_text=f"One of {', '.join(map(str, Source.Kind.values))}."
    )
    author = serializers.CharField(source="row.completion.author.username", allow_null=True, default=None)
    text = serializers.CharField(source="row.completion.text")
    turns = MessageSerializer(many=True, source="row.completion.turns", allow_null=True)
    sampling = serializers.JSONField(source="row.completion.sampling", help_text="Sampling parameters.")
    demonstration = serializers.IntegerField(source="row.demonstration.pk", allow_null=True, default=None)
    checkpoint = serializers.IntegerField(
        source="provenance.checkpoint.pk", allow_null=True, default=None, help_text="Checkpoint that is the source."
    )
    made_by_round = serializers.IntegerField(
        source="provenance.made_by.number",
        allow_null=True,
        default=None,
        help_text="Number of the round that made the checkpoint.",
    )
    reward_model_of_round = serializers.IntegerField(
        source="provenance.reward_model_of.number",
        allow_null=True,
        default=None,
        help_text="Number of the round that trained the reward model of the checkpoint's training.",
    )
    written_in_round = serializers.IntegerField(
        source="provenance.written_in.number",
        allow_null=True,
        default=None,
        help_text="Number of the round that wrote the completion.",
    )
    compared = ComparedInSerializer(
        many=True, source="row.compared", help_text=f"Newest first, at most {rows.MAX_LISTED}."
    )
    created_at = serializers.DateTimeField(source="row.completion.created_at")


@extend_schema(methods=["GET"], operation_id="data_completion", responses=CompletionDetailSerializer)
@extend_schema(methods=["DELETE"], operation_id="data_completion_delete", responses={204: None})
@api_view(["GET", "DELETE"])
def completion_detail(request: Request, slug: str, completion_id: int) -> Response:
    """Return a completion with its checkpoint, round, reward model, comparisons and rankings; delete an unused one."""
    membership = members.manager_of(request.user, slug)
    if request.method == "DELETE":
        data_rows.delete_completion(membership.project, completion_id)
        return Response(status=204)
    row = rows.completion_row(membership, completion_id)
    detail: dict[str, Any] = {"row": row, "provenance": provenance.provenance_of(row.completion)}
    return Response(CompletionDetailSerializer(detail).data)
