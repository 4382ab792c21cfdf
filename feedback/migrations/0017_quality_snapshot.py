"""Agreement and signs of careless work are counted once and kept, for every page that shows them."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("feedback", "0016_withdrawn_rankings")]

    operations = [
        migrations.CreateModel(
            name="QualitySnapshot",
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
                    models.BigIntegerField(help_text="Rankings in the record, revisions included, when it was made."),
                ),
                (
                    "qualification_percent",
                    models.PositiveSmallIntegerField(help_text="The project's setting, when it was made."),
                ),
                ("counted_at", models.DateTimeField(help_text="When counting began.")),
                ("seconds", models.FloatField(help_text="How long counting took.")),
                ("content", models.JSONField(help_text="Agreement, gold pass rates and signs.")),
                (
                    "by_two",
                    models.JSONField(help_text="Agreement of each two annotators: grows with their number squared."),
                ),
            ],
        ),
    ]
