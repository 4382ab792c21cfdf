"""Trials, their comparisons in a queue of their own, and the open trial's share of the work."""

import django.core.validators
import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

# A comparison and its trial are of one project.
BELONGING = """
ALTER TABLE feedback_trial ADD CONSTRAINT trial_in_project UNIQUE (id, project_id);
ALTER TABLE feedback_comparison
    ADD CONSTRAINT comparison_trial_in_project FOREIGN KEY (trial_id, project_id)
        REFERENCES feedback_trial (id, project_id) DEFERRABLE INITIALLY DEFERRED;
"""
NOT_BELONGING = """
ALTER TABLE feedback_comparison DROP CONSTRAINT comparison_trial_in_project;
ALTER TABLE feedback_trial DROP CONSTRAINT trial_in_project;
"""


class Migration(migrations.Migration):
    dependencies = [
        ("feedback", "0029_idempotent_responses"),
    ]

    operations = [
        migrations.CreateModel(
            name="Trial",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("number", models.PositiveIntegerField()),
                (
                    "share",
                    models.PositiveSmallIntegerField(
                        default=25,
                        help_text="Share of everybody's work, in percent.",
                        validators=[
                            django.core.validators.MinValueValidator(1),
                            django.core.validators.MaxValueValidator(100),
                        ],
                    ),
                ),
                (
                    "may_train",
                    models.BooleanField(
                        default=True,
                        help_text="Rounds may learn from its rankings on training prompts; never from held-out ones.",
                    ),
                ),
                (
                    "worthwhile_share",
                    models.FloatField(
                        default=0.5,
                        help_text="The trial is futile once a candidate surely wins a smaller share of the decisive votes.",
                    ),
                ),
                (
                    "identical",
                    models.PositiveIntegerField(
                        default=0,
                        help_text="Prompts on which all sources wrote the same text: ties, without a comparison.",
                    ),
                ),
                (
                    "partly_identical",
                    models.PositiveIntegerField(
                        default=0,
                        help_text="Prompts on which some of three or four sources wrote the same text: left out.",
                    ),
                ),
                (
                    "decision",
                    models.CharField(
                        blank=True,
                        choices=[
                            ("better", "Better"),
                            ("worse", "Worse"),
                            ("futile", "Futile"),
                            ("undecided", "Undecided"),
                        ],
                        help_text="Empty while it is open.",
                        max_length=9,
                    ),
                ),
                ("decision_note", models.TextField(blank=True)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("ended_at", models.DateTimeField(blank=True, null=True)),
            ],
        ),
        migrations.CreateModel(
            name="TrialSource",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("position", models.PositiveSmallIntegerField()),
            ],
            options={
                "ordering": ["position"],
            },
        ),
        migrations.RemoveIndex(
            model_name="comparison",
            name="comparison_queue",
        ),
        migrations.AddField(
            model_name="project",
            name="trial_percent",
            field=models.PositiveSmallIntegerField(
                db_default=0,
                default=0,
                editable=False,
                help_text="Share of the open trial in everybody's work, 0 without one; here so that the queue needs no query.",
            ),
        ),
        migrations.AddConstraint(
            model_name="project",
            constraint=models.CheckConstraint(
                condition=models.Q(("trial_percent__lte", 100)), name="project_trial_percent"
            ),
        ),
        migrations.AddField(
            model_name="trial",
            name="chosen",
            field=models.ForeignKey(
                blank=True,
                help_text="Source that the decision favours.",
                null=True,
                on_delete=django.db.models.deletion.RESTRICT,
                related_name="+",
                to="feedback.source",
            ),
        ),
        migrations.AddField(
            model_name="trial",
            name="ended_by",
            field=models.ForeignKey(
                blank=True,
                help_text="Null: the rule ended it.",
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AddField(
            model_name="trial",
            name="project",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="trials",
                to="feedback.project",
            ),
        ),
        migrations.AddField(
            model_name="trial",
            name="started_by",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AddField(
            model_name="comparison",
            name="trial",
            field=models.ForeignKey(
                blank=True,
                db_constraint=False,
                db_index=False,
                editable=False,
                help_text="Trial that it belongs to, which no annotator may learn. Null: none.",
                null=True,
                on_delete=django.db.models.deletion.RESTRICT,
                related_name="comparisons",
                to="feedback.trial",
            ),
        ),
        migrations.AddIndex(
            model_name="comparison",
            index=models.Index(
                models.F("project"),
                models.OrderBy(models.F("priority"), descending=True),
                models.OrderBy(models.F("ranking_count"), descending=True),
                models.F("shuffle_key"),
                condition=models.Q(("gold_ranks__isnull", True), ("open_slots__gt", 0), ("trial__isnull", True)),
                name="comparison_queue",
            ),
        ),
        migrations.AddIndex(
            model_name="comparison",
            index=models.Index(
                models.F("trial"),
                models.OrderBy(models.F("priority"), descending=True),
                models.OrderBy(models.F("ranking_count"), descending=True),
                models.F("shuffle_key"),
                condition=models.Q(("open_slots__gt", 0), ("trial__isnull", False)),
                name="comparison_trial_queue",
            ),
        ),
        migrations.AddIndex(
            model_name="comparison",
            index=models.Index(
                condition=models.Q(("trial__isnull", False)), fields=["trial"], name="comparison_of_trial"
            ),
        ),
        migrations.AddConstraint(
            model_name="comparison",
            constraint=models.CheckConstraint(
                condition=models.Q(("trial__isnull", True), ("gold_ranks__isnull", True), _connector="OR"),
                name="comparison_of_a_trial_is_no_gold",
            ),
        ),
        migrations.AddField(
            model_name="trialsource",
            name="source",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.RESTRICT, related_name="trial_sources", to="feedback.source"
            ),
        ),
        migrations.AddField(
            model_name="trialsource",
            name="trial",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="trial_sources",
                to="feedback.trial",
            ),
        ),
        migrations.AddConstraint(
            model_name="trial",
            constraint=models.UniqueConstraint(fields=("project", "number"), name="trial_number_once"),
        ),
        migrations.AddConstraint(
            model_name="trial",
            constraint=models.UniqueConstraint(
                condition=models.Q(("ended_at__isnull", True)), fields=("project",), name="one_open_trial"
            ),
        ),
        migrations.AddConstraint(
            model_name="trial",
            constraint=models.CheckConstraint(
                condition=models.Q(("share__gte", 1), ("share__lte", 100)), name="trial_share"
            ),
        ),
        migrations.AddConstraint(
            model_name="trial",
            constraint=models.CheckConstraint(
                condition=models.Q(("worthwhile_share__gte", 0.5), ("worthwhile_share__lt", 1)),
                name="trial_worthwhile_share",
            ),
        ),
        migrations.AddConstraint(
            model_name="trial",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("chosen__isnull", True),
                        ("decision", ""),
                        ("ended_at__isnull", True),
                        ("ended_by__isnull", True),
                    ),
                    models.Q(("decision__in", ["better", "worse", "futile", "undecided"]), ("ended_at__isnull", False)),
                    _connector="OR",
                ),
                name="trial_ends_with_a_decision",
            ),
        ),
        migrations.AddConstraint(
            model_name="trialsource",
            constraint=models.UniqueConstraint(fields=("trial", "position"), name="trial_position_once"),
        ),
        migrations.AddConstraint(
            model_name="trialsource",
            constraint=models.UniqueConstraint(fields=("trial", "source"), name="trial_source_once"),
        ),
        migrations.AddConstraint(
            model_name="trialsource",
            constraint=models.CheckConstraint(condition=models.Q(("position__lt", 4)), name="trial_source_position"),
        ),
        migrations.RunSQL(BELONGING, NOT_BELONGING),
    ]
