"""Review, for reviewers and managers: disagreements, one person's rankings, and decisions about rankings.

A comparison is shown in the reviewer's own display order, without its sources, so that adjudication is as blind as
ranking. All `ranks` follow that order.
"""

from typing import Any

from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from feedback.actions import demonstrations, members, review_undo, reviews
from feedback.actions.review_revisions import MAX_REASON_LENGTH
from feedback.api import strict
from feedback.api.annotation import TURNS_HELP, MessageSerializer, RankingRequest, TurnsField
from feedback.api.views import api_view
from feedback.dialogues import Turns, turns_of
from feedback.models import Ranking, Review
from feedback.reports import review_cases

MAX_PAGE_SIZE = 100


class DisagreementSerializer(strict.Serializer):
    comparison = serializers.IntegerField(source="pk")
    disagreement = serializers.FloatField(help_text="Share of opposed preferences, 0 to 1.")
    ranking_count = serializers.IntegerField()


class ReviewedRankingSerializer(strict.Serializer):
    """The last revision of one person's ranking, whether it counts or not."""

    ranking = serializers.IntegerField(source="ranking.pk")
    annotator = serializers.CharField(source="ranking.annotator.username")
    ranks = serializers.ListField(child=serializers.IntegerField())
    standing = serializers.ChoiceField(choices=Ranking.Standing.choices, source="ranking.standing")
    is_adjudication = serializers.BooleanField()
    decision = serializers.IntegerField(
        source="ranking.review_id", allow_null=True, help_text="The decision that set the standing."
    )
    seconds = serializers.FloatField(source="ranking.seconds")
    comment = serializers.CharField(source="ranking.comment")
    strength = serializers.IntegerField(source="ranking.strength", allow_null=True)
    flags = serializers.ListField(source="ranking.flags", child=serializers.CharField())
    created_at = serializers.DateTimeField(source="ranking.created_at")


class DecisionSerializer(strict.Serializer):
    decision = serializers.IntegerField(source="pk")
    kind = serializers.ChoiceField(choices=Review.Kind.choices)
    reviewer = serializers.CharField(source="reviewer.username")
    comparison = serializers.IntegerField(
        source="comparison_id", allow_null=True, help_text="Null: the decision is about several comparisons."
    )
    annotator = serializers.CharField(source="annotator.username", allow_null=True, default=None)
    demonstration = serializers.IntegerField(
        source="demonstration_id", allow_null=True, help_text="The demonstration that the decision discards, if any."
    )
    reason = serializers.CharField()
    ranking_count = serializers.IntegerField(help_text="Number of rankings that the decision changed.")
    created_at = serializers.DateTimeField()
    undone_at = serializers.DateTimeField(allow_null=True)
    undone_by = serializers.CharField(source="undone_by.username", allow_null=True, default=None)


class CaseSerializer(strict.Serializer):
    comparison = serializers.IntegerField(source="comparison.pk")
    disagreement = serializers.FloatField(source="comparison.disagreement")
    messages = MessageSerializer(source="comparison.prompt.messages", many=True)
    completions = serializers.SerializerMethodField(help_text="Texts in display order.")
    turns = serializers.SerializerMethodField(help_text=TURNS_HELP)
    adjudication = DecisionSerializer(allow_null=True)

    def get_completions(self, case: review_cases.Case) -> list[str]:
        return [answer.text for answer in case.answers]

    @extend_schema_field(TurnsField())
    def get_turns(self, case: review_cases.Case) -> list[Turns | None]:
        return turns_of(case.answers)

    def get_fields(self) -> dict[str, serializers.Field]:
        # The JSON name of the rankings is older than the glossary, which does not allow it as an identifier.
        return super().get_fields() | {"opinions": ReviewedRankingSerializer(many=True, source="rankings")}


class WorkSerializer(strict.Serializer):
    """A ranking of one person, without `ranks`: they can only be read beside the texts of the comparison."""

    ranking = serializers.IntegerField(source="pk")
    comparison = serializers.IntegerField(source="comparison_id")
    standing = serializers.ChoiceField(choices=Ranking.Standing.choices)
    seconds = serializers.FloatField()
    created_at = serializers.DateTimeField()


class FlaggedSerializer(strict.Serializer):
    """A comparison with a flag for review."""

    comparison = serializers.IntegerField(source="pk")
    flags = serializers.ListField(child=serializers.CharField())
    flagged_by = serializers.CharField()
    flagged_at = serializers.DateTimeField()


class DemonstrationSerializer(strict.Serializer):
    demonstration = serializers.IntegerField(source="pk")
    prompt_id = serializers.IntegerField(source="completion.prompt_id")
    text = serializers.CharField(source="completion.text")
    author = serializers.CharField(
        source="completion.author.username", allow_null=True, default=None, help_text="Null: it was imported."
    )
    pair = serializers.IntegerField(
        source="pair_id",
        allow_null=True,
        help_text="The comparison of the demonstration with the completion that it was edited from.",
    )
    is_discarded = serializers.BooleanField()
    created_at = serializers.DateTimeField()


class PageQuery(strict.Serializer):
    offset = serializers.IntegerField(default=0, min_value=0, max_value=1_000_000)
    limit = serializers.IntegerField(default=25, min_value=1, max_value=MAX_PAGE_SIZE)


class AdjudicationRequest(RankingRequest):
    reason = serializers.CharField(default="", allow_blank=True, max_length=MAX_REASON_LENGTH)


class ReasonRequest(strict.Serializer):
    reason = serializers.CharField(max_length=MAX_REASON_LENGTH, help_text="The annotator will read this text.")


class SinceQuery(strict.Serializer):
    since = serializers.DateTimeField()


class DiscardPreviewSerializer(strict.Serializer):
    """Effect of discarding all rankings of one person since a time."""

    rankings = serializers.IntegerField(help_text="Number of rankings; send it as `expected`.")
    gold = serializers.IntegerField(help_text="Number of these rankings that are of gold comparisons.")
    reopened = serializers.IntegerField(help_text="Number of comparisons that would want a ranking again.")


class DiscardRequest(ReasonRequest, SinceQuery):
    expected = serializers.IntegerField(
        min_value=1, help_text="Number of rankings from the preview (GET). If it has changed, nothing is discarded."
    )


@extend_schema(operation_id="review_disagreements", parameters=[PageQuery], responses=DisagreementSerializer(many=True))
@api_view(["GET"])
def disagreement_list(request: Request, slug: str) -> Response:
    """List comparisons with disagreement that are not adjudicated, the largest disagreement first."""
    membership = members.reviewer_of(request.user, slug)
    return Response(
        DisagreementSerializer(_page(request, review_cases.disagreements(membership.project)), many=True).data
    )


@extend_schema(operation_id="review_case", responses=CaseSerializer)
@api_view(["GET"])
def case_detail(request: Request, slug: str, comparison_id: int) -> Response:
    """Return one comparison with all rankings of it and their annotators."""
    return Response(CaseSerializer(review_cases.case(members.reviewer_of(request.user, slug), comparison_id)).data)


@extend_schema(operation_id="review_adjudicate", request=AdjudicationRequest, responses={201: CaseSerializer})
@api_view(["POST"], commits=True)
def case_adjudicate(request: Request, slug: str, comparison_id: int) -> Response:
    """Adjudicate the comparison: the reviewer's ranking replaces the others in the preferences from now on."""
    membership = members.reviewer_of(request.user, slug)
    ranking = strict.validated(AdjudicationRequest(data=request.data))
    reviews.adjudicate(membership, comparison_id, ranking.pop("ranks"), **ranking)
    return Response(CaseSerializer(review_cases.case(membership, comparison_id)).data, status=201)


@extend_schema(operation_id="review_return", request=ReasonRequest, responses={201: DecisionSerializer})
@api_view(["POST"], commits=True)
def ranking_return(request: Request, slug: str, ranking_id: int) -> Response:
    """Return a ranking to its annotator with a reason. It does not count until the annotator ranks again."""
    membership = members.reviewer_of(request.user, slug)
    reason = strict.validated(ReasonRequest(data=request.data))["reason"]
    return Response(DecisionSerializer(reviews.return_ranking(membership, ranking_id, reason=reason)).data, status=201)


@extend_schema(operation_id="review_discard", request=ReasonRequest, responses={201: DecisionSerializer})
@api_view(["POST"], commits=True)
def ranking_discard(request: Request, slug: str, ranking_id: int) -> Response:
    """Discard a ranking. It leaves the preferences and stays in the record; its slot opens for another annotator."""
    membership = members.reviewer_of(request.user, slug)
    reason = strict.validated(ReasonRequest(data=request.data))["reason"]
    return Response(DecisionSerializer(reviews.discard(membership, ranking_id, reason=reason)).data, status=201)


@extend_schema(operation_id="review_flagged", parameters=[PageQuery], responses=FlaggedSerializer(many=True))
@api_view(["GET"])
def flagged_list(request: Request, slug: str) -> Response:
    """List comparisons with a flag for review that no reviewer has settled or kept since, newest first."""
    membership = members.reviewer_of(request.user, slug)
    return Response(FlaggedSerializer(_page(request, review_cases.flagged(membership.project)), many=True).data)


@extend_schema(operation_id="review_keep", request=None, responses={201: DecisionSerializer})
@api_view(["POST"], commits=True)
def case_keep(request: Request, slug: str, comparison_id: int) -> Response:
    """Keep a comparison with a flag for review as it is: it leaves the list, and its rankings still count."""
    membership = members.reviewer_of(request.user, slug)
    return Response(DecisionSerializer(reviews.keep(membership, comparison_id)).data, status=201)


@extend_schema(
    operation_id="review_demonstrations", parameters=[PageQuery], responses=DemonstrationSerializer(many=True)
)
@api_view(["GET"])
def demonstration_list(request: Request, slug: str) -> Response:
    """List the demonstrations, newest first, discarded ones too."""
    membership = members.reviewer_of(request.user, slug)
    rows = _page(request, review_cases.demonstrations(membership.project))
    return Response(DemonstrationSerializer(rows, many=True).data)


@extend_schema(operation_id="review_discard_demonstration", request=ReasonRequest, responses={201: DecisionSerializer})
@api_view(["POST"], commits=True)
def demonstration_discard(request: Request, slug: str, demonstration_id: int) -> Response:
    """Discard a demonstration, and the ranking of it and its origin: no round and no export uses them."""
    membership = members.reviewer_of(request.user, slug)
    reason = strict.validated(ReasonRequest(data=request.data))["reason"]
    decision = demonstrations.discard(membership, demonstration_id, reason=reason)
    return Response(DecisionSerializer(decision).data, status=201)


@extend_schema(operation_id="review_work", parameters=[PageQuery], responses=WorkSerializer(many=True))
@api_view(["GET"])
def work_list(request: Request, slug: str, user_id: int) -> Response:
    """List one person's rankings, newest first, whether they count or not."""
    project = members.reviewer_of(request.user, slug).project
    annotator = members.current_or_former_member(project, user_id)
    return Response(WorkSerializer(_page(request, review_cases.rankings_of(project, annotator.pk)), many=True).data)


@extend_schema(
    methods=["GET"], operation_id="review_discard_preview", parameters=[SinceQuery], responses=DiscardPreviewSerializer
)
@extend_schema(
    methods=["POST"], operation_id="review_discard_since", request=DiscardRequest, responses={201: DecisionSerializer}
)
@api_view(["GET", "POST"], commits=True)
def work_discard(request: Request, slug: str, user_id: int) -> Response:
    """Preview (GET) or discard (POST) all rankings of one person since a time, all or none."""
    membership = members.reviewer_of(request.user, slug)
    annotator = members.current_or_former_member(membership.project, user_id)
    if request.method == "GET":
        since = strict.validated_query(SinceQuery, request)["since"]
        return Response(DiscardPreviewSerializer(reviews.discard_preview(membership, annotator.pk, since)).data)
    discard = strict.validated(DiscardRequest(data=request.data))
    return Response(DecisionSerializer(reviews.discard_since(membership, annotator.pk, **discard)).data, status=201)


@extend_schema(operation_id="review_decisions", parameters=[PageQuery], responses=DecisionSerializer(many=True))
@api_view(["GET"])
def decision_list(request: Request, slug: str) -> Response:
    """List the decisions of reviewers, newest first."""
    membership = members.reviewer_of(request.user, slug)
    return Response(DecisionSerializer(_page(request, review_cases.decisions(membership.project)), many=True).data)


@extend_schema(operation_id="review_undo", request=None, responses=DecisionSerializer)
@api_view(["POST"], commits=True)
def decision_undo(request: Request, slug: str, decision_id: int) -> Response:
    """Undo a decision. It stays in the record."""
    return Response(DecisionSerializer(review_undo.undo(members.reviewer_of(request.user, slug), decision_id)).data)


def _page(request: Request, rows: Any) -> Any:
    query = strict.validated_query(PageQuery, request)
    return rows[query["offset"] : query["offset"] + query["limit"]]
