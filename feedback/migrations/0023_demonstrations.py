"""Demonstrations and the pairs of them and their origins; decisions about them."""

import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("feedback", "0022_own_quality"),
    ]

    operations = [
        migrations.RemoveConstraint(
            model_name="review",
            name="review_kind",
        ),
        migrations.RemoveConstraint(
            model_name="review",
            name="review_says_of_what_and_why",
        ),
        migrations.AddField(
            model_name="demonstration",
            name="comparison",
            field=models.ForeignKey(
                blank=True,
                help_text="The comparison that its author had on the page.",
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="+",
                to="feedback.comparison",
            ),
        ),
        migrations.AddField(
            model_name="demonstration",
            name="made_by_import",
            field=models.ForeignKey(
                editable=False,
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="+",
                to="feedback.import",
            ),
        ),
        migrations.AddField(
            model_name="demonstration",
            name="pair",
            field=models.OneToOneField(
                blank=True,
                help_text="The comparison of it and its origin; empty: it began with an empty page, or came in by an import.",
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="demonstration",
                to="feedback.comparison",
            ),
        ),
        migrations.AddField(
            model_name="demonstration",
            name="withdrawn_at",
            field=models.DateTimeField(blank=True, help_text="When its author undid it.", null=True),
        ),
        migrations.AddField(
            model_name="review",
            name="demonstration",
            field=models.ForeignKey(
                blank=True,
                help_text="Which it discards.",
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="discards",
                to="feedback.demonstration",
            ),
        ),
        migrations.AlterField(
            model_name="demonstration",
            name="created_at",
            field=models.DateTimeField(default=django.utils.timezone.now),
        ),
        migrations.AlterField(
            model_name="import",
            name="counts",
            field=models.JSONField(
                default=dict,
                help_text="How many prompts, completions, comparisons and demonstrations it made, and prompts it completed.",
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
                    ("demonstration", "Demonstration"),
                ],
                default="sampled",
                max_length=13,
            ),
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
                    ("demonstration", "Demonstration"),
                ],
                default="sampled",
                help_text="Why it was asked for.",
                max_length=13,
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
                    ("demonstration", "Demonstration"),
                ],
                max_length=13,
            ),
        ),
        migrations.AddIndex(
            model_name="demonstration",
            index=models.Index(fields=["-created_at"], name="demonstration_newest"),
        ),
        migrations.AddConstraint(
            model_name="review",
            constraint=models.CheckConstraint(
                condition=models.Q(("kind__in", ["adjudication", "return", "discard", "demonstration"])),
                name="review_kind",
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
        migrations.AddConstraint(
            model_name="review",
            constraint=models.UniqueConstraint(
                condition=models.Q(("kind", "demonstration"), ("undone_at__isnull", True)),
                fields=("demonstration",),
                name="demonstration_discarded_once",
            ),
        ),
    ]
