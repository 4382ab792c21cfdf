"""A ranking that its annotator undid is a revision that is withdrawn, and their lease shows what they had said."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("feedback", "0015_imports_to_undo"),
    ]

    operations = [
        migrations.RemoveConstraint(
            model_name="ranking",
            name="ranking_standing_has_a_reason",
        ),
        migrations.RemoveConstraint(
            model_name="ranking",
            name="ranking_standing",
        ),
        migrations.AddField(
            model_name="lease",
            name="withdrawn",
            field=models.ForeignKey(
                db_index=False,
                editable=False,
                help_text="What its annotator said of it before, and undid: shown again, and not counted.",
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="+",
                to="feedback.ranking",
            ),
        ),
        migrations.AlterField(
            model_name="ranking",
            name="standing",
            field=models.CharField(
                choices=[
                    ("counts", "Counts"),
                    ("overruled", "Overruled"),
                    ("returned", "Returned"),
                    ("discarded", "Discarded"),
                    ("withdrawn", "Withdrawn"),
                ],
                db_default="counts",
                default="counts",
                max_length=9,
            ),
        ),
        migrations.AddConstraint(
            model_name="ranking",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("standing__in", ["counts", "withdrawn"]), ("review__isnull", False), _connector="OR"
                ),
                name="ranking_standing_has_a_reason",
            ),
        ),
        migrations.AddConstraint(
            model_name="ranking",
            constraint=models.CheckConstraint(
                condition=models.Q(("standing__in", ["counts", "overruled", "returned", "discarded", "withdrawn"])),
                name="ranking_standing",
            ),
        ),
        # Backwards: such a revision is not live, so that it still makes no preference.
        migrations.RunSQL(
            migrations.RunSQL.noop, "UPDATE feedback_ranking SET standing = 'counts' WHERE standing = 'withdrawn'"
        ),
    ]
