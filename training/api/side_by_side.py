"""API of two checkpoints beside each other, for managers. It calls the same functions as the console."""

from typing import Any

from django.utils.translation import gettext as _
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from feedback.actions import members
from feedback.api import strict
from feedback.api.annotation import MessageSerializer
from feedback.api.ratings import PairRateSerializer
from feedback.api.views import api_view
from feedback.errors import Invalid
from training import reports, side_by_side


class TextSerializer(strict.Serializer):
    """An answer of a checkpoint."""

    text = serializers.CharField(source="answer.text")
    turns = MessageSerializer(many=True, source="answer.turns", allow_null=True)
    round = serializers.IntegerField(allow_null=True, help_text="Number of the round that wrote it; null: not known.")
    score = serializers.FloatField(
        allow_null=True, help_text="Its reward in that round; compares with another of the same round only."
    )
    completion = serializers.IntegerField(
        source="completion_id", allow_null=True, help_text="Null: a text of an evaluation, which is no completion."
    )
    count = serializers.IntegerField(help_text="Answers of the checkpoint to this prompt.")


class VotesSerializer(strict.Serializer):
    """Live rankings of a comparison of the two answers; 0 while you hold a lease on it."""

    comparison = serializers.IntegerField(source="comparison_id")
    one = serializers.IntegerField(help_text="For the first checkpoint.")
    other = serializers.IntegerField()
    ties = serializers.IntegerField()


class PairedPromptSerializer(strict.Serializer):
    """A prompt with an answer of each checkpoint."""

    prompt = serializers.IntegerField(source="prompt.pk")
    messages = MessageSerializer(many=True, source="prompt.messages")
    split = serializers.CharField(source="prompt.split")
    one = TextSerializer()
    other = TextSerializer()
    votes = VotesSerializer(many=True)


class SideBySideSerializer(strict.Serializer):
    """Two checkpoints on a page of the prompts that both answered, newest first."""

    one = serializers.CharField()
    other = serializers.CharField()
    win_rate = PairRateSerializer(allow_null=True, help_text="By people; null: nobody compared them, or not yet.")
    trials = serializers.ListField(child=serializers.IntegerField(), help_text="Trials that both were in.")
    prompts = PairedPromptSerializer(many=True)
    withheld = serializers.IntegerField(help_text="Prompts of an open trial, which are left out until their votes.")
    next = serializers.CharField(help_text='Cursor of the next page; "": this is the last one.')


class CursorQuery(strict.Serializer):
    cursor = serializers.CharField(required=False, default="", allow_blank=True, help_text="`next` of the page before.")


@extend_schema(operation_id="checkpoints_beside", parameters=[CursorQuery], responses=SideBySideSerializer)
@api_view(["GET"])
def beside(request: Request, slug: str, checkpoint_id: int, other_id: int) -> Response:
    """Return the answers of two checkpoints to the same prompts, and what people said between the two."""
    membership = members.manager_of(request.user, slug)
    one, other = (reports.checkpoint_of(membership.project, pk) for pk in (checkpoint_id, other_id))
    if one == other:
        raise Invalid(_("Choose two different checkpoints."))
    page = side_by_side.page_of_prompts(membership, one, other, **strict.validated_query(CursorQuery, request))
    judgement = side_by_side.judgement_of(one, other)
    body: dict[str, Any] = {
        "one": str(one),
        "other": str(other),
        "win_rate": judgement.rate,
        "trials": [trial.number for trial in judgement.trials],
        "prompts": page.prompts,
        "withheld": page.withheld,
        "next": page.next,
    }
    return Response(SideBySideSerializer(body).data)
