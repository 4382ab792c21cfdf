"""Review, for reviewers and managers: disagreements, people's work, and decisions about others' rankings.

A comparison is shown in the reviewer's own order, without its sources: whoever settles it judges as blindly as
everybody else. All `ranks` follow that order.
"""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from feedback.actions import members, review_undo, reviews
from feedback.actions.review_revisions import MAX_REASON_LENGTH
from feedback.api import strict
from feedback.api.annotation import MessageSerializer, RankingRequest
from feedback.api.views import api_view
from feedback.models import Ranking, Review
from feedback.reports import review_cases

MOST_A_PAGE = 100


class DisagreementSerializer(strict.Serializer):
    comparison = serializers.IntegerField(source="pk")
    disagreement = serializers.FloatField(help_text="Share of opposed preferences, 0 to 1.")
    ranking_count = serializers.IntegerField()


class OpinionSerializer(strict.Serializer):
    """The last word of one person, whatever became of it."""

    ranking = serializers.IntegerField(source="ranking.pk")
    annotator = serializers.CharField(source="ranking.annotator.username")
    ranks = serializers.ListField(child=serializers.IntegerField())
    standing = serializers.ChoiceField(choices=Ranking.Standing.choices, source="ranking.standing")
    is_adjudication = serializers.BooleanField()
    decision = serializers.IntegerField(source="ranking.review_id", allow_null=True, help_text="What gave it this.")
    seconds = serializers.FloatField(source="ranking.seconds")
    comment = serializers.CharField(source="ranking.comment")
    strength = serializers.IntegerField(source="ranking.strength", allow_null=True)
    flags = serializers.ListField(source="ranking.flags", child=serializers.CharField())
    created_at = serializers.DateTimeField(source="ranking.created_at")


class DecisionSerializer(strict.Serializer):
    decision = serializers.IntegerField(source="pk")
    kind = serializers.ChoiceField(choices=Review.Kind.choices)
    reviewer = serializers.CharField(source="reviewer.username")
    comparison = serializers.IntegerField(source="comparison_id", allow_null=True, help_text="Null: many at once.")
    annotator = serializers.CharField(source="annotator.username", allow_null=True, default=None)
    reason = serializers.CharField()
    ranking_count = serializers.IntegerField(help_text="Rankings of others that it changed.")
    created_at = serializers.DateTimeField()
    undone_at = serializers.DateTimeField(allow_null=True)
    undone_by = serializers.CharField(source="undone_by.username", allow_null=True, default=None)


class CaseSerializer(strict.Serializer):
    comparison = serializers.IntegerField(source="comparison.pk")
    disagreement = serializers.FloatField(source="comparison.disagreement")
    messages = MessageSerializer(source="comparison.prompt.messages", many=True)
    completions = serializers.ListField(source="texts", child=serializers.CharField())
    opinions = OpinionSerializer(many=True)
    adjudication = DecisionSerializer(allow_null=True)


class WorkSerializer(strict.Serializer):
    """A ranking of one person. `ranks` are not shown here: they follow the order of a comparison in full."""

    ranking = serializers.IntegerField(source="pk")
    comparison = serializers.IntegerField(source="comparison_id")
    standing = serializers.ChoiceField(choices=Ranking.Standing.choices)
    seconds = serializers.FloatField()
    created_at = serializers.DateTimeField()


class PageQuery(strict.Serializer):
    offset = serializers.IntegerField(default=0, min_value=0, max_value=1_000_000)
    limit = serializers.IntegerField(default=25, min_value=1, max_value=MOST_A_PAGE)


class AdjudicationRequest(RankingRequest):
    reason = serializers.CharField(default="", allow_blank=True, max_length=MAX_REASON_LENGTH)


class ReasonRequest(strict.Serializer):
    reason = serializers.CharField(max_length=MAX_REASON_LENGTH, help_text="The annotator will read it.")


class SinceQuery(strict.Serializer):
    since = serializers.DateTimeField()


class DiscardPreviewSerializer(strict.Serializer):
    """What discarding all that somebody said since then would take out."""

    rankings = serializers.IntegerField(help_text="Send it as `expected`.")
    gold = serializers.IntegerField(help_text="Of these, of comparisons whose answer is known.")
    reopened = serializers.IntegerField(help_text="Comparisons that would want a ranking again.")


class DiscardRequest(ReasonRequest, SinceQuery):
    expected = serializers.IntegerField(min_value=1, help_text="How many rankings it will be, as the GET said.")


@extend_schema(operation_id="review_disagreements", parameters=[PageQuery], responses=DisagreementSerializer(many=True))
@api_view(["GET"])
def disagreement_list(request: Request, slug: str) -> Response:
    """What people disagree on and nobody has settled, worst first."""
    membership = members.reviewer_of(request.user, slug)
    return Response(
        DisagreementSerializer(_page(request, review_cases.disagreements(membership.project)), many=True).data
    )


@extend_schema(operation_id="review_case", responses=CaseSerializer)
@api_view(["GET"])
def case_detail(request: Request, slug: str, comparison_id: int) -> Response:
    """One comparison with all that was said of it, and by whom."""
    return Response(CaseSerializer(review_cases.case(members.reviewer_of(request.user, slug), comparison_id)).data)


@extend_schema(operation_id="review_adjudicate", request=AdjudicationRequest, responses={201: CaseSerializer})
@api_view(["POST"])
def case_adjudicate(request: Request, slug: str, comparison_id: int) -> Response:
    """Settle the comparison: one's own ranking is the only one that makes preferences from now on."""
    membership = members.reviewer_of(request.user, slug)
    given = _checked(AdjudicationRequest(data=request.data))
    reviews.adjudicate(membership, comparison_id, given.pop("ranks"), **given)
    return Response(CaseSerializer(review_cases.case(membership, comparison_id)).data, status=201)


@extend_schema(operation_id="review_return", request=ReasonRequest, responses={201: DecisionSerializer})
@api_view(["POST"])
def ranking_return(request: Request, slug: str, ranking_id: int) -> Response:
    """Give a ranking back to its annotator, with a reason. It counts no more until they have answered."""
    membership = members.reviewer_of(request.user, slug)
    given = _checked(ReasonRequest(data=request.data))
    return Response(DecisionSerializer(reviews.return_ranking(membership, ranking_id, **given)).data, status=201)


@extend_schema(operation_id="review_discard", request=ReasonRequest, responses={201: DecisionSerializer})
@api_view(["POST"])
def ranking_discard(request: Request, slug: str, ranking_id: int) -> Response:
    """Take a ranking out of the preferences. It stays in the record, and its slot opens for somebody else."""
    membership = members.reviewer_of(request.user, slug)
    given = _checked(ReasonRequest(data=request.data))
    return Response(DecisionSerializer(reviews.discard(membership, ranking_id, **given)).data, status=201)


@extend_schema(operation_id="review_work", parameters=[PageQuery], responses=WorkSerializer(many=True))
@api_view(["GET"])
def work_list(request: Request, slug: str, user_id: int) -> Response:
    """One person's rankings, the newest first, whatever became of them."""
    project = members.reviewer_of(request.user, slug).project
    somebody = members.current_or_former_member(project, user_id)
    return Response(WorkSerializer(_page(request, review_cases.work_of(project, somebody.pk)), many=True).data)


@extend_schema(
    methods=["GET"], operation_id="review_discard_preview", parameters=[SinceQuery], responses=DiscardPreviewSerializer
)
@extend_schema(
    methods=["POST"], operation_id="review_discard_since", request=DiscardRequest, responses={201: DecisionSerializer}
)
@api_view(["GET", "POST"])
def work_discard(request: Request, slug: str, user_id: int) -> Response:
    """Discard all that one person has said since a moment: first what it would take out, then all of it or nothing."""
    membership = members.reviewer_of(request.user, slug)
    somebody = members.current_or_former_member(membership.project, user_id)
    if request.method == "GET":
        wanted = _checked(SinceQuery(data=request.query_params.dict()))
        return Response(
            DiscardPreviewSerializer(reviews.discard_preview(membership, somebody.pk, wanted["since"])).data
        )
    given = _checked(DiscardRequest(data=request.data))
    return Response(DecisionSerializer(reviews.discard_since(membership, somebody.pk, **given)).data, status=201)


@extend_schema(operation_id="review_decisions", parameters=[PageQuery], responses=DecisionSerializer(many=True))
@api_view(["GET"])
def decision_list(request: Request, slug: str) -> Response:
    """What reviewers decided, the newest first."""
    membership = members.reviewer_of(request.user, slug)
    return Response(DecisionSerializer(_page(request, review_cases.decisions(membership.project)), many=True).data)


@extend_schema(operation_id="review_undo", request=None, responses=DecisionSerializer)
@api_view(["POST"])
def decision_undo(request: Request, slug: str, decision_id: int) -> Response:
    """Take a decision back. It stays in the record."""
    return Response(DecisionSerializer(review_undo.undo(members.reviewer_of(request.user, slug), decision_id)).data)


def _page(request: Request, found: Any) -> Any:
    wanted = _checked(PageQuery(data=request.query_params.dict()))
    return found[wanted["offset"] : wanted["offset"] + wanted["limit"]]


def _checked(given: serializers.Serializer) -> dict[str, Any]:
    given.is_valid(raise_exception=True)
    return dict(given.validated_data)
