"""Ratings by attribute and marked spans, held to their form by the database."""

import django.contrib.postgres.fields
from django.db import migrations, models

import feedback.models.people
from feedback import sql

FORMS = """
ALTER TABLE feedback_ranking
    ADD CONSTRAINT ranking_ratings CHECK (ratings = '{}' OR accord_are_ratings(ratings, size) IS TRUE),
    ADD CONSTRAINT ranking_spans CHECK (spans = '[]' OR accord_are_spans(spans, size) IS TRUE);
"""
NO_FORMS = "ALTER TABLE feedback_ranking DROP CONSTRAINT ranking_ratings, DROP CONSTRAINT ranking_spans"


class Migration(migrations.Migration):
    dependencies = [("feedback", "0004_gold_and_reasons")]

    operations = [
        migrations.AddField(
            model_name="project",
            name="attributes",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.CharField(max_length=50),
                blank=True,
                default=list,
                help_text="What annotators rate each completion on, from 1 (worst) to 5 (best): say helpful, honest, harmless.",
                size=6,
                validators=[feedback.models.people.check_distinct_names],
            ),
        ),
        migrations.AddField(
            model_name="ranking",
            name="ratings",
            field=models.JSONField(
                blank=True,
                default=dict,
                help_text="By attribute: 1 (worst) to 5 (best) for each position, null where not rated.",
            ),
        ),
        migrations.AddField(
            model_name="ranking",
            name="spans",
            field=models.JSONField(
                blank=True,
                default=list,
                help_text="What was marked good or bad: characters start … end − 1 of the raw text at position `completion`.",
            ),
        ),
        migrations.AlterField(
            model_name="project",
            name="flags",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.CharField(max_length=50),
                blank=True,
                default=list,
                help_text="What annotators may mark a comparison with, besides “all bad” and “all good”.",
                size=12,
                validators=[feedback.models.people.check_distinct_names],
            ),
        ),
        migrations.AddConstraint(
            model_name="project",
            constraint=models.CheckConstraint(condition=models.Q(("flags__len__lte", 12)), name="project_flags"),
        ),
        migrations.AddConstraint(
            model_name="project",
            constraint=models.CheckConstraint(
                condition=models.Q(("attributes__len__lte", 6)), name="project_attributes"
            ),
        ),
        sql.load("ratings_and_spans"),
        migrations.RunSQL(FORMS, NO_FORMS),
    ]
