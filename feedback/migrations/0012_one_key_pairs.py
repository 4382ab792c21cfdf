"""Project setting: whether one key ranks and submits a comparison of two."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("feedback", "0011_kept_answers")]

    operations = [
        migrations.AddField(
            model_name="project",
            name="one_key_pairs",
            field=models.BooleanField(
                default=False,
                help_text="Whether one key ranks and submits a comparison of two: 1, 2, or 3 for a tie.",
            ),
        ),
    ]
