"""Ranking over HTTP: lease a comparison, rank or skip it, revise an earlier ranking.

Answers contain nothing that identifies the source of a completion: the texts come in the annotator's own display order,
without ids and positions. `ranks` follow that order.
"""

from typing import Any
from uuid import UUID

from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from feedback.actions import members, ranking_details, ranking_undo, rankings
from feedback.actions.spans import BAD, GOOD, MAX_SPANS, Span, shown_spans
from feedback.api import strict
from feedback.api.views import api_view
from feedback.dialogues import Turns, turns_of
from feedback.models import MAX_AHEAD, Lease, Membership, Ranking
from feedback.queue import blinding, leases


class RatingsField(serializers.ListField):
    """Ratings of one attribute, in display order."""

    child = serializers.IntegerField(min_value=1, max_value=ranking_details.RATING_POINTS, allow_null=True)


class SpanSerializer(strict.Serializer):
    """Characters `start` … `end` − 1 (Unicode code points, from 0) of a completion's text, marked good or bad."""

    completion = serializers.IntegerField(min_value=0, max_value=8, help_text="Index in display order.")
    start = serializers.IntegerField(min_value=0)
    end = serializers.IntegerField(min_value=1)
    mark = serializers.ChoiceField(choices=[GOOD, BAD])


class MessageSerializer(strict.Serializer):
    role = serializers.CharField(help_text="system, user or assistant.")
    content = serializers.CharField()


TURNS_HELP = "Aligned with `completions`: the messages of a dialogue; null for a completion that is one text."


class TurnsField(serializers.ListField):
    """The messages of each completion that is a dialogue, from the assistant's first turn to its last, else null."""

    child = serializers.ListField(child=MessageSerializer(), allow_null=True)


class ReturnedRankingSerializer(strict.Serializer):
    """An earlier ranking that a reviewer returned, in display order, with the reviewer's reason."""

    reason = serializers.CharField(source="review.reason")
    ranks = serializers.SerializerMethodField()
    comment = serializers.CharField()
    strength = serializers.IntegerField(allow_null=True)
    flags = serializers.ListField(child=serializers.CharField())

    def get_ranks(self, ranking: Ranking) -> list[int]:
        return rankings.shown_ranks(ranking)


@extend_schema_field(serializers.IntegerField())
class ComparisonNumberField(serializers.Field):
    """Number of a lease's or ranking's comparison. The serializer's context needs the reader's `membership`."""

    def __init__(self) -> None:
        super().__init__(
            source="comparison_id",
            read_only=True,
            help_text="The same number for a comparison in every answer. For reviewers and managers it is the id that "
            "exports have. For annotators it is a pseudonym, because neighbouring ids are of one import.",
        )

    def to_representation(self, comparison_id: int) -> int:
        return blinding.comparison_number(self.context["membership"], comparison_id)


class LeaseSerializer(strict.Serializer):
    """A comparison that is leased to the annotator until `expires_at`."""

    lease = serializers.UUIDField(source="pk")
    comparison = ComparisonNumberField()
    expires_at = serializers.DateTimeField()
    messages = MessageSerializer(source="comparison.prompt.messages", many=True)
    completions = serializers.SerializerMethodField(help_text="Texts in display order; ranks follow it.")
    turns = serializers.SerializerMethodField(help_text=TURNS_HELP)
    returned = serializers.SerializerMethodField(help_text="The ranking that a reviewer returned; null: none.")

    def get_completions(self, lease: Lease) -> list[str]:
        return lease.comparison.texts(lease.display_order)

    @extend_schema_field(TurnsField())
    def get_turns(self, lease: Lease) -> list[Turns | None]:
        return turns_of(lease.comparison.answers(lease.display_order))

    @extend_schema_field(ReturnedRankingSerializer(allow_null=True))
    def get_returned(self, lease: Lease) -> dict[str, Any] | None:
        returned = None if lease.withdrawn_id else rankings.previous_ranking(lease)
        return None if returned is None else ReturnedRankingSerializer(returned).data


class RankingSerializer(strict.Serializer):
    """A ranking of the current user. `ranks` follow the display order, and use every number from 1 on."""

    ranking = serializers.IntegerField(source="pk")
    comparison = ComparisonNumberField()
    ranks = serializers.SerializerMethodField()
    revision = serializers.IntegerField()
    seconds = serializers.FloatField()
    comment = serializers.CharField()
    strength = serializers.IntegerField(allow_null=True)
    flags = serializers.ListField(child=serializers.CharField())
    ratings = serializers.SerializerMethodField(help_text="By attribute, in display order.")
    spans = serializers.SerializerMethodField()
    created_at = serializers.DateTimeField()

    def get_ranks(self, ranking: Ranking) -> list[int]:
        return rankings.shown_ranks(ranking)

    @extend_schema_field(serializers.DictField(child=RatingsField()))
    def get_ratings(self, ranking: Ranking) -> dict[str, list[int | None]]:
        return ranking_details.shown_ratings(ranking)

    @extend_schema_field(SpanSerializer(many=True))
    def get_spans(self, ranking: Ranking) -> list[dict[str, Any]]:
        return shown_spans(ranking)


class RankingWithTextsSerializer(RankingSerializer):
    """A ranking of the current user with the texts, so that it can be read again and revised."""

    messages = MessageSerializer(source="comparison.prompt.messages", many=True)
    completions = serializers.SerializerMethodField(help_text="Texts in display order.")
    turns = serializers.SerializerMethodField(help_text=TURNS_HELP)

    def get_completions(self, ranking: Ranking) -> list[str]:
        return ranking.comparison.texts(ranking.display_order)

    @extend_schema_field(TurnsField())
    def get_turns(self, ranking: Ranking) -> list[Turns | None]:
        return turns_of(ranking.comparison.answers(ranking.display_order))


class LeaseRequest(strict.Serializer):
    beside = serializers.ListField(
        child=serializers.UUIDField(),
        default=list,
        max_length=MAX_AHEAD + 2,
        help_text="Leases that the client holds: the answer is another one. Without it, a held lease is returned.",
    )


class LeaseResponse(strict.Serializer):
    lease = LeaseSerializer(allow_null=True, help_text="Null: nothing is left for this annotator.")


class RankingRequest(strict.Serializer):
    """A ranking. The same `idempotency_key` again gets the first answer again."""

    ranks = serializers.ListField(
        child=serializers.IntegerField(min_value=1, max_value=9),
        min_length=2,
        max_length=9,
        help_text="In display order; 1 is best, equal ranks tie.",
    )
    idempotency_key = serializers.UUIDField()
    seconds = serializers.FloatField(
        min_value=0,
        help_text="Time from display to submission. It is limited to the time since the lease was taken.",
    )
    comment = serializers.CharField(default="", allow_blank=True, max_length=ranking_details.MAX_COMMENT_LENGTH)
    strength = serializers.IntegerField(
        default=None,
        allow_null=True,
        min_value=1,
        max_value=9,
        help_text="Strength of the preference between two completions, if the project asks for it.",
    )
    flags = serializers.ListField(child=serializers.CharField(), default=list, help_text="Flags of the project.")
    ratings = serializers.DictField(
        child=RatingsField(),
        default=dict,
        help_text="By attribute of the project: 1 (worst) to 5 (best), or null.",
    )
    spans = SpanSerializer(many=True, default=list, max_length=MAX_SPANS)

    def validate_spans(self, spans: list[dict[str, Any]]) -> list[Span]:
        return [Span(**span) for span in spans]


class SkipRequest(strict.Serializer):
    reason = serializers.CharField(default="", allow_blank=True, max_length=500)


class NextQuery(strict.Serializer):
    next = serializers.BooleanField(default=False)
    beside = serializers.ListField(child=serializers.UUIDField(), default=list, max_length=MAX_AHEAD + 2)


class RankingResponse(strict.Serializer):
    ranking = RankingSerializer()
    next = LeaseSerializer(allow_null=True, required=False, help_text="With `?next=1`.")


class SkipResponse(strict.Serializer):
    skipped = serializers.IntegerField(help_text="Number of the comparison.")
    next = LeaseSerializer(allow_null=True, required=False, help_text="With `?next=1`.")


class RevisionResponse(strict.Serializer):
    ranking = RankingSerializer()


class UndoResponse(strict.Serializer):
    lease = LeaseSerializer(help_text="The comparison, held again: rank or skip it.")
    ranking = RankingWithTextsSerializer(required=False, help_text="The withdrawn ranking; absent if there was none.")


NEXT = [
    OpenApiParameter(
        "next",
        bool,
        description="Lease the next comparison too, and return it as `next`: "
        "null if none is left, or you hold as many as the project allows.",
    ),
    OpenApiParameter("beside", str, many=True, description="Leases that the client holds besides the next one."),
]


@extend_schema(operation_id="leases_take", request=LeaseRequest, responses=LeaseResponse)
@api_view(["POST"], commits=True)
def lease_list(request: Request, slug: str) -> Response:
    """Lease the next comparison. A lease that the annotator holds is returned first, unless `beside` names it."""
    membership = members.membership_of(request.user, slug)
    beside = strict.validated(LeaseRequest(data=request.data))["beside"]
    return Response({"lease": _lease_body(membership, leases.lease_next(membership, beside=beside))})


@extend_schema(operation_id="leases_release", responses={204: None})
@api_view(["DELETE"])
def lease_detail(request: Request, slug: str, lease_id: UUID) -> Response:
    """Release a lease without a ranking. The comparison may be offered again."""
    leases.release(members.membership_of(request.user, slug), lease_id)
    return Response(status=204)


@extend_schema(operation_id="leases_renew", request=None, responses=LeaseResponse)
@api_view(["POST"], commits=True)
def lease_renew(request: Request, slug: str, lease_id: UUID) -> Response:
    """Renew a lease: it expires after the project's lease time, counted from now."""
    membership = members.membership_of(request.user, slug)
    return Response({"lease": _lease_body(membership, leases.renew(membership, lease_id))})


@extend_schema(operation_id="leases_rank", parameters=NEXT, request=RankingRequest, responses={201: RankingResponse})
@api_view(["POST"], commits=True)
def lease_rank(request: Request, slug: str, lease_id: UUID) -> Response:
    """Submit a ranking of a leased comparison. After the lease expired it is accepted if the slot is still free."""
    membership = members.membership_of(request.user, slug)
    query, ranking = _next_query(request), strict.validated(RankingRequest(data=request.data))
    recorded = rankings.record_ranking(membership, lease_id, ranking.pop("ranks"), **ranking)
    body = {"ranking": _body(RankingSerializer, membership, recorded), **_next_lease(membership, query)}
    return Response(body, status=201)


@extend_schema(operation_id="leases_skip", parameters=NEXT, request=SkipRequest, responses=SkipResponse)
@api_view(["POST"], commits=True)
def lease_skip(request: Request, slug: str, lease_id: UUID) -> Response:
    """Skip a leased comparison. Others may still rank it; this annotator does not get it again."""
    membership = members.membership_of(request.user, slug)
    query, reason = _next_query(request), strict.validated(SkipRequest(data=request.data))["reason"]
    skipped = rankings.skip_comparison(membership, lease_id, reason=reason)
    number = blinding.comparison_number(membership, skipped.comparison_id)
    return Response({"skipped": number, **_next_lease(membership, query)})


@extend_schema(operation_id="rankings_recent", responses=RankingWithTextsSerializer(many=True))
@api_view(["GET"])
def ranking_list(request: Request, slug: str) -> Response:
    """List the last ten rankings of the current user, newest first."""
    membership = members.membership_of(request.user, slug)
    recent = rankings.recent(membership)
    return Response([_body(RankingWithTextsSerializer, membership, ranking) for ranking in recent])


@extend_schema(operation_id="rankings_revise", request=RankingRequest, responses={201: RevisionResponse})
@api_view(["POST"], commits=True)
def ranking_revise(request: Request, slug: str, ranking_id: int) -> Response:
    """Correct a ranking of the current user. The new revision counts from now on; the record keeps the old one.

    A ranking that was withdrawn by `undo` is recorded again, and its lease ends.
    """
    membership = members.membership_of(request.user, slug)
    ranking = strict.validated(RankingRequest(data=request.data))
    revised = rankings.revise_ranking(membership, ranking_id, ranking.pop("ranks"), **ranking)
    return Response({"ranking": _body(RankingSerializer, membership, revised)}, status=201)


@extend_schema(operation_id="undo", request=None, responses=UndoResponse)
@api_view(["POST"], commits=True)
def undo(request: Request, slug: str) -> Response:
    """Undo the current user's last ranking or skip, as *Undo* on the ranking page does, and lease its comparison again.

    A ranking does not count any more until the comparison is ranked again, by the lease or by `revise` with the
    number of the withdrawn `ranking`. 404: there is nothing to undo, or the ranking is older than 24 hours or the
    eleventh in a row. 409: others have taken the slot, or a reviewer has decided on the ranking.

    In version 0.1 a ranking was answered alone (without `lease`) and counted until it was revised.
    """
    membership = members.membership_of(request.user, slug)
    lease = ranking_undo.undo_last(membership)
    answer = {"lease": _lease_body(membership, lease)}
    if lease.withdrawn is not None:
        answer["ranking"] = _body(RankingWithTextsSerializer, membership, lease.withdrawn)
    return Response(answer)


def _next_query(request: Request) -> dict[str, Any]:
    """Read the parameters for the next lease. Call it before any write: a bad parameter must not leave a ranking."""
    parameters = request.query_params
    data = {"next": parameters.get("next", "0"), "beside": parameters.getlist("beside")}
    return strict.validated(NextQuery(data=data))


def _next_lease(membership: Membership, query: dict[str, Any]) -> dict[str, Any]:
    if not query["next"]:
        return {}
    return {"next": _lease_body(membership, leases.lease_next_after_write(membership, beside=query["beside"]))}


def _lease_body(membership: Membership, lease: Lease | None) -> dict[str, Any] | None:
    return None if lease is None else _body(LeaseSerializer, membership, lease)


def _body(
    serializer: type[serializers.Serializer], membership: Membership, instance: Lease | Ranking
) -> dict[str, Any]:
    return serializer(instance, context={"membership": membership}).data
