"""Meanings of flags, the anchor, and the decision to keep a flagged comparison as it is."""

import django.contrib.postgres.fields
from django.db import migrations, models

import feedback.models.people


class Migration(migrations.Migration):
    dependencies = [
        ("feedback", "0024_one_foreign_key_to_prompts"),
    ]

    operations = [
        migrations.RemoveConstraint(
            model_name="project",
            name="project_flags",
        ),
        migrations.RemoveConstraint(
            model_name="review",
            name="review_kind",
        ),
        migrations.RemoveConstraint(
            model_name="review",
            name="review_says_of_what_and_why",
        ),
        migrations.AddField(
            model_name="project",
            name="anchors",
            field=models.BooleanField(
                default=False,
                help_text='The reward model learns one score for the project that separates good completions from bad ones: with "All bad" every completion of the comparison belongs below it, with "All good" above it.',
                verbose_name="Learn from All bad and All good",
            ),
        ),
        migrations.AddField(
            model_name="project",
            name="information_flags",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.CharField(max_length=50),
                blank=True,
                default=list,
                help_text="Flags that change nothing: rounds learn from these rankings, and exports name the flag.",
                size=12,
                validators=[feedback.models.people.check_distinct_names],
                verbose_name="Flags: information",
            ),
        ),
        migrations.AddField(
            model_name="project",
            name="review_flags",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.CharField(max_length=50),
                blank=True,
                default=list,
                help_text="Flags with which a comparison enters the reviewers' list. Rounds learn from the ranking unless a reviewer takes it out.",
                size=12,
                validators=[feedback.models.people.check_distinct_names],
                verbose_name="Flags: review",
            ),
        ),
        migrations.AlterField(
            model_name="project",
            name="flags",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.CharField(max_length=50),
                blank=True,
                default=list,
                help_text='Labels that annotators may put on a comparison, besides "All bad" and "All good". Rounds do not learn from rankings that have one, and exports leave these rankings out unless asked. A flag that is removed from every list keeps this meaning.',
                size=12,
                validators=[feedback.models.people.check_distinct_names],
                verbose_name="Flags: not for training",
            ),
        ),
        migrations.AlterField(
            model_name="review",
            name="kind",
            field=models.CharField(
                choices=[
                    ("adjudication", "Adjudication"),
                    ("return", "Return"),
                    ("discard", "Discard"),
                    ("keep", "Keep"),
                    ("demonstration", "Demonstration"),
                ],
                max_length=13,
            ),
        ),
        migrations.AddConstraint(
            model_name="project",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("flags__len__lte", 12), ("information_flags__len__lte", 12), ("review_flags__len__lte", 12)
                ),
                name="project_flags",
            ),
        ),
        migrations.AddConstraint(
            model_name="project",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("flags__overlap", models.F("information_flags")), _negated=True),
                    models.Q(("flags__overlap", models.F("review_flags")), _negated=True),
                    models.Q(("information_flags__overlap", models.F("review_flags")), _negated=True),
                ),
                name="project_flag_has_one_meaning",
            ),
        ),
        migrations.AddConstraint(
            model_name="review",
            constraint=models.CheckConstraint(
                condition=models.Q(("kind__in", ["adjudication", "return", "discard", "keep", "demonstration"])),
                name="review_kind",
            ),
        ),
        migrations.AddConstraint(
            model_name="review",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("comparison__isnull", False), ("kind__in", ["adjudication", "keep"])),
                    models.Q(
                        ("annotator__isnull", False),
                        ("kind__in", ["return", "discard"]),
                        models.Q(("reason", ""), _negated=True),
                    ),
                    models.Q(
                        ("demonstration__isnull", False),
                        ("kind", "demonstration"),
                        models.Q(("reason", ""), _negated=True),
                    ),
                    _connector="OR",
                ),
                name="review_says_of_what_and_why",
            ),
        ),
    ]
