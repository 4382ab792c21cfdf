"""Ranking over HTTP: hold a comparison, say what one thinks of it, and go on to the next.

An answer holds nothing by which an annotator could tell who wrote a completion: texts in the annotator's own order of
display, no ids, no positions. `ranks` follow that order.
"""

from typing import Any
from uuid import UUID

from drf_spectacular.utils import OpenApiParameter, PolymorphicProxySerializer, extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from feedback.actions import members, ranking_details, rankings
from feedback.actions.spans import BAD, GOOD, MAX_SPANS, Span, shown_spans
from feedback.api import strict
from feedback.api.views import api_view
from feedback.models import MAX_AHEAD, Lease, Membership, Ranking
from feedback.queue import blinding, leases


class Ratings(serializers.ListField):
    """Of one attribute, in the order of display."""

    child = serializers.IntegerField(min_value=1, max_value=ranking_details.RATING_POINTS, allow_null=True)


class SpanMarked(strict.Serializer):
    """Characters `start` … `end` − 1 (Unicode code points, from 0) of a completion's text, marked good or bad."""

    completion = serializers.IntegerField(min_value=0, max_value=8, help_text="Its place in the order of display.")
    start = serializers.IntegerField(min_value=0)
    end = serializers.IntegerField(min_value=1)
    mark = serializers.ChoiceField(choices=[GOOD, BAD])


class MessageSerializer(strict.Serializer):
    role = serializers.CharField(help_text="system, user or assistant.")
    content = serializers.CharField()


class ReturnedSerializer(strict.Serializer):
    """What a reviewer wants looked at again: one's own earlier ranking, in the order of display, and why."""

    reason = serializers.CharField(source="review.reason")
    ranks = serializers.SerializerMethodField()
    comment = serializers.CharField()
    strength = serializers.IntegerField(allow_null=True)
    flags = serializers.ListField(child=serializers.CharField())

    def get_ranks(self, ranking: Ranking) -> list[int]:
        return rankings.shown_ranks(ranking)


@extend_schema_field(serializers.IntegerField())
class ComparisonNumber(serializers.Field):
    """Of a lease or a ranking. Needs the `membership` of whom it is shown to in the serializer's context."""

    def __init__(self) -> None:
        super().__init__(
            source="comparison_id",
            read_only=True,
            help_text="Always the same for one comparison. To reviewers and managers its id, as in exports; "
            "to annotators a number that only stands for it, as ids would tell which ones are made together.",
        )

    def to_representation(self, comparison_id: int) -> int:
        return blinding.comparison_number(self.context["membership"], comparison_id)


class LeaseSerializer(strict.Serializer):
    """A comparison that is held until `expires_at`."""

    lease = serializers.UUIDField(source="pk")
    comparison = ComparisonNumber()
    expires_at = serializers.DateTimeField()
    messages = MessageSerializer(source="comparison.prompt.messages", many=True)
    completions = serializers.SerializerMethodField(help_text="Texts in the order of display; ranks follow it.")
    returned = serializers.SerializerMethodField(help_text="By a reviewer; null: it is new.")

    def get_completions(self, lease: Lease) -> list[str]:
        return lease.comparison.texts(lease.display_order)

    @extend_schema_field(ReturnedSerializer(allow_null=True))
    def get_returned(self, lease: Lease) -> dict[str, Any] | None:
        returned = None if lease.withdrawn_id else rankings.previous_ranking(lease)
        return None if returned is None else ReturnedSerializer(returned).data


class RankingSerializer(strict.Serializer):
    """One's own ranking. `ranks` follow the order of display, and leave no number out."""

    ranking = serializers.IntegerField(source="pk")
    comparison = ComparisonNumber()
    ranks = serializers.SerializerMethodField()
    revision = serializers.IntegerField()
    seconds = serializers.FloatField()
    comment = serializers.CharField()
    strength = serializers.IntegerField(allow_null=True)
    flags = serializers.ListField(child=serializers.CharField())
    ratings = serializers.SerializerMethodField(help_text="By attribute, in the order of display.")
    spans = serializers.SerializerMethodField()
    created_at = serializers.DateTimeField()

    def get_ranks(self, ranking: Ranking) -> list[int]:
        return rankings.shown_ranks(ranking)

    @extend_schema_field(serializers.DictField(child=Ratings()))
    def get_ratings(self, ranking: Ranking) -> dict[str, list[int | None]]:
        return ranking_details.shown_ratings(ranking)

    @extend_schema_field(SpanMarked(many=True))
    def get_spans(self, ranking: Ranking) -> list[dict[str, Any]]:
        return shown_spans(ranking)


class RankingInFull(RankingSerializer):
    """One's own ranking with what was shown, to be looked at again and revised."""

    messages = MessageSerializer(source="comparison.prompt.messages", many=True)
    completions = serializers.SerializerMethodField(help_text="Texts in the order of display.")

    def get_completions(self, ranking: Ranking) -> list[str]:
        return ranking.comparison.texts(ranking.display_order)


class LeaseRequest(strict.Serializer):
    beside = serializers.ListField(
        child=serializers.UUIDField(),
        default=list,
        max_length=MAX_AHEAD + 2,
        help_text="Leases on hand: another one is given beside them. Without it, one already held comes back.",
    )


class LeaseResponse(strict.Serializer):
    lease = LeaseSerializer(allow_null=True, help_text="Null: nothing is left for this annotator.")


class RankingRequest(strict.Serializer):
    """What one says. The same `idempotency_key` again is answered as the first time."""

    ranks = serializers.ListField(
        child=serializers.IntegerField(min_value=1, max_value=9),
        min_length=2,
        max_length=9,
        help_text="1 = best, equal = tie; in the order of display.",
    )
    idempotency_key = serializers.UUIDField()
    seconds = serializers.FloatField(
        min_value=0, help_text="From the first sight to the submit; at most the time since the lease was taken counts."
    )
    comment = serializers.CharField(default="", allow_blank=True, max_length=ranking_details.MAX_COMMENT_LENGTH)
    strength = serializers.IntegerField(
        default=None, allow_null=True, min_value=1, max_value=9, help_text="Where the project asks, of two completions."
    )
    flags = serializers.ListField(child=serializers.CharField(), default=list, help_text="Of the project's flags.")
    ratings = serializers.DictField(
        child=Ratings(),
        default=dict,
        help_text="By attribute of the project: 1 (worst) to 5 (best), or null.",
    )
    spans = SpanMarked(many=True, default=list, max_length=MAX_SPANS)

    def validate_spans(self, given: list[dict[str, Any]]) -> list[Span]:
        return [Span(**span) for span in given]


class SkipRequest(strict.Serializer):
    reason = serializers.CharField(default="", allow_blank=True, max_length=500)


class NextQuery(strict.Serializer):
    next = serializers.BooleanField(default=False)
    beside = serializers.ListField(child=serializers.UUIDField(), default=list, max_length=MAX_AHEAD + 2)


class RankingResponse(strict.Serializer):
    ranking = RankingSerializer()
    next = LeaseSerializer(allow_null=True, required=False, help_text="With `?next=1`.")


class SkipResponse(strict.Serializer):
    skipped = serializers.IntegerField(help_text="The comparison.")
    next = LeaseSerializer(allow_null=True, required=False, help_text="With `?next=1`.")


class RevisionResponse(strict.Serializer):
    ranking = RankingSerializer()


class UndoneRanking(strict.Serializer):
    ranking = RankingInFull()


NEXT = [
    OpenApiParameter("next", bool, description="Answer with the next comparison too, held."),
    OpenApiParameter("beside", str, many=True, description="Leases on hand, which the next one comes beside."),
]


@extend_schema(operation_id="leases_take", request=LeaseRequest, responses=LeaseResponse)
@api_view(["POST"])
def lease_list(request: Request, slug: str) -> Response:
    """Hold the next comparison. One already held comes back first, unless it is named in `beside`."""
    membership = members.membership_of(request.user, slug)
    wanted = _checked(LeaseRequest(data=request.data))
    return Response({"lease": _lease(membership, leases.lease_next(membership, beside=wanted["beside"]))})


@extend_schema(operation_id="leases_release", responses={204: None})
@api_view(["DELETE"])
def lease_detail(request: Request, slug: str, lease_id: UUID) -> Response:
    """Give the comparison back unranked; it may come again."""
    leases.release(members.membership_of(request.user, slug), lease_id)
    return Response(status=204)


@extend_schema(operation_id="leases_renew", request=None, responses=LeaseResponse)
@api_view(["POST"])
def lease_renew(request: Request, slug: str, lease_id: UUID) -> Response:
    """Hold the comparison for the project's lease time from now on."""
    membership = members.membership_of(request.user, slug)
    return Response({"lease": _lease(membership, leases.renew(membership, lease_id))})


@extend_schema(operation_id="leases_rank", parameters=NEXT, request=RankingRequest, responses={201: RankingResponse})
@api_view(["POST"])
def lease_rank(request: Request, slug: str, lease_id: UUID) -> Response:
    """Submit a ranking of the comparison held. A late one counts as long as the comparison wants rankings."""
    membership = members.membership_of(request.user, slug)
    wanted, said = _wanted(request), _checked(RankingRequest(data=request.data))
    ranking = rankings.record_ranking(membership, lease_id, said.pop("ranks"), **said)
    return Response(
        {"ranking": _shown(RankingSerializer, membership, ranking), **_next(membership, wanted)}, status=201
    )


@extend_schema(operation_id="leases_skip", parameters=NEXT, request=SkipRequest, responses=SkipResponse)
@api_view(["POST"])
def lease_skip(request: Request, slug: str, lease_id: UUID) -> Response:
    """Not rank this comparison: it goes to others, and does not come again."""
    membership = members.membership_of(request.user, slug)
    wanted = _wanted(request)
    skipped = rankings.skip_comparison(membership, lease_id, reason=_checked(SkipRequest(data=request.data))["reason"])
    number = blinding.comparison_number(membership, skipped.comparison_id)
    return Response({"skipped": number, **_next(membership, wanted)})


@extend_schema(operation_id="rankings_recent", responses=RankingInFull(many=True))
@api_view(["GET"])
def ranking_list(request: Request, slug: str) -> Response:
    """One's own last ten rankings, newest first."""
    membership = members.membership_of(request.user, slug)
    return Response([_shown(RankingInFull, membership, ranking) for ranking in rankings.recent(membership)])


@extend_schema(operation_id="rankings_revise", request=RankingRequest, responses={201: RevisionResponse})
@api_view(["POST"])
def ranking_revise(request: Request, slug: str, ranking_id: int) -> Response:
    """Correct one's own ranking: a new revision counts from now on, and the old one stays in the record."""
    membership = members.membership_of(request.user, slug)
    said = _checked(RankingRequest(data=request.data))
    ranking = rankings.revise_ranking(membership, ranking_id, said.pop("ranks"), **said)
    return Response({"ranking": _shown(RankingSerializer, membership, ranking)}, status=201)


@extend_schema(
    operation_id="undo",
    request=None,
    responses=PolymorphicProxySerializer("Undone", [UndoneRanking, LeaseResponse], resource_type_field_name=None),
)
@api_view(["POST"])
def undo(request: Request, slug: str) -> Response:
    """Reopen what one did last: a ranking to revise (it counts until then), or a skipped comparison, held anew."""
    membership = members.membership_of(request.user, slug)
    done = rankings.undo_last(membership)
    if isinstance(done, Lease):
        return Response({"lease": _lease(membership, done)})
    return Response({"ranking": _shown(RankingInFull, membership, done)})


def _checked(given: serializers.Serializer) -> dict[str, Any]:
    given.is_valid(raise_exception=True)
    return dict(given.validated_data)


def _wanted(request: Request) -> dict[str, Any]:
    """Read before anything is written, so that a request with a bad address writes nothing."""
    sent = request.query_params
    return _checked(NextQuery(data={"next": sent.get("next", "0"), "beside": sent.getlist("beside")}))


def _next(membership: Membership, wanted: dict[str, Any]) -> dict[str, Any]:
    if not wanted["next"]:
        return {}
    if membership.project.archived_at is not None:
        return {"next": None}
    return {"next": _lease(membership, leases.lease_next(membership, beside=wanted["beside"]))}


def _lease(membership: Membership, lease: Lease | None) -> dict[str, Any] | None:
    return None if lease is None else _shown(LeaseSerializer, membership, lease)


def _shown(kind: type[serializers.Serializer], membership: Membership, shown: Lease | Ranking) -> dict[str, Any]:
    """What this member is shown of it."""
    return kind(shown, context={"membership": membership}).data
