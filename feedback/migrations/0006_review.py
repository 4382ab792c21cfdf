"""What reviewers decide, and how far the rankings of a comparison disagree."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

from feedback import sql

# A decision belongs to the project of the rankings that it changed.
BELONGING = """
ALTER TABLE feedback_review ADD CONSTRAINT review_in_project UNIQUE (id, project_id);
ALTER TABLE feedback_ranking ADD CONSTRAINT ranking_review_in_project FOREIGN KEY (review_id, project_id)
    REFERENCES feedback_review (id, project_id) DEFERRABLE INITIALLY DEFERRED;
"""

NOT_BELONGING = """
ALTER TABLE feedback_ranking DROP CONSTRAINT ranking_review_in_project;
ALTER TABLE feedback_review DROP CONSTRAINT review_in_project;
"""

OF_WHAT_THERE_IS = """
UPDATE feedback_comparison SET disagreement = accord_disagreement(id) WHERE ranking_count > 1 AND gold_ranks IS NULL;
"""


class Migration(migrations.Migration):
    dependencies = [
        ("feedback", "0005_ratings_and_spans"),
    ]

    operations = [
        migrations.CreateModel(
            name="Review",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "kind",
                    models.CharField(
                        choices=[("adjudication", "Adjudication"), ("return", "Return"), ("discard", "Discard")],
                        max_length=12,
                    ),
                ),
                ("reason", models.CharField(blank=True, max_length=1000)),
                (
                    "ranking_count",
                    models.PositiveIntegerField(default=0, help_text="Rankings of others that it changed."),
                ),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("undone_at", models.DateTimeField(blank=True, null=True)),
            ],
        ),
        migrations.AddField(
            model_name="comparison",
            name="adjudicated_at",
            field=models.DateTimeField(
                blank=True, help_text="When a reviewer's ranking took the place of all others.", null=True
            ),
        ),
        migrations.AddField(
            model_name="comparison",
            name="disagreement",
            field=models.FloatField(
                db_default=0,
                default=0,
                help_text="Share of opposed preferences, of those that two people both have, 0 to 1; kept by a trigger.",
            ),
        ),
        migrations.AddField(
            model_name="project",
            name="annotators_see_quality",
            field=models.BooleanField(
                default=False,
                help_text="Whether annotators see their own agreement and gold pass rate, as they were at midnight.",
            ),
        ),
        migrations.AddField(
            model_name="ranking",
            name="standing",
            field=models.CharField(
                choices=[
                    ("counts", "Counts"),
                    ("overruled", "Overruled"),
                    ("returned", "Returned"),
                    ("discarded", "Discarded"),
                ],
                db_default="counts",
                default="counts",
                max_length=9,
            ),
        ),
        migrations.AlterField(
            model_name="lease",
            name="reason",
            field=models.CharField(
                choices=[
                    ("qualification", "Qualification"),
                    ("gold", "Gold"),
                    ("disagreement", "Disagreement"),
                    ("started", "Started"),
                    ("sampled", "Sampled"),
                    ("returned", "Returned"),
                    ("adjudication", "Adjudication"),
                ],
                default="sampled",
                max_length=13,
            ),
        ),
        migrations.AlterField(
            model_name="ranking",
            name="created_at",
            field=models.DateTimeField(auto_now_add=True, help_text="When it was said: a reviewer's copy keeps it."),
        ),
        migrations.AlterField(
            model_name="ranking",
            name="reason",
            field=models.CharField(
                choices=[
                    ("qualification", "Qualification"),
                    ("gold", "Gold"),
                    ("disagreement", "Disagreement"),
                    ("started", "Started"),
                    ("sampled", "Sampled"),
                    ("returned", "Returned"),
                    ("adjudication", "Adjudication"),
                ],
                default="sampled",
                help_text="Why it was asked for.",
                max_length=13,
            ),
        ),
        migrations.AddIndex(
            model_name="comparison",
            index=models.Index(
                models.F("project"),
                models.OrderBy(models.F("disagreement"), descending=True),
                models.F("id"),
                condition=models.Q(
                    ("adjudicated_at__isnull", True), ("disagreement__gt", 0), ("gold_ranks__isnull", True)
                ),
                name="comparison_disagreements",
            ),
        ),
        migrations.AddConstraint(
            model_name="comparison",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("adjudicated_at__isnull", True),
                    models.Q(("gold_ranks__isnull", True), ("open_slots", 0)),
                    _connector="OR",
                ),
                name="comparison_adjudicated_is_settled",
            ),
        ),
        migrations.AddField(
            model_name="review",
            name="annotator",
            field=models.ForeignKey(
                blank=True,
                help_text="Whose ranking; empty: everybody's.",
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AddField(
            model_name="review",
            name="comparison",
            field=models.ForeignKey(
                blank=True,
                help_text="Empty: many at once.",
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="reviews",
                to="feedback.comparison",
            ),
        ),
        migrations.AddField(
            model_name="review",
            name="project",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="reviews", to="feedback.project"
            ),
        ),
        migrations.AddField(
            model_name="review",
            name="reviewer",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, related_name="reviews", to=settings.AUTH_USER_MODEL
            ),
        ),
        migrations.AddField(
            model_name="review",
            name="undone_by",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AddField(
            model_name="ranking",
            name="review",
            field=models.ForeignKey(
                blank=True,
                help_text="What made this revision.",
                null=True,
                on_delete=django.db.models.deletion.RESTRICT,
                related_name="rankings",
                to="feedback.review",
            ),
        ),
        migrations.AddConstraint(
            model_name="ranking",
            constraint=models.CheckConstraint(
                condition=models.Q(("is_live", False), ("standing__in", ["counts", "overruled"]), _connector="OR"),
                name="ranking_live_stands",
            ),
        ),
        migrations.AddConstraint(
            model_name="ranking",
            constraint=models.CheckConstraint(
                condition=models.Q(("standing", "counts"), ("review__isnull", False), _connector="OR"),
                name="ranking_standing_has_a_reason",
            ),
        ),
        migrations.AddConstraint(
            model_name="ranking",
            constraint=models.CheckConstraint(
                condition=models.Q(("standing__in", ["counts", "overruled", "returned", "discarded"])),
                name="ranking_standing",
            ),
        ),
        migrations.AddIndex(
            model_name="ranking",
            index=models.Index(fields=["project", "-created_at"], name="ranking_newest"),
        ),
        migrations.AddIndex(
            model_name="review",
            index=models.Index(fields=["project", "-id"], name="review_newest"),
        ),
        migrations.AddConstraint(
            model_name="review",
            constraint=models.CheckConstraint(
                condition=models.Q(("kind__in", ["adjudication", "return", "discard"])), name="review_kind"
            ),
        ),
        migrations.AddConstraint(
            model_name="review",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("comparison__isnull", False), ("kind", "adjudication")),
                    models.Q(
                        ("annotator__isnull", False),
                        ("kind__in", ["return", "discard"]),
                        models.Q(("reason", ""), _negated=True),
                    ),
                    _connector="OR",
                ),
                name="review_says_of_what_and_why",
            ),
        ),
        migrations.AddConstraint(
            model_name="review",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("undone_at__isnull", True), ("undone_by__isnull", True)),
                    models.Q(("undone_at__isnull", False), ("undone_by__isnull", False)),
                    _connector="OR",
                ),
                name="review_undone_by_somebody",
            ),
        ),
        migrations.AddConstraint(
            model_name="review",
            constraint=models.UniqueConstraint(
                condition=models.Q(("kind", "adjudication"), ("undone_at__isnull", True)),
                fields=("comparison",),
                name="one_adjudication",
            ),
        ),
        migrations.RunSQL(BELONGING, NOT_BELONGING),
        sql.load("disagreement"),
        migrations.RunSQL(OF_WHAT_THERE_IS, migrations.RunSQL.noop),
    ]
