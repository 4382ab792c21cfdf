"""Decisions of reviewers about rankings."""

from django.db import models
from django.db.models import Q

from feedback.models.comparisons import Comparison
from feedback.models.people import Project, User
from feedback.models.prompts import Demonstration


class Review(models.Model):
    """One decision of a reviewer. The revisions of rankings that it wrote refer to it.

    A decision is never deleted. Undoing it sets `undone_at` and writes further revisions.
    """

    class Kind(models.TextChoices):
        ADJUDICATION = "adjudication"
        RETURN = "return"
        DISCARD = "discard"
        KEEP = "keep"  # a comparison with a flag for review, or a surprising ranking, stays as it is
        DEMONSTRATION = "demonstration"  # discard a demonstration, and the pair of it and its origin

    project = models.ForeignKey(Project, models.CASCADE, related_name="reviews")
    kind = models.CharField(max_length=13, choices=Kind.choices)
    reviewer = models.ForeignKey(User, models.PROTECT, related_name="reviews")
    comparison = models.ForeignKey(
        Comparison,
        models.CASCADE,
        null=True,
        blank=True,
        related_name="reviews",
        help_text="Comparison of the decision. Null: several comparisons, or a demonstration.",
    )
    demonstration = models.ForeignKey(
        Demonstration,
        models.CASCADE,
        null=True,
        blank=True,
        related_name="discards",
        help_text="Discarded demonstration.",
    )
    annotator = models.ForeignKey(
        User,
        models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        help_text="Author of what the decision changes. Null: all who ranked the comparison.",
    )
    reason = models.CharField(max_length=1000, blank=True)
    ranking_count = models.PositiveIntegerField(default=0, help_text="Rankings of others that the decision changed.")
    created_at = models.DateTimeField(auto_now_add=True)
    undone_at = models.DateTimeField(null=True, blank=True)
    undone_by = models.ForeignKey(User, models.PROTECT, null=True, blank=True, related_name="+")

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(kind__in=["adjudication", "return", "discard", "keep", "demonstration"]), name="review_kind"
            ),
            models.CheckConstraint(
                condition=Q(kind__in=["adjudication", "keep"], comparison__isnull=False)
                | Q(kind__in=["return", "discard"], annotator__isnull=False) & ~Q(reason="")
                | Q(kind="demonstration", demonstration__isnull=False) & ~Q(reason=""),
                name="review_says_of_what_and_why",
            ),
            models.CheckConstraint(
                condition=Q(undone_at__isnull=True, undone_by__isnull=True)
                | Q(undone_at__isnull=False, undone_by__isnull=False),
                name="review_undone_by_somebody",
            ),
            models.UniqueConstraint(
                fields=["comparison"],
                condition=Q(kind="adjudication", undone_at__isnull=True),
                name="one_adjudication",
            ),
            models.UniqueConstraint(
                fields=["demonstration"],
                condition=Q(kind="demonstration", undone_at__isnull=True),
                name="demonstration_discarded_once",
            ),
        ]
        indexes = [models.Index(fields=["project", "-id"], name="review_newest")]

    def __str__(self) -> str:
        return f"{self.kind} by {self.reviewer}"
