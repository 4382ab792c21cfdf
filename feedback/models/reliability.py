"""Reliability of annotators, estimated from the record up to a moment."""

from django.db import models
from django.db.models import F, Q

from feedback.models.people import Project, User

# Parameters of the Beta prior of an annotator's reliability (see `feedback.quality.reliability.crowd_bt`, point 2).
PRIOR_RIGHT, PRIOR_WRONG = 4.5, 1.5
PRIOR = (PRIOR_RIGHT - 1) / (PRIOR_RIGHT + PRIOR_WRONG - 2)  # its mode


class ReliabilityReport(models.Model):
    """The reliability of a project's annotators, estimated from all rankings up to `until`.

    Never changed afterwards, so that exports and rounds that used it can be repeated.
    """

    project = models.ForeignKey(Project, models.CASCADE, related_name="reliability_reports")
    until = models.BigIntegerField(help_text="Sequence of the last ranking that it includes.")
    spread = models.FloatField(help_text="Standard deviation of the score difference of a pair, in log-odds.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "until"], name="reliability_report_once")]

    def __str__(self) -> str:
        return f"reliability in {self.project} as of {self.until}"


class Reliability(models.Model):
    """An annotator's reliability: 1 orders pairs as the Bradley–Terry model says, ½ at random, 0 the opposite."""

    report = models.ForeignKey(ReliabilityReport, models.CASCADE, related_name="annotators")
    annotator = models.ForeignKey(User, models.PROTECT, related_name="+")
    value = models.FloatField()
    low = models.FloatField(help_text="Lower end of the 95 % interval.")
    high = models.FloatField(help_text="Upper end of the 95 % interval.")
    shared = models.PositiveIntegerField(help_text="Comparisons that this annotator and others ranked.")
    gold = models.PositiveIntegerField(help_text="Gold comparisons that this annotator ranked.")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["report", "annotator"], name="reliability_once"),
            models.CheckConstraint(
                condition=Q(low__gte=0, low__lte=F("value"), high__gte=F("value"), high__lte=1),
                name="reliability_in_its_interval",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.annotator}: {self.value:.2f}"

    @property
    def weight(self) -> float:
        return weight_of(self.value)

    @property
    def is_adversarial(self) -> bool:
        """Return whether the annotator contradicts the others more often than not, with 95 % confidence."""
        return self.high < 0.5


def weight_of(reliability: float) -> float:
    """Return the weight of a ranking, max(0, 2η − 1), for an annotator of reliability η.

    2η − 1 is the share of votes that is not random. A vote has the probability ½ + (2η − 1)·(σ(d) − ½): a signal
    proportional to 2η − 1 in noise of equal variance. Weights proportional to the signal maximise the ratio of signal
    to noise of the sum.
    """
    return round(max(2 * reliability - 1, 0.0), 6)
