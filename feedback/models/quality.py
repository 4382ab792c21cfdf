"""The last count of agreement and quality checks."""

from django.db import models

from feedback.models.people import Membership, Project


class QualitySnapshot(models.Model):
    """The last count of a project's quality, written by `feedback.reports.quality_snapshot`. One row per project."""

    project = models.OneToOneField(Project, models.CASCADE, primary_key=True, related_name="+")
    record_length = models.BigIntegerField(help_text="Rankings in the record when counting began, revisions included.")
    qualification_percent = models.PositiveSmallIntegerField(help_text="Setting of the project when counting began.")
    counted_at = models.DateTimeField(help_text="When counting began.")
    seconds = models.FloatField(help_text="How long counting took.")
    content = models.JSONField(help_text="Agreement, gold pass rates and quality checks.")
    by_two = models.JSONField(help_text="Agreement of every two annotators. Its size is quadratic in their number.")

    def __str__(self) -> str:
        return f"quality in {self.project} as of {self.counted_at}"


class OwnQualitySnapshot(models.Model):
    """The last count of one member's own quality, written by `feedback.reports.own_quality`. One row per member."""

    membership = models.OneToOneField(Membership, models.CASCADE, primary_key=True, related_name="+")
    counted_at = models.DateTimeField(help_text="When counting began.")
    sequence = models.BigIntegerField(help_text="End of the record of rankings when counting began.")
    until = models.DateTimeField(null=True, help_text="End of the last full batch. Null: no batch was full.")
    content = models.JSONField(help_text="Agreement and gold pass rate of the rankings before `until`.")

    def __str__(self) -> str:
        return f"own quality of {self.membership} as of {self.counted_at}"


class RatingsSnapshot(models.Model):
    """The last ratings of a project with a long record, by `feedback.reports.source_ratings`. One row per project."""

    project = models.OneToOneField(Project, models.CASCADE, primary_key=True, related_name="+")
    record_length = models.BigIntegerField(help_text="Rankings in the record when computing began, revisions included.")
    computed_at = models.DateTimeField(help_text="When computing began.")
    seconds = models.FloatField(help_text="How long computing took.")
    content = models.JSONField(help_text="Ratings with and without control for style, and counts of rankings.")
    slices = models.JSONField(help_text="Win rates by slice of the prompts, by two sources.")

    def __str__(self) -> str:
        return f"ratings in {self.project} as of {self.computed_at}"
