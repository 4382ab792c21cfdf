"""Comparisons with their items, leases and skips.

Django's constraints cannot express all rules. SQL adds them (`feedback/sql`, migration `0002_integrity`): an item's
completion answers the comparison's prompt and has the digest of its text, a comparison has exactly `size` items at
positions 0 to `size` − 1, and a lease's display order is a permutation of them. Foreign keys with
`db_constraint=False` here are parts of a composite foreign key there.
"""

import uuid
from collections.abc import Sequence

from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.db import connection, models
from django.db.models import F, Q

from feedback.dialogues import Answer, answer_of
from feedback.models.imports import Import
from feedback.models.people import Project, User
from feedback.models.prompts import Completion, Prompt
from feedback.models.search import SearchVector
from feedback.models.trials import Trial

# Help text of two fields; `feedback/queue/gold.py` describes stand-ins.
STAND_IN = "For gold: the real comparison that it came before. It is offered again while that one has an open slot."
# Runs for every comparison that a page shows. The ORM takes longer to build this SQL than PostgreSQL takes to run it.
ANSWERS = """
    SELECT text, turns::text FROM feedback_comparisonitem AS item
    JOIN feedback_completion AS completion ON completion.id = item.completion_id
    WHERE item.comparison_id = %s ORDER BY position"""


class Comparisons(models.QuerySet["Comparison"]):
    """The selections of comparisons that the queue, figures and pages use."""

    def waiting_in(self, project: Project) -> "Comparisons":
        """Return the work that waits for rankings: open slots, without gold and trials that have ended."""
        waiting = self.filter(project=project, open_slots__gt=0, gold_ranks__isnull=True)
        # An outer join: a comparison of no trial has no end of a trial. Without an open trial, an index has the answer.
        return waiting.filter(trial__ended_at__isnull=True) if project.trial_percent else waiting.filter(trial=None)


class Comparison(models.Model):
    """A prompt with 2 to 9 of its completions, shown together.

    `open_slots` = wanted rankings − live rankings − live leases. Code that writes one of these updates it. A check
    constraint keeps it from falling below zero, so no more annotators than wanted can hold or rank the comparison. An
    adjudicated comparison has no open slots.
    """

    # Without an index of its own, because `comparison_newest` begins with this column.
    project = models.ForeignKey(Project, models.CASCADE, related_name="comparisons", db_index=False)
    prompt = models.ForeignKey(Prompt, models.CASCADE, related_name="comparisons", db_constraint=False)
    size = models.PositiveSmallIntegerField()
    wanted_rankings = models.PositiveSmallIntegerField(default=1)
    open_slots = models.SmallIntegerField(default=1)
    ranking_count = models.PositiveSmallIntegerField(default=0)
    extra_rankings = models.PositiveSmallIntegerField(default=0, help_text="Rankings requested for lack of a majority.")
    gold_ranks = ArrayField(
        models.PositiveSmallIntegerField(),
        null=True,
        blank=True,
        help_text="Right ranking of a gold comparison, by position. Null for real work.",
    )
    disagreement = models.FloatField(
        default=0,
        db_default=0,
        help_text="Share, 0 to 1, of opposed preferences among those of every two annotators. A trigger updates it.",
    )
    adjudicated_at = models.DateTimeField(
        null=True, blank=True, help_text="When a reviewer's ranking replaced all others."
    )
    priority = models.SmallIntegerField(default=0, help_text="Higher comes first.")
    shuffle_key = models.FloatField(
        help_text="In [0, 1). Orders comparisons of equal priority and ranking count, lowest first; see sampling.py."
    )
    route = models.TextField(
        default="",
        db_default="",
        blank=True,
        editable=False,
        help_text="Tags of the prompt that routing rules name, sorted, one a line. A trigger computes them.",
    )
    trial = models.ForeignKey(
        Trial,
        models.RESTRICT,
        null=True,
        blank=True,
        editable=False,
        related_name="comparisons",
        db_constraint=False,
        db_index=False,
        help_text="Trial that it belongs to, which no annotator may learn. Null: none.",
    )
    made_by_import = models.ForeignKey(Import, models.SET_NULL, null=True, editable=False, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    objects = Comparisons.as_manager()
    completions: models.ManyToManyField = models.ManyToManyField(Completion, through="ComparisonItem")
    known_answers: list[Answer] | None = None  # the completions by position, once they were read; they never change

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(size__gte=2, size__lte=9), name="comparison_size"),
            models.CheckConstraint(condition=Q(wanted_rankings__gte=1), name="comparison_wants_a_ranking"),
            models.CheckConstraint(
                condition=Q(open_slots__gte=0, open_slots__lte=F("wanted_rankings")), name="comparison_open_slots"
            ),
            models.CheckConstraint(
                condition=Q(adjudicated_at__isnull=True) | Q(open_slots=0, gold_ranks__isnull=True),
                name="comparison_adjudicated_is_settled",
            ),
            models.CheckConstraint(
                condition=Q(trial__isnull=True) | Q(gold_ranks__isnull=True), name="comparison_of_a_trial_is_no_gold"
            ),
        ]
        indexes = [
            models.Index(
                F("project"),
                F("route"),
                F("priority").desc(),
                F("ranking_count").desc(),
                F("shuffle_key"),
                name="comparison_queue",
                condition=Q(open_slots__gt=0, gold_ranks__isnull=True, trial__isnull=True),
            ),
            models.Index(
                F("trial"),
                F("route"),
                F("priority").desc(),
                F("ranking_count").desc(),
                F("shuffle_key"),
                name="comparison_trial_queue",
                condition=Q(open_slots__gt=0, trial__isnull=False),
            ),
            models.Index(fields=["trial"], name="comparison_of_trial", condition=Q(trial__isnull=False)),
            models.Index(
                fields=["project", "shuffle_key"], name="comparison_gold", condition=Q(gold_ranks__isnull=False)
            ),
            models.Index(
                F("project"),
                F("disagreement").desc(),
                F("id"),
                name="comparison_disagreements",
                condition=Q(disagreement__gt=0, adjudicated_at__isnull=True, gold_ranks__isnull=True),
            ),
            models.Index(fields=["project", "created_at", "id"], name="comparison_newest"),
            models.Index(
                fields=["project", "created_at", "id"],
                name="comparison_adjudicated",
                condition=Q(adjudicated_at__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"comparison {self.pk}"

    def answers(self, order: Sequence[int] | None = None) -> list[Answer]:
        """Return the completions by position, or in an order of positions (a lease's `display_order`)."""
        if self.known_answers is None:
            with connection.cursor() as cursor:
                cursor.execute(ANSWERS, [self.pk])
                self.known_answers = [answer_of(text, turns) for text, turns in cursor.fetchall()]
        answers = self.known_answers
        return [*answers] if order is None else [answers[position] for position in order]

    def texts(self, order: Sequence[int] | None = None) -> list[str]:
        """Return the completions' texts by position, or in an order of positions."""
        return [answer.text for answer in self.answers(order)]


class ComparisonItem(models.Model):
    """A completion of a comparison, at a position from 0 to size − 1. No text occurs twice in a comparison."""

    comparison = models.ForeignKey(Comparison, models.CASCADE, related_name="items", db_constraint=False)
    prompt = models.ForeignKey(Prompt, models.CASCADE, related_name="+", db_constraint=False, db_index=False)
    completion = models.ForeignKey(Completion, models.RESTRICT, related_name="items", db_constraint=False)
    position = models.PositiveSmallIntegerField()
    digest = models.CharField(max_length=64)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["comparison", "position"], name="item_position_once"),
            models.UniqueConstraint(fields=["comparison", "digest"], name="item_text_once"),
        ]

    def __str__(self) -> str:
        return f"{self.comparison} #{self.position}"


class Lease(models.Model):
    """The hold of an annotator on a comparison until `expires_at`.

    The row is deleted when they rank, skip or release the comparison. If the time runs out, the lease lapses: its slot
    opens, but the row stays for some days. It proves that the annotator was given the comparison, so a late submit is
    accepted while a slot is open.
    """

    class Reason(models.TextChoices):
        """The reason why the queue chose a comparison, for managers."""

        QUALIFICATION = "qualification"
        GOLD = "gold"
        DISAGREEMENT = "disagreement"
        STARTED = "started"
        SAMPLED = "sampled"
        RETURNED = "returned"  # by a reviewer, for this annotator to look at again
        ADJUDICATION = "adjudication"  # only of rankings: a reviewer settles a comparison without a lease
        DEMONSTRATION = "demonstration"  # only of rankings: an answer that was edited is better than its origin
        IMPORTED = "imported"  # only of rankings: it came with a file

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    project = models.ForeignKey(Project, models.CASCADE, related_name="leases", db_constraint=False, db_index=False)
    comparison = models.ForeignKey(
        Comparison, models.CASCADE, related_name="leases", db_constraint=False, db_index=False
    )
    # DO_NOTHING: a trigger opens the slots of a deleted account's leases. Django's cascade would delete the rows first.
    annotator = models.ForeignKey(User, models.DO_NOTHING, related_name="leases")
    size = models.PositiveSmallIntegerField()
    display_order = ArrayField(models.PositiveSmallIntegerField(), help_text="Positions in the order of display.")
    reason = models.CharField(max_length=13, choices=Reason.choices, default=Reason.SAMPLED)
    taken_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    lapsed_at = models.DateTimeField(null=True, blank=True, help_text="When its slot opened for other annotators.")
    stand_in = models.ForeignKey(
        Comparison, models.SET_NULL, null=True, editable=False, related_name="+", db_index=False, help_text=STAND_IN
    )

    withdrawn = models.ForeignKey(
        "Ranking",
        models.SET_NULL,
        null=True,
        editable=False,
        related_name="+",
        db_index=False,
        help_text="Ranking that the annotator withdrew. The page shows it again; it does not count.",
    )

    class Meta:
        constraints = [models.UniqueConstraint(fields=["comparison", "annotator"], name="lease_once")]
        indexes = [
            models.Index(fields=["project", "expires_at"], name="lease_expiry", condition=Q(lapsed_at__isnull=True)),
            models.Index(fields=["lapsed_at"], name="lease_lapsed", condition=Q(lapsed_at__isnull=False)),
            models.Index(fields=["stand_in"], name="lease_stand_in", condition=Q(stand_in__isnull=False)),
        ]

    def __str__(self) -> str:
        return f"{self.annotator} holds {self.comparison}"


class Skip(models.Model):
    """An annotator's decision not to rank a comparison, which is not offered to them again."""

    comparison = models.ForeignKey(Comparison, models.CASCADE, related_name="skips")
    annotator = models.ForeignKey(User, models.CASCADE, related_name="skips")
    lease_id = models.UUIDField(unique=True, help_text="Lease that the skip ended. A skip sent twice is stored once.")
    reason = models.CharField(max_length=500, blank=True)
    stand_in = models.ForeignKey(
        Comparison, models.SET_NULL, null=True, editable=False, related_name="+", db_index=False, help_text=STAND_IN
    )
    made_by_import = models.ForeignKey(
        Import, models.SET_NULL, null=True, editable=False, related_name="+", db_index=False
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["comparison", "annotator"], name="skip_once")]
        indexes = [
            models.Index(fields=["annotator", "-created_at"], name="skip_by_annotator"),
            models.Index(fields=["stand_in"], name="skip_stand_in", condition=Q(stand_in__isnull=False)),
            models.Index(fields=["made_by_import"], name="skip_imported", condition=Q(made_by_import__isnull=False)),
            models.Index(fields=["-created_at", "-id"], name="skip_newest"),
            GinIndex(SearchVector("reason"), name="skip_search", condition=~Q(reason="")),
        ]

    def __str__(self) -> str:
        return f"{self.annotator} skipped {self.comparison}"
