"""The standing of the rankings of a person who left."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("feedback", "0045_request_counts"),
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
                    ("erased", "Erased"),
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
                    ("standing__in", ["counts", "withdrawn", "erased"]), ("review__isnull", False), _connector="OR"
                ),
                name="ranking_standing_has_a_reason",
            ),
        ),
        migrations.AddConstraint(
            model_name="ranking",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("standing__in", ["counts", "overruled", "returned", "discarded", "withdrawn", "erased"])
                ),
                name="ranking_standing",
            ),
        ),
        # Backwards: such a row is not live, so that it still makes no preference.
        migrations.RunSQL(
            migrations.RunSQL.noop, "UPDATE feedback_ranking SET standing = 'withdrawn' WHERE standing = 'erased'"
        ),
    ]
