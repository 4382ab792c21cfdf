"""Full-text search, and indexes of the lists of all data by time."""

import django.db.models.deletion
from django.contrib.postgres.indexes import GinIndex
from django.db import migrations, models

from feedback import sql
from feedback.models.search import SearchVector


class Migration(migrations.Migration):
    dependencies = [
        ("feedback", "0031_ratings_snapshot"),
    ]

    operations = [
        sql.load("search", "9b6266a0aefe"),
        # Stored, because a query that reads rows by date would otherwise compute the words of every row that it passes.
        migrations.RunSQL(
            """
            ALTER TABLE feedback_prompt
                ADD COLUMN search tsvector GENERATED ALWAYS AS (accord_messages_vector(messages)) STORED;
            ALTER TABLE feedback_completion
                ADD COLUMN search tsvector GENERATED ALWAYS AS (accord_search_vector(text)) STORED;
            CREATE INDEX prompt_search ON feedback_prompt USING gin (search);
            CREATE INDEX completion_search ON feedback_completion USING gin (search);
            """,
            "ALTER TABLE feedback_prompt DROP COLUMN search; ALTER TABLE feedback_completion DROP COLUMN search",
        ),
        migrations.RemoveIndex(
            model_name="prompt",
            name="prompt_by_split",
        ),
        migrations.AlterField(
            model_name="comparison",
            name="project",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="comparisons",
                to="feedback.project",
            ),
        ),
        migrations.AlterField(
            model_name="completion",
            name="source",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.RESTRICT,
                related_name="completions",
                to="feedback.source",
            ),
        ),
        migrations.AlterField(
            model_name="prompt",
            name="project",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="prompts",
                to="feedback.project",
            ),
        ),
        migrations.AddIndex(
            model_name="comparison",
            index=models.Index(fields=["project", "created_at", "id"], name="comparison_newest"),
        ),
        migrations.AddIndex(
            model_name="comparison",
            index=models.Index(
                condition=models.Q(("adjudicated_at__isnull", False)),
                fields=["project", "created_at", "id"],
                name="comparison_adjudicated",
            ),
        ),
        migrations.AddIndex(
            model_name="completion",
            index=models.Index(fields=["source", "created_at", "id"], name="completion_newest_of_source"),
        ),
        migrations.AddIndex(
            model_name="completion",
            index=models.Index(fields=["created_at", "id"], name="completion_newest"),
        ),
        migrations.AddIndex(
            model_name="prompt",
            index=models.Index(fields=["project", "created_at", "id"], name="prompt_newest"),
        ),
        migrations.AddIndex(
            model_name="prompt",
            index=models.Index(fields=["project", "split", "created_at", "id"], name="prompt_newest_of_split"),
        ),
        migrations.AddIndex(
            model_name="ranking",
            index=models.Index(
                condition=models.Q(("comment", ""), _negated=True),
                fields=["project", "-created_at"],
                name="ranking_commented",
            ),
        ),
        migrations.AddIndex(
            model_name="ranking",
            index=models.Index(
                condition=models.Q(("flags", []), _negated=True),
                fields=["project", "-created_at"],
                name="ranking_flagged",
            ),
        ),
        migrations.AddIndex(
            model_name="ranking",
            index=models.Index(
                condition=models.Q(("standing", "counts"), _negated=True),
                fields=["project", "-created_at"],
                name="ranking_set_aside",
            ),
        ),
        migrations.AddIndex(
            model_name="ranking",
            index=GinIndex(fields=["flags"], condition=models.Q(("flags", []), _negated=True), name="ranking_flags"),
        ),
        migrations.AddIndex(
            model_name="ranking",
            index=GinIndex(
                SearchVector("comment"), condition=models.Q(("comment", ""), _negated=True), name="ranking_search"
            ),
        ),
        migrations.AddIndex(
            model_name="skip",
            index=models.Index(fields=["-created_at", "-id"], name="skip_newest"),
        ),
        migrations.AddIndex(
            model_name="skip",
            index=GinIndex(
                SearchVector("reason"), condition=models.Q(("reason", ""), _negated=True), name="skip_search"
            ),
        ),
    ]
