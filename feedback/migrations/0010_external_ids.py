"""A prompt may be known under several external ids: a table of them, filled with those that prompts have."""

import django.db.models.deletion
from django.db import migrations, models

COPY = """
INSERT INTO feedback_externalid (project_id, prompt_id, value)
SELECT project_id, id, external_id FROM feedback_prompt WHERE external_id IS NOT NULL
"""


class Migration(migrations.Migration):
    dependencies = [("feedback", "0009_comparisons_ahead")]

    operations = [
        migrations.CreateModel(
            name="ExternalId",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("value", models.CharField(max_length=200)),
                (
                    "project",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="feedback.project",
                    ),
                ),
                (
                    "prompt",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="external_ids", to="feedback.prompt"
                    ),
                ),
            ],
            options={
                "constraints": [models.UniqueConstraint(fields=("project", "value"), name="external_id_once")],
            },
        ),
        migrations.RunSQL(COPY, migrations.RunSQL.noop),
    ]
