"""Rankings of comparisons by annotators."""

from datetime import datetime

from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.db import models
from django.db.models import Exists, OuterRef, Q

from feedback.models.comparisons import Comparison, Lease
from feedback.models.imports import Import
from feedback.models.people import Project, User
from feedback.models.reviews import Review
from feedback.models.search import SearchVector

# Reasons of rankings that were made without a lease. They count for training, and in no figure about annotators.
WITHOUT_LEASE = (Lease.Reason.ADJUDICATION, Lease.Reason.DEMONSTRATION)


class Rankings(models.QuerySet["Ranking"]):
    """The selections of rankings that figures, exports and training use."""

    def live_in(self, project: Project, *, until: datetime | None = None) -> "Rankings":
        """Return the live revisions of annotators' rankings, which all figures about annotators use.

        Overruled rankings are included. Adjudications are left out, because their reviewers saw the other rankings.
        Pairs of demonstrations are left out, because their author wrote one of the two texts.
        With `until`, the revisions that were live at that moment.
        """
        live = self.filter(is_live=True) if until is None else self._last_before(until)
        return live.filter(project=project).exclude(reason__in=WITHOUT_LEASE)

    def _last_before(self, until: datetime) -> "Rankings":
        """Return the last revision of each ranking before a moment, unless a reviewer has returned or discarded it."""
        same = Ranking.objects.filter(comparison=OuterRef("comparison"), annotator=OuterRef("annotator"))
        later = same.filter(revision__gt=OuterRef("revision"), created_at__lt=until)
        standings = [Ranking.Standing.COUNTS, Ranking.Standing.OVERRULED]
        return self.filter(~Exists(later), created_at__lt=until, standing__in=standings)

    def counting_in(self, project: Project) -> "Rankings":
        """Return the rankings that make preferences: live, and not overruled."""
        return self.filter(project=project, is_live=True, standing=Ranking.Standing.COUNTS)


class Ranking(models.Model):
    """One revision of an annotator's ranking of a comparison: a weak order of its completions.

    `ranks[i]` is the rank of the item at position i. 1 is best, equal ranks are ties. Ranks are dense (1, 2, 2, 3: no
    number is left out), so that a weak order can be written in one way only. A ranking is never edited. A correction
    is a new row with the next `revision`, and the old row is no longer live.

    A reviewer's decision about a ranking is a new revision, too: a copy with another `standing` and the `review` that
    gave it. A ranking that its annotator undoes gets a revision that is `withdrawn`, without a review. The rows of a
    person who left have no content, and are `erased`. The live row is
    the annotator's last revision that nobody has discarded, returned or withdrawn; it makes preferences if its
    standing is `counts`. So all rankings of an adjudicated comparison stay live, and only the reviewer's counts.

    The database checks that the ranks cover exactly the comparison's completions: (comparison, project, size) is a
    foreign key to the comparison, and both arrays must have `size` elements (migration `0002_integrity`).

    `ratings` is `{attribute: [rating or null by position]}`. `spans` is a list of `{"completion": position, "start",
    "end", "mark": "good" or "bad"}`: offsets in characters (Unicode code points) into that completion's source text,
    `end` not included, sorted by completion and start, without overlaps (`feedback.actions.spans` makes them from the
    page's marks). `feedback/sql/ratings_and_spans.sql` checks the form of both.
    """

    class Standing(models.TextChoices):
        COUNTS = "counts"
        OVERRULED = "overruled"  # by an adjudication: counts for agreement, but makes no preference
        RETURNED = "returned"  # to its annotator, who has not answered yet
        DISCARDED = "discarded"
        WITHDRAWN = "withdrawn"  # by its annotator, who undid it
        ERASED = "erased"  # with the account of its annotator; the row has no content

    project = models.ForeignKey(Project, models.CASCADE, related_name="rankings", db_constraint=False, db_index=False)
    comparison = models.ForeignKey(Comparison, models.CASCADE, related_name="rankings", db_constraint=False)
    # Without an index of its own, because `ranking_by_annotator` begins with this column.
    annotator = models.ForeignKey(User, models.PROTECT, related_name="rankings", db_index=False)
    size = models.PositiveSmallIntegerField()
    ranks = ArrayField(models.PositiveSmallIntegerField())
    display_order = ArrayField(models.PositiveSmallIntegerField(), help_text="Positions in the order of display.")
    seconds = models.FloatField(
        help_text="Time from display to submit, measured by the page. 0 for imported rankings: unknown."
    )
    comment = models.TextField(blank=True)
    strength = models.PositiveSmallIntegerField(null=True, blank=True, help_text="Strength of a pair's preference.")
    flags = ArrayField(models.CharField(max_length=50), default=list, blank=True)
    ratings = models.JSONField(
        default=dict,
        blank=True,
        help_text="By attribute: 1 (worst) to 5 (best) for each position, null where not rated.",
    )
    spans = models.JSONField(
        default=list,
        blank=True,
        help_text="Marked text: characters start … end − 1 of the source text at position `completion`.",
    )
    reason = models.CharField(
        max_length=13,
        choices=Lease.Reason.choices,
        default=Lease.Reason.SAMPLED,
        help_text="Reason why the queue chose the comparison.",
    )
    idempotency_key = models.UUIDField()
    revision = models.PositiveSmallIntegerField(default=1)
    is_live = models.BooleanField(default=True)
    standing = models.CharField(max_length=9, choices=Standing.choices, default=Standing.COUNTS, db_default="counts")
    review = models.ForeignKey(
        Review,
        models.RESTRICT,
        null=True,
        blank=True,
        related_name="rankings",
        help_text="Decision that wrote this revision. Null: the annotator did.",
    )
    sequence = models.BigIntegerField(
        null=True,
        blank=True,
        help_text="Position in the project's record. The first reader that sees the row committed assigns it, so that "
        "no later commit gets a position below a cursor that was already given to a client.",
    )
    made_by_import = models.ForeignKey(
        Import, models.SET_NULL, null=True, editable=False, related_name="+", db_index=False
    )
    created_at = models.DateTimeField(
        auto_now_add=True, help_text="When the annotator ranked. A revision by a review keeps this time."
    )
    objects = Rankings.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["comparison", "annotator"], condition=Q(is_live=True), name="one_live_ranking"
            ),
            models.UniqueConstraint(fields=["comparison", "annotator", "revision"], name="ranking_revision_once"),
            models.UniqueConstraint(fields=["annotator", "idempotency_key"], name="ranking_submitted_once"),
            models.UniqueConstraint(fields=["project", "sequence"], name="ranking_sequence_once"),
            models.CheckConstraint(condition=Q(seconds__gte=0), name="ranking_seconds"),
            models.CheckConstraint(condition=Q(revision__gte=1), name="ranking_revision"),
            models.CheckConstraint(
                condition=Q(is_live=False) | Q(standing__in=["counts", "overruled"]), name="ranking_live_stands"
            ),
            models.CheckConstraint(
                condition=Q(standing__in=["counts", "withdrawn", "erased"]) | Q(review__isnull=False),
                name="ranking_standing_has_a_reason",
            ),
            models.CheckConstraint(
                condition=Q(standing__in=["counts", "overruled", "returned", "discarded", "withdrawn", "erased"]),
                name="ranking_standing",
            ),
        ]
        indexes = [
            models.Index(fields=["project", "id"], name="ranking_unnumbered", condition=Q(sequence__isnull=True)),
            models.Index(fields=["annotator", "-created_at"], name="ranking_by_annotator"),
            models.Index(fields=["made_by_import"], name="ranking_imported", condition=Q(made_by_import__isnull=False)),
            models.Index(fields=["project", "-created_at"], name="ranking_newest"),
            # Most rankings have neither a comment nor a flag, and count: they are in none of these five.
            models.Index(fields=["project", "-created_at"], name="ranking_commented", condition=~Q(comment="")),
            models.Index(fields=["project", "-created_at"], name="ranking_flagged", condition=~Q(flags=[])),
            models.Index(fields=["project", "-created_at"], name="ranking_set_aside", condition=~Q(standing="counts")),
            GinIndex(fields=["flags"], name="ranking_flags", condition=~Q(flags=[])),
            GinIndex(SearchVector("comment"), name="ranking_search", condition=~Q(comment="")),
            # Covers the query of `feedback.reports.statistics`, which otherwise reads every row of the project.
            models.Index(
                fields=["project", "annotator"],
                include=["revision", "created_at", "is_live", "seconds"],
                condition=~Q(reason="adjudication"),
                name="ranking_work_done",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.annotator} on {self.comparison}: {self.ranks}"
