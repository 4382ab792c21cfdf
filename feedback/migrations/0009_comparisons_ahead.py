"""Project setting: how many comparisons the ranking page fetches ahead."""

import django.core.validators
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("feedback", "0008_planned_once")]

    operations = [
        migrations.AddField(
            model_name="project",
            name="comparisons_ahead",
            field=models.PositiveSmallIntegerField(
                default=3,
                help_text=(
                    "How many comparisons an annotator's page fetches ahead: they can be ranked without a connection."
                ),
                validators=[
                    django.core.validators.MinValueValidator(1),
                    django.core.validators.MaxValueValidator(20),
                ],
            ),
        ),
        migrations.AddConstraint(
            model_name="project",
            constraint=models.CheckConstraint(
                condition=models.Q(("comparisons_ahead__gte", 1), ("comparisons_ahead__lte", 20)),
                name="project_comparisons_ahead",
            ),
        ),
    ]
