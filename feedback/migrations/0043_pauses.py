"""Pauses of members, and the state of the test of their answers to gold."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("feedback", "0042_groups_and_routing"),
    ]

    operations = [
        migrations.AddField(
            model_name="membership",
            name="gold_answers",
            field=models.PositiveIntegerField(
                db_default=0, default=0, editable=False, help_text="First answers to gold that the bets are about."
            ),
        ),
        migrations.AddField(
            model_name="membership",
            name="gold_bets",
            field=models.FloatField(
                db_default=0.0,
                default=0.0,
                editable=False,
                help_text="Bets on guessing that have begun: see guessing.py.",
            ),
        ),
        migrations.AddField(
            model_name="membership",
            name="gold_right",
            field=models.PositiveIntegerField(
                db_default=0, default=0, editable=False, help_text="Right ones of these."
            ),
        ),
        migrations.AddField(
            model_name="membership",
            name="paused_at",
            field=models.DateTimeField(blank=True, editable=False, help_text="Null: not paused.", null=True),
        ),
        migrations.AddField(
            model_name="project",
            name="pauses_careless",
            field=models.BooleanField(
                db_default=False,
                default=False,
                help_text="They get no more comparisons until a manager lets them go on (People). Whoever shares as many gold preferences as are needed to qualify is ever paused with a chance of at most 1 in 100, over all their work. Who ranks at random is paused after about 20 gold comparisons.",
                verbose_name="Pause annotators whose answers to gold look like chance",
            ),
        ),
        migrations.CreateModel(
            name="Pause",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "gold_answers",
                    models.PositiveIntegerField(help_text="Answers to gold that looked like chance.", null=True),
                ),
                ("gold_right", models.PositiveIntegerField(help_text="Right ones of these.", null=True)),
                ("began_at", models.DateTimeField()),
                ("ended_at", models.DateTimeField(null=True)),
                (
                    "ended_by",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "made_by",
                    models.ForeignKey(
                        help_text="Null: the test of answers to gold.",
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "project",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="pauses", to="feedback.project"
                    ),
                ),
                (
                    "user",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="pauses", to=settings.AUTH_USER_MODEL
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("ended_at__isnull", True)),
                        fields=("project", "user"),
                        name="one_pause_at_a_time",
                    )
                ],
            },
        ),
    ]
