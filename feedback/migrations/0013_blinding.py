"""What orders, numbers and gold draws are keyed with, and what stands for gold that its annotator let go."""

import uuid

import django.db.models.deletion
from django.contrib.postgres.functions import RandomUUID
from django.db import migrations, models

STAND_IN = "Of gold that its annotator let go: real work. Once others have taken that, this one is gone too."


class Migration(migrations.Migration):
    dependencies = [("feedback", "0012_one_key_pairs")]

    operations = [
        migrations.AddField(
            model_name="project",
            name="blinding_key",
            field=models.UUIDField(
                db_default=RandomUUID(),
                default=uuid.uuid4,
                editable=False,
                help_text="Secret: keys what annotators must not be able to compute. See blinding.py.",
            ),
        ),
        migrations.AddField(
            model_name="membership",
            name="gold_given_before",
            field=models.BigIntegerField(
                editable=False, help_text="Id of the comparison that gold was last drawn for.", null=True
            ),
        ),
        migrations.AddField(
            model_name="membership",
            name="gold_given",
            field=models.PositiveSmallIntegerField(
                db_default=0, default=0, editable=False, help_text="How many gold comparisons came before that one."
            ),
        ),
        *(
            migrations.AddField(
                model_name=model,
                name="stand_in",
                field=models.ForeignKey(
                    db_index=False,
                    editable=False,
                    help_text=STAND_IN,
                    null=True,
                    on_delete=django.db.models.deletion.SET_NULL,
                    related_name="+",
                    to="feedback.comparison",
                ),
            )
            for model in ("lease", "skip")
        ),
        *(
            migrations.AddIndex(
                model_name=model,
                index=models.Index(
                    condition=models.Q(("stand_in__isnull", False)), fields=["stand_in"], name=f"{model}_stand_in"
                ),
            )
            for model in ("lease", "skip")
        ),
    ]
