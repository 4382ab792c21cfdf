"""Help texts in plain words."""

import django.contrib.postgres.fields
import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("feedback", "0020_extra_rankings"),
    ]

    operations = [
        migrations.AlterField(
            model_name="comparison",
            name="adjudicated_at",
            field=models.DateTimeField(
                blank=True, help_text="When a reviewer's ranking replaced all others.", null=True
            ),
        ),
        migrations.AlterField(
            model_name="comparison",
            name="disagreement",
            field=models.FloatField(
                db_default=0,
                default=0,
                help_text="Share of opposed preferences among those that two annotators both have, 0 to 1; kept by a trigger.",
            ),
        ),
        migrations.AlterField(
            model_name="comparison",
            name="gold_ranks",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.PositiveSmallIntegerField(),
                blank=True,
                help_text="Of gold: the right ranking, by position. Null for real work.",
                null=True,
                size=None,
            ),
        ),
        migrations.AlterField(
            model_name="comparison",
            name="shuffle_key",
            field=models.FloatField(help_text="In [0, 1): lowest first in its section of the queue; see sampling.py."),
        ),
        migrations.AlterField(
            model_name="lease",
            name="display_order",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.PositiveSmallIntegerField(), help_text="Positions in the order of display.", size=None
            ),
        ),
        migrations.AlterField(
            model_name="lease",
            name="stand_in",
            field=models.ForeignKey(
                db_index=False,
                editable=False,
                help_text="For gold that its annotator let go: real work. Once others have taken that, this one is gone too.",
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="+",
                to="feedback.comparison",
            ),
        ),
        migrations.AlterField(
            model_name="lease",
            name="withdrawn",
            field=models.ForeignKey(
                db_index=False,
                editable=False,
                help_text="The annotator's earlier ranking that they withdrew: shown again, but not counted.",
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="+",
                to="feedback.ranking",
            ),
        ),
        migrations.AlterField(
            model_name="ranking",
            name="created_at",
            field=models.DateTimeField(
                auto_now_add=True, help_text="When the annotator ranked; a copy by a review keeps it."
            ),
        ),
        migrations.AlterField(
            model_name="ranking",
            name="display_order",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.PositiveSmallIntegerField(), help_text="Positions in the order of display.", size=None
            ),
        ),
        migrations.AlterField(
            model_name="ranking",
            name="seconds",
            field=models.FloatField(help_text="From display to submit, as the page measured it."),
        ),
        migrations.AlterField(
            model_name="ranking",
            name="sequence",
            field=models.BigIntegerField(
                blank=True,
                help_text="Position in the project's record. The first reader that sees the row committed assigns it, so that no later commit gets a position below a cursor that was already given to a client.",
                null=True,
            ),
        ),
        migrations.AlterField(
            model_name="ranking",
            name="spans",
            field=models.JSONField(
                blank=True,
                default=list,
                help_text="Marked text: characters start … end − 1 of the source text at position `completion`.",
            ),
        ),
        migrations.AlterField(
            model_name="ranking",
            name="strength",
            field=models.PositiveSmallIntegerField(blank=True, help_text="Strength of a pair's preference.", null=True),
        ),
        migrations.AlterField(
            model_name="reliability",
            name="shared",
            field=models.PositiveIntegerField(help_text="Their comparisons that others ranked too."),
        ),
        migrations.AlterField(
            model_name="reliabilityreport",
            name="spread",
            field=models.FloatField(help_text="Standard deviation of the score difference of a pair, in log-odds."),
        ),
        migrations.AlterField(
            model_name="reliabilityreport",
            name="until",
            field=models.BigIntegerField(help_text="Sequence of the last ranking that it includes."),
        ),
        migrations.AlterField(
            model_name="review",
            name="annotator",
            field=models.ForeignKey(
                blank=True,
                help_text="Whose ranking; empty: all.",
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AlterField(
            model_name="skip",
            name="lease_id",
            field=models.UUIDField(help_text="The lease that it ended: a skip sent twice is stored once.", unique=True),
        ),
        migrations.AlterField(
            model_name="skip",
            name="stand_in",
            field=models.ForeignKey(
                db_index=False,
                editable=False,
                help_text="For gold that its annotator let go: real work. Once others have taken that, this one is gone too.",
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="+",
                to="feedback.comparison",
            ),
        ),
    ]
