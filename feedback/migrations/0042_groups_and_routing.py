"""Groups of members, routing rules, and limits; the queue's indexes begin with the route."""

import django.contrib.postgres.fields
import django.core.validators
import django.db.models.deletion
from django.db import migrations, models

from feedback import sql


class Migration(migrations.Migration):
    dependencies = [
        ("feedback", "0041_prompt_changes"),
    ]

    operations = [
        migrations.CreateModel(
            name="RoutingRule",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "tags",
                    django.contrib.postgres.fields.ArrayField(base_field=models.CharField(max_length=100), size=20),
                ),
                (
                    "groups",
                    django.contrib.postgres.fields.ArrayField(base_field=models.CharField(max_length=50), size=20),
                ),
            ],
        ),
        migrations.RemoveIndex(
            model_name="comparison",
            name="comparison_queue",
        ),
        migrations.RemoveIndex(
            model_name="comparison",
            name="comparison_trial_queue",
        ),
        migrations.AddField(
            model_name="comparison",
            name="route",
            field=models.TextField(
                blank=True,
                db_default="",
                default="",
                editable=False,
                help_text="Tags of the prompt that routing rules name, sorted, one a line. A trigger computes them.",
            ),
        ),
        migrations.AddField(
            model_name="membership",
            name="barred_tags",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.CharField(max_length=100),
                blank=True,
                default=list,
                editable=False,
                help_text="Tags of prompts that the routing rules keep from this member. A trigger computes them.",
                size=None,
            ),
        ),
        migrations.AddField(
            model_name="membership",
            name="daily_limit",
            field=models.PositiveIntegerField(
                blank=True,
                help_text="Null: the project's. 0: no limit.",
                null=True,
                validators=[django.core.validators.MaxValueValidator(1000000)],
            ),
        ),
        migrations.AddField(
            model_name="membership",
            name="groups",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.CharField(max_length=50),
                blank=True,
                default=list,
                help_text="Groups or skills that routing rules name.",
                size=20,
            ),
        ),
        migrations.AddField(
            model_name="membership",
            name="share_limit",
            field=models.PositiveSmallIntegerField(
                blank=True,
                help_text="In percent. Null: the project's. 0: no limit.",
                null=True,
                validators=[django.core.validators.MaxValueValidator(100)],
            ),
        ),
        migrations.AddField(
            model_name="membership",
            name="total_limit",
            field=models.PositiveIntegerField(
                blank=True,
                help_text="Null: the project's. 0: no limit.",
                null=True,
                validators=[django.core.validators.MaxValueValidator(1000000)],
            ),
        ),
        migrations.AddField(
            model_name="project",
            name="daily_limit",
            field=models.PositiveIntegerField(
                db_default=0,
                default=0,
                help_text="After that many the person gets no more until midnight; 0: no limit.",
                validators=[django.core.validators.MaxValueValidator(1000000)],
                verbose_name="Rankings per person and day",
            ),
        ),
        migrations.AddField(
            model_name="project",
            name="routed_tags",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.CharField(max_length=100),
                blank=True,
                default=list,
                editable=False,
                help_text="Tags that routing rules name; here so that the queue needs no query.",
                size=None,
            ),
        ),
        migrations.AddField(
            model_name="project",
            name="share_limit",
            field=models.PositiveSmallIntegerField(
                db_default=0,
                default=0,
                help_text="Of all rankings that the project's comparisons want, those already made included; 0: no limit. One member can have other limits (People, Groups and routing).",
                validators=[django.core.validators.MaxValueValidator(100)],
                verbose_name="Share of the work per person, in percent",
            ),
        ),
        migrations.AddField(
            model_name="project",
            name="total_limit",
            field=models.PositiveIntegerField(
                db_default=0,
                default=0,
                help_text="In total, over all days; 0: no limit.",
                validators=[django.core.validators.MaxValueValidator(1000000)],
                verbose_name="Rankings per person",
            ),
        ),
        migrations.AddIndex(
            model_name="comparison",
            index=models.Index(
                models.F("project"),
                models.F("route"),
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
                models.F("route"),
                models.OrderBy(models.F("priority"), descending=True),
                models.OrderBy(models.F("ranking_count"), descending=True),
                models.F("shuffle_key"),
                condition=models.Q(("open_slots__gt", 0), ("trial__isnull", False)),
                name="comparison_trial_queue",
            ),
        ),
        migrations.AddConstraint(
            model_name="membership",
            constraint=models.CheckConstraint(condition=models.Q(("groups__len__lte", 20)), name="membership_groups"),
        ),
        migrations.AddConstraint(
            model_name="membership",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("daily_limit__isnull", True), ("daily_limit__lte", 1000000), _connector="OR"),
                    models.Q(("total_limit__isnull", True), ("total_limit__lte", 1000000), _connector="OR"),
                    models.Q(("share_limit__isnull", True), ("share_limit__lte", 100), _connector="OR"),
                ),
                name="membership_limits",
            ),
        ),
        migrations.AddConstraint(
            model_name="project",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("daily_limit__lte", 1000000), ("share_limit__lte", 100), ("total_limit__lte", 1000000)
                ),
                name="project_limits",
            ),
        ),
        migrations.AddField(
            model_name="routingrule",
            name="project",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="routing_rules", to="feedback.project"
            ),
        ),
        migrations.AddConstraint(
            model_name="routingrule",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("groups__len__gte", 1), ("groups__len__lte", 20), ("tags__len__gte", 1), ("tags__len__lte", 20)
                ),
                name="routing_rule_names",
            ),
        ),
        sql.load("routing", "be6f9a256768"),
    ]
