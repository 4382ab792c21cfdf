"""Add the stored ratings of projects with long records."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("feedback", "0030_trials"),
    ]

    operations = [
        migrations.CreateModel(
            name="RatingsSnapshot",
            fields=[
                (
                    "project",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="+",
                        serialize=False,
                        to="feedback.project",
                    ),
                ),
                (
                    "record_length",
                    models.BigIntegerField(
                        help_text="Rankings in the record when computing began, revisions included."
                    ),
                ),
                ("computed_at", models.DateTimeField(help_text="When computing began.")),
                ("seconds", models.FloatField(help_text="How long computing took.")),
                (
                    "content",
                    models.JSONField(help_text="Ratings with and without control for style, and counts of rankings."),
                ),
                ("slices", models.JSONField(help_text="Win rates by slice of the prompts, by two sources.")),
            ],
        ),
    ]
