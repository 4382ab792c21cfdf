"""Ratings by attribute and marked spans, held to their form by the database."""

import django.contrib.postgres.fields
from django.db import migrations, models

import feedback.models.people

FORMS = """
-- By attribute, a rating of 1 to 5 or null for each of the completions.
CREATE FUNCTION accord_are_ratings(ratings jsonb, size integer) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN jsonb_typeof(ratings) = 'object' AND NOT EXISTS (
        SELECT FROM jsonb_path_query(ratings, '$.*') AS given
        WHERE CASE jsonb_typeof(given) WHEN 'array' THEN
            jsonb_array_length(given) <> size OR
            EXISTS (
                SELECT FROM jsonb_array_elements(given) AS rating
                WHERE rating NOT IN ('null'::jsonb, '1', '2', '3', '4', '5')
            )
        ELSE true END
    );

-- Parts of the completions, in order, none over another, each marked good or bad.
CREATE FUNCTION accord_are_spans(spans jsonb, size integer) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN jsonb_typeof(spans) = 'array' AND NOT EXISTS (
        SELECT FROM (
            SELECT completion, start, "end", mark,
                lag(completion) OVER (ORDER BY place) AS completion_before, lag("end") OVER (ORDER BY place) AS end_before
            FROM ROWS FROM (
                jsonb_to_recordset(CASE jsonb_typeof(spans) WHEN 'array' THEN spans ELSE '[]' END)
                    AS (completion integer, start integer, "end" integer, mark text)
            ) WITH ORDINALITY AS span (completion, start, "end", mark, place)
        ) AS marked
        WHERE (
            completion BETWEEN 0 AND size - 1 AND start >= 0 AND start < "end" AND mark IN ('good', 'bad')
            AND (completion_before IS NULL OR completion > completion_before
                OR completion = completion_before AND start >= end_before)
        ) IS NOT TRUE
    );

ALTER TABLE feedback_ranking
    ADD CONSTRAINT ranking_ratings CHECK (ratings = '{}' OR accord_are_ratings(ratings, size) IS TRUE),
    ADD CONSTRAINT ranking_spans CHECK (spans = '[]' OR accord_are_spans(spans, size) IS TRUE);
"""


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
                validators=[feedback.models.people.told_apart],
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
                validators=[feedback.models.people.told_apart],
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
        migrations.RunSQL(FORMS),
    ]
