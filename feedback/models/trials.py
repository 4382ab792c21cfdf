"""Trials: blind comparisons of the completions of two to four sources by people, with a decision."""

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q

from feedback.models.people import Project, User
from feedback.models.prompts import Source

MAX_SOURCES = 4


class Trial(models.Model):
    """A trial of candidates against the source at position 0, such as that of the served checkpoint.

    While it is open, a share of everybody's work are its comparisons (`feedback/queue/claim.py`). Its evidence is
    computed from their rankings (`feedback/reports/trials.py`); `decision` is stored when the trial ends, and stays.
    """

    class Outcome(models.TextChoices):
        """Decision of a trial that has ended; the first three are those of `quality.trial_evidence.Decision`."""

        BETTER = "better"
        WORSE = "worse"
        FUTILE = "futile"
        UNDECIDED = "undecided"

    project = models.ForeignKey(Project, models.CASCADE, related_name="trials", db_index=False)
    number = models.PositiveIntegerField()
    share = models.PositiveSmallIntegerField(
        default=25,
        validators=[MinValueValidator(1), MaxValueValidator(100)],
        help_text="Share of everybody's work, in percent.",
    )
    may_train = models.BooleanField(
        default=True, help_text="Rounds may learn from its rankings on training prompts; never from held-out ones."
    )
    worthwhile_share = models.FloatField(
        default=0.5, help_text="The trial is futile once a candidate surely wins a smaller share of the decisive votes."
    )
    identical = models.PositiveIntegerField(
        default=0, help_text="Prompts on which all sources wrote the same text: ties, without a comparison."
    )
    partly_identical = models.PositiveIntegerField(
        default=0, help_text="Prompts on which some of three or four sources wrote the same text: left out."
    )
    decision = models.CharField(max_length=9, choices=Outcome.choices, blank=True, help_text="Empty while it is open.")
    chosen = models.ForeignKey(
        Source, models.RESTRICT, null=True, blank=True, related_name="+", help_text="Source that the decision favours."
    )
    decision_note = models.TextField(blank=True)
    started_by = models.ForeignKey(User, models.PROTECT, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    ended_at = models.DateTimeField(null=True, blank=True)
    ended_by = models.ForeignKey(
        User, models.PROTECT, null=True, blank=True, related_name="+", help_text="Null: the rule ended it."
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "number"], name="trial_number_once"),
            models.UniqueConstraint(fields=["project"], condition=Q(ended_at__isnull=True), name="one_open_trial"),
            models.CheckConstraint(condition=Q(share__gte=1, share__lte=100), name="trial_share"),
            models.CheckConstraint(
                condition=Q(worthwhile_share__gte=0.5, worthwhile_share__lt=1), name="trial_worthwhile_share"
            ),
            models.CheckConstraint(
                condition=Q(decision="", ended_at__isnull=True, chosen__isnull=True, ended_by__isnull=True)
                | Q(decision__in=["better", "worse", "futile", "undecided"], ended_at__isnull=False),
                name="trial_ends_with_a_decision",
            ),
        ]

    def __str__(self) -> str:
        return f"trial {self.number}"

    @property
    def is_open(self) -> bool:
        return self.ended_at is None


class TrialSource(models.Model):
    """A source of a trial. Position 0 is the source to beat, the others are candidates."""

    trial = models.ForeignKey(Trial, models.CASCADE, related_name="trial_sources", db_index=False)
    source = models.ForeignKey(Source, models.RESTRICT, related_name="trial_sources")
    position = models.PositiveSmallIntegerField()

    class Meta:
        ordering = ["position"]
        constraints = [
            models.UniqueConstraint(fields=["trial", "position"], name="trial_position_once"),
            models.UniqueConstraint(fields=["trial", "source"], name="trial_source_once"),
            models.CheckConstraint(condition=Q(position__lt=MAX_SOURCES), name="trial_source_position"),
        ]

    def __str__(self) -> str:
        return f"{self.source} in {self.trial}"
