"""Trials, for managers: start one from stored completions, follow its evidence, end it."""

from typing import Any

from django.utils.translation import gettext as _
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from feedback.actions import members, trials
from feedback.api import strict
from feedback.api.pages import ListQuery, as_page
from feedback.api.views import api_view
from feedback.errors import Invalid
from feedback.models import Project, Source, Trial
from feedback.models.trials import MAX_SOURCES
from feedback.quality.trial_evidence import Decision
from feedback.reports import trials as trial_reports
from feedback.reports.trials import TrialEvidence

MAX_COMPLETIONS = 100_000  # named in one request


class TrialSerializer(strict.ModelSerializer):
    """A trial. Its comparisons look like all others to annotators."""

    status = serializers.SerializerMethodField(help_text="open or ended.")
    sources = serializers.SerializerMethodField(help_text="The source to beat first, then the candidates.")
    decision = serializers.CharField(
        help_text=f"Empty while the trial is open, then one of: {', '.join(trials.DECISIONS)}."
    )
    chosen = serializers.CharField(source="chosen.name", default=None, help_text="Source that the decision favours.")
    started_by = serializers.CharField(source="started_by.username", default=None)
    ended_by = serializers.CharField(
        source="ended_by.username", default=None, help_text="Null, with a decision: the project's rule ended it."
    )

    class Meta:
        model = Trial
        fields: tuple[str, ...] = (
            *("number", "status", "sources", "share", "may_train", "worthwhile_share", "identical", "partly_identical"),
            *("decision", "chosen", "decision_note", "started_by", "created_at", "ended_by", "ended_at"),
        )

    def get_status(self, trial: Trial) -> str:
        return "open" if trial.is_open else "ended"

    def get_sources(self, trial: Trial) -> list[str]:
        return [row.source.name for row in trial.trial_sources.all()]


class PairEvidenceSerializer(strict.Serializer):
    """The votes between a candidate and another source, which may be looked at after every vote."""

    candidate = serializers.CharField(source="candidate.name")
    other = serializers.CharField(source="other.name")
    wins = serializers.IntegerField(source="evidence.wins", help_text="Decisive votes for the candidate.")
    losses = serializers.IntegerField(source="evidence.losses")
    ties = serializers.IntegerField(source="evidence.ties", help_text="With the prompts of `identical`.")
    identical = serializers.IntegerField(help_text="Prompts on which all sources wrote the same text.")
    win_share = serializers.FloatField(
        source="evidence.win_share", allow_null=True, help_text="Of the decisive votes; null: there are none."
    )
    low = serializers.FloatField(source="evidence.low", help_text="Ends of the always-valid interval of the win share.")
    high = serializers.FloatField(source="evidence.high")
    win_rate = serializers.FloatField(
        source="evidence.win_rate", allow_null=True, help_text="Of all votes, a tie counts half; null: there are none."
    )
    decision = serializers.ChoiceField(
        choices=[decision.value for decision in Decision], source="evidence.decision", help_text="Of these votes."
    )
    decided_after = serializers.IntegerField(
        source="evidence.decided_after", allow_null=True, help_text="Decisive votes until the decision; null: open."
    )


class TrialDetailSerializer(TrialSerializer):
    """A trial with its evidence, computed now."""

    comparisons = serializers.SerializerMethodField()
    left = serializers.SerializerMethodField(help_text="Comparisons without a vote.")
    votes = serializers.SerializerMethodField()
    pairs = serializers.SerializerMethodField(help_text="Those with the source to beat first.")

    class Meta(TrialSerializer.Meta):
        fields = (*TrialSerializer.Meta.fields, "comparisons", "left", "votes", "pairs")

    def _evidence(self) -> TrialEvidence:
        return self.context["evidence"]

    def get_comparisons(self, trial: Trial) -> int:
        return self._evidence().comparisons

    def get_left(self, trial: Trial) -> int:
        return self._evidence().left

    def get_votes(self, trial: Trial) -> int:
        return self._evidence().votes

    @extend_schema_field(PairEvidenceSerializer(many=True))
    def get_pairs(self, trial: Trial) -> list[dict[str, Any]]:
        return PairEvidenceSerializer(self._evidence().pairs, many=True).data


class TrialRequest(strict.Serializer):
    """A trial to start."""

    sources = serializers.ListField(
        child=serializers.CharField(max_length=200),
        min_length=trials.MIN_SOURCES,
        max_length=MAX_SOURCES,
        help_text="Names of sources: the one to beat, then the candidates.",
    )
    completion_ids = serializers.ListField(
        child=serializers.IntegerField(min_value=1, max_value=strict.MAX_BIGINT),
        required=False,
        max_length=MAX_COMPLETIONS,
        help_text="Compare these completions only. Default: the oldest one of each source and prompt.",
    )
    share = serializers.IntegerField(
        default=25, min_value=1, max_value=100, help_text="Share of everybody's work, in percent."
    )
    may_train = serializers.BooleanField(
        default=True, help_text="Whether rounds may learn from its rankings on training prompts."
    )
    worthwhile_share = serializers.FloatField(
        default=0.5,
        min_value=0.5,
        help_text="A candidate that surely wins fewer of the decisive votes is futile; below 1.",
    )
    most_prompts = serializers.IntegerField(
        required=False, min_value=1, help_text="Use at most so many prompts, held-out ones first. Default: all."
    )


class TrialEndRequest(strict.Serializer):
    decision = serializers.ChoiceField(choices=trials.DECISIONS)
    chosen = serializers.CharField(
        default=None, allow_null=True, max_length=200, help_text="Name of the source that the decision favours."
    )
    note = serializers.CharField(default="", allow_blank=True, max_length=trials.MAX_NOTE_LENGTH)


@extend_schema(
    methods=["GET"], operation_id="trials_list", parameters=[ListQuery], responses=TrialSerializer(many=True)
)
@extend_schema(
    methods=["POST"], operation_id="trials_start", request=TrialRequest, responses={201: TrialDetailSerializer}
)
@api_view(["GET", "POST"])
def trial_list(request: Request, slug: str) -> Response:
    """List the trials, the newest first, or start one on the prompts that all its sources have answered.

    Annotators compare one completion of each source, blind, in the given share of their work. One trial may be open.
    """
    project = members.manager_of(request.user, slug).project
    if request.method == "GET":
        return as_page(request, trial_reports.trials_of(project), TrialSerializer, key="number")
    options = strict.validated(TrialRequest(data=request.data))
    sources = _sources(project, options.pop("sources"))
    options["completions"] = options.pop("completion_ids", None)
    trial = trials.start_trial(project, sources, actor=request.user, **options)
    return Response(_detail(trial), status=201)


@extend_schema(operation_id="trials_get", responses=TrialDetailSerializer)
@api_view(["GET"])
def trial_detail(request: Request, slug: str, number: int) -> Response:
    """Return a trial with its votes and evidence, computed now."""
    project = members.manager_of(request.user, slug).project
    return Response(_detail(trials.find_trial(project, number)))


@extend_schema(operation_id="trials_end", request=TrialEndRequest, responses=TrialDetailSerializer)
@api_view(["POST"])
def trial_end(request: Request, slug: str, number: int) -> Response:
    """End a trial with a decision. Comparisons that nobody has worked on are deleted; its votes stay on record."""
    project = members.manager_of(request.user, slug).project
    values = strict.validated(TrialEndRequest(data=request.data))
    if values["chosen"] is not None:
        (values["chosen"],) = _sources(project, [values["chosen"]])
    return Response(_detail(trials.end_trial(trials.find_trial(project, number), actor=request.user, **values)))


def _detail(trial: Trial) -> dict[str, Any]:
    return TrialDetailSerializer(trial, context={"evidence": trial_reports.evidence_of(trial)}).data


def _sources(project: Project, names: list[str]) -> list[Source]:
    """Return the sources with these names, in their order. Raises Invalid."""
    by_name = {source.name: source for source in project.sources.filter(name__in=names)}
    if missing := [name for name in names if name not in by_name]:
        raise Invalid(_('There is no source "%(name)s" in this project.') % {"name": missing[0]})
    return [by_name[name] for name in names]
