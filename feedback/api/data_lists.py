"""The lists of all data and single rows of them, with the filters of the pages *Data*. For managers."""

from typing import Any

from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from feedback.actions import data_rows, members
from feedback.api import strict
from feedback.api.annotation import MessageSerializer
from feedback.api.pages import FIELDS_HELP, only
from feedback.api.review import DecisionSerializer
from feedback.api.views import api_view
from feedback.models import Comparison, Prompt, Ranking
from feedback.reports.data import lists, rows
from feedback.reports.data.filters import MAX_SEARCH_LENGTH, Filters
from feedback.reports.data.pages import MAX_ROWS_PER_PAGE, ROWS_PER_PAGE

EXCERPT_HELP = f"The first {lists.EXCERPT} characters; for a prompt of its last message."
POSITION_HELP = "By position, from 0: the order in which `completions` of the comparison are stored."


class PromptRowSerializer(strict.Serializer):
    prompt = serializers.IntegerField(source="pk")
    split = serializers.ChoiceField(choices=Prompt.Split.choices)
    external_id = serializers.CharField(allow_null=True)
    excerpt = serializers.CharField(source="beginning", help_text=EXCERPT_HELP)
    completions = serializers.IntegerField(source="completion_count", help_text="Number of completions.")
    comparisons = serializers.IntegerField(source="comparison_count", help_text="Number of comparisons.")
    created_at = serializers.DateTimeField()


class CompletionRowSerializer(strict.Serializer):
    completion = serializers.IntegerField(source="pk")
    prompt = serializers.IntegerField(source="prompt_id")
    source = serializers.CharField(source="source.name")
    author = serializers.CharField(source="author.username", allow_null=True, default=None)
    excerpt = serializers.CharField(source="beginning", help_text=EXCERPT_HELP)
    is_demonstration = serializers.BooleanField()
    comparisons = serializers.IntegerField(source="comparison_count", help_text="Number of comparisons.")
    created_at = serializers.DateTimeField()


class ComparisonRowSerializer(strict.Serializer):
    comparison = serializers.IntegerField(source="pk")
    prompt = serializers.IntegerField(source="prompt_id")
    size = serializers.IntegerField(help_text="Number of completions.")
    wanted_rankings = serializers.IntegerField()
    open_slots = serializers.IntegerField(help_text="Rankings that are still wanted and that nobody works on.")
    ranking_count = serializers.IntegerField()
    skips = serializers.IntegerField(source="skip_count", help_text="Number of skips.")
    disagreement = serializers.FloatField(help_text="Share of opposed preferences, 0 to 1.")
    is_gold = serializers.SerializerMethodField()
    adjudicated_at = serializers.DateTimeField(allow_null=True)
    created_at = serializers.DateTimeField()

    def get_is_gold(self, comparison: Comparison) -> bool:
        return comparison.gold_ranks is not None


class RankingRowSerializer(strict.Serializer):
    """One revision of a ranking."""

    ranking = serializers.IntegerField(source="pk")
    comparison = serializers.IntegerField(source="comparison_id")
    annotator = serializers.CharField(source="annotator.username")
    ranks = serializers.ListField(child=serializers.IntegerField(), help_text=POSITION_HELP)
    seconds = serializers.FloatField()
    comment = serializers.CharField()
    strength = serializers.IntegerField(allow_null=True)
    flags = serializers.ListField(child=serializers.CharField())
    reason = serializers.CharField(help_text="Why the queue chose the comparison.")
    revision = serializers.IntegerField()
    is_live = serializers.BooleanField()
    standing = serializers.ChoiceField(choices=Ranking.Standing.choices)
    created_at = serializers.DateTimeField(help_text="When the annotator ranked.")


class DemonstrationRowSerializer(strict.Serializer):
    demonstration = serializers.IntegerField(source="pk")
    completion = serializers.IntegerField(source="completion_id")
    prompt = serializers.IntegerField(source="completion.prompt_id")
    source = serializers.CharField(source="completion.source.name")
    author = serializers.CharField(source="completion.author.username", allow_null=True, default=None)
    excerpt = serializers.CharField(source="beginning", help_text=EXCERPT_HELP)
    pair = serializers.IntegerField(
        source="pair_id", allow_null=True, help_text="Comparison with the completion that it was edited from."
    )
    is_discarded = serializers.BooleanField()
    withdrawn_at = serializers.DateTimeField(allow_null=True)
    created_at = serializers.DateTimeField()


class SkipRowSerializer(strict.Serializer):
    skip = serializers.IntegerField(source="pk")
    comparison = serializers.IntegerField(source="comparison_id")
    annotator = serializers.CharField(source="annotator.username")
    reason = serializers.CharField()
    created_at = serializers.DateTimeField()


class PromptDetailSerializer(strict.Serializer):
    prompt = serializers.IntegerField(source="prompt.pk")
    split = serializers.ChoiceField(choices=Prompt.Split.choices, source="prompt.split")
    messages = MessageSerializer(many=True, source="prompt.messages")
    external_ids = serializers.SerializerMethodField()
    references = serializers.JSONField(source="prompt.references")
    metadata = serializers.JSONField(source="prompt.metadata")
    completions = serializers.SerializerMethodField(help_text=f"Ids, newest first, at most {rows.MAX_LISTED}.")
    comparisons = serializers.SerializerMethodField(help_text=f"Ids, newest first, at most {rows.MAX_LISTED}.")
    created_at = serializers.DateTimeField(source="prompt.created_at")

    def get_external_ids(self, row: rows.PromptRow) -> list[str]:
        return [name.value for name in row.prompt.external_ids.all()]

    def get_completions(self, row: rows.PromptRow) -> list[int]:
        return [completion.pk for completion in row.completions]

    def get_comparisons(self, row: rows.PromptRow) -> list[int]:
        return [comparison.pk for comparison in row.comparisons]


class ItemSerializer(strict.Serializer):
    """A completion of a comparison; they come by position."""

    completion = serializers.IntegerField(source="completion_id")
    source = serializers.CharField(source="completion.source.name")
    text = serializers.CharField(source="completion.text")
    turns = MessageSerializer(many=True, source="completion.turns", allow_null=True)


class EventSerializer(strict.Serializer):
    """Something that happened to a comparison."""

    event = serializers.ChoiceField(
        choices=rows.KINDS,
        source="kind",
        help_text="`lease`: somebody holds it or held it until the time ran out. `revision`: a revision of a ranking "
        "that a decision, or its undo, wrote.",
    )
    at = serializers.DateTimeField()
    who = serializers.CharField(allow_blank=True, help_text="Username; empty where nobody is known.")
    ranking = RankingRowSerializer(allow_null=True)
    decision = DecisionSerializer(source="review", allow_null=True)
    skip = SkipRowSerializer(allow_null=True)
    demonstration = serializers.IntegerField(source="demonstration.pk", allow_null=True, default=None)
    expires_at = serializers.DateTimeField(source="lease.expires_at", allow_null=True, default=None)


class ComparisonDetailSerializer(strict.Serializer):
    comparison = serializers.IntegerField(source="comparison.pk")
    prompt = serializers.IntegerField(source="comparison.prompt_id")
    messages = MessageSerializer(many=True, source="comparison.prompt.messages")
    completions = ItemSerializer(many=True, source="items")
    gold_ranks = serializers.SerializerMethodField(help_text=f"Null: it is not gold. {POSITION_HELP}")
    wanted_rankings = serializers.IntegerField(source="comparison.wanted_rankings")
    ranking_count = serializers.IntegerField(source="comparison.ranking_count")
    disagreement = serializers.FloatField(source="comparison.disagreement")
    adjudicated_at = serializers.DateTimeField(source="comparison.adjudicated_at", allow_null=True)
    events = EventSerializer(many=True, help_text="Everything that happened to it, oldest first.")

    @extend_schema_field(serializers.ListField(child=serializers.IntegerField(), allow_null=True))
    def get_gold_ranks(self, row: rows.ComparisonRow) -> list[int] | None:
        return row.comparison.gold_ranks


def _filter_fields(listed: lists.DataList) -> dict[str, serializers.Field]:
    """Return the query parameters of a list: new fields, because a serializer owns its fields."""
    fields: dict[str, serializers.Field] = {
        "search": serializers.CharField(
            default="",
            allow_blank=True,
            max_length=MAX_SEARCH_LENGTH,
            help_text='All words must occur. "In quotes": in a row; `or`: one of them; `-word`: without it.',
        ),
        "split": serializers.ChoiceField(choices=Prompt.Split.choices, default="", allow_blank=True),
        "external_id": serializers.CharField(default="", allow_blank=True, max_length=200),
        "source": serializers.CharField(default="", allow_blank=True, max_length=200, help_text="Name of the source."),
        "annotator": serializers.CharField(default="", allow_blank=True, max_length=150, help_text="Username."),
        "flag": serializers.CharField(default="", allow_blank=True, max_length=50),
        "state": serializers.ChoiceField(choices=listed.states or [""], default="", allow_blank=True),
        "has_comment": serializers.BooleanField(default=False),
        "has_reason": serializers.BooleanField(default=False),
        "since": serializers.DateTimeField(default=None, allow_null=True),
        "until": serializers.DateTimeField(default=None, allow_null=True, help_text="Not included."),
    }
    return {name: field for name, field in fields.items() if name in listed.filters}


def _query(listed: lists.DataList) -> type[serializers.Serializer]:
    fields = _filter_fields(listed) | {
        "sort": serializers.ChoiceField(choices=listed.sorts, default=listed.sorts[0]),
        "cursor": serializers.CharField(
            default="", allow_blank=True, max_length=200, help_text="`next` of the page before."
        ),
        "limit": serializers.IntegerField(default=ROWS_PER_PAGE, min_value=1, max_value=MAX_ROWS_PER_PAGE),
        "fields": serializers.CharField(default="", allow_blank=True, max_length=1000, help_text=FIELDS_HELP),
    }
    return type(f"Data{listed.name.title()}Query", (strict.Serializer,), fields)


def _list_view(listed: lists.DataList, row: type[serializers.Serializer], description: str) -> Any:
    """Return the view of a list."""
    query = _query(listed)
    page = type(
        f"Data{listed.name.title()}Page",
        (strict.Serializer,),
        {
            "rows": row(many=True),
            "next": serializers.CharField(
                allow_null=True, help_text="Cursor of the next page; null: this is the last."
            ),
        },
    )

    @extend_schema(operation_id=f"data_{listed.name}", parameters=[query], responses=page, description=description)
    @api_view(["GET"])
    def view(request: Request, slug: str) -> Response:
        project = members.manager_of(request.user, slug).project
        values = strict.validated_query(query, request)
        sort, cursor, size, fields = (values.pop(name) for name in ("sort", "cursor", "limit", "fields"))
        read = lists.read(listed, project, Filters(**values), sort=sort, cursor=cursor, size=size)
        return Response({"rows": only(row, read.rows, fields), "next": read.next or None})

    return view


prompt_list = _list_view(lists.PROMPTS, PromptRowSerializer, "List prompts. The search looks at their messages.")
completion_list = _list_view(
    lists.COMPLETIONS, CompletionRowSerializer, "List completions with their sources. The search looks at their texts."
)
comparison_list = _list_view(
    lists.COMPARISONS, ComparisonRowSerializer, "List comparisons. The search looks at the messages of their prompts."
)
ranking_list = _list_view(
    lists.RANKINGS,
    RankingRowSerializer,
    "List rankings of everybody: the live revisions, or those of a `state`. The search looks at comments.",
)
demonstration_list = _list_view(
    lists.DEMONSTRATIONS,
    DemonstrationRowSerializer,
    "List demonstrations; withdrawn ones with `state=withdrawn` only. The search looks at their texts.",
)
skip_list = _list_view(lists.SKIPS, SkipRowSerializer, "List skips. The search looks at their reasons.")


class PromptChanges(strict.Serializer):
    """Changes of a prompt. Its messages stay, because completions and rankings answer them."""

    references = serializers.ListField(
        child=serializers.CharField(), required=False, help_text="Reference answers, instead of those that it has."
    )
    metadata = serializers.DictField(required=False, help_text="Instead of the metadata that it has.")


class ComparisonChanges(strict.Serializer):
    """Changes of a comparison."""

    priority = serializers.IntegerField(
        required=False, min_value=-32768, max_value=32767, help_text="Higher priority is served first."
    )
    wanted_rankings = serializers.IntegerField(
        required=False, min_value=1, max_value=100, help_text="Not of gold, of a trial or of an adjudicated one."
    )


@extend_schema(methods=["GET"], operation_id="data_prompt", responses=PromptDetailSerializer)
@extend_schema(
    methods=["PATCH"], operation_id="data_prompt_change", request=PromptChanges, responses=PromptDetailSerializer
)
@extend_schema(methods=["DELETE"], operation_id="data_prompt_delete", responses={204: None})
@api_view(["GET", "PATCH", "DELETE"])
def prompt_detail(request: Request, slug: str, prompt_id: int) -> Response:
    """Return a prompt with the ids of its completions and comparisons; change it, or delete one without completions."""
    project = members.manager_of(request.user, slug).project
    if request.method == "DELETE":
        data_rows.delete_prompt(project, prompt_id)
        return Response(status=204)
    if request.method == "PATCH":
        data_rows.change_prompt(project, prompt_id, strict.validated(PromptChanges(data=request.data)))
    return Response(PromptDetailSerializer(rows.prompt_row(project, prompt_id)).data)


@extend_schema(methods=["GET"], operation_id="data_comparison", responses=ComparisonDetailSerializer)
@extend_schema(
    methods=["PATCH"],
    operation_id="data_comparison_change",
    request=ComparisonChanges,
    responses=ComparisonDetailSerializer,
)
@extend_schema(methods=["DELETE"], operation_id="data_comparison_delete", responses={204: None})
@api_view(["GET", "PATCH", "DELETE"])
def comparison_detail(request: Request, slug: str, comparison_id: int) -> Response:
    """Return a comparison with the sources of its completions and everything that happened to it; change or delete it.

    Only a comparison that nobody has worked on is deleted. 409: you hold a lease on it. Rank or skip it before you read
    the others' rankings.
    """
    membership = members.manager_of(request.user, slug)
    if request.method == "DELETE":
        data_rows.delete_comparison(membership.project, comparison_id)
        return Response(status=204)
    if request.method == "PATCH":
        rows.comparison_row(membership, comparison_id)  # refuses what the answer would show
        changes = strict.validated(ComparisonChanges(data=request.data))
        data_rows.change_comparison(membership.project, comparison_id, changes)
    return Response(ComparisonDetailSerializer(rows.comparison_row(membership, comparison_id)).data)
