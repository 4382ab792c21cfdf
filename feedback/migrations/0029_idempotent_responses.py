"""Rename the table of stored responses and its column, keeping the rows."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("feedback", "0028_help_texts_as_sentences")]

    operations = [
        migrations.RenameModel("KeptAnswer", "IdempotentResponse"),
        migrations.RenameField("IdempotentResponse", "answer", "body"),
        migrations.RemoveConstraint("IdempotentResponse", "kept_answer_once"),
        migrations.AddConstraint(
            "IdempotentResponse", models.UniqueConstraint(fields=("user", "key"), name="idempotency_key_once")
        ),
    ]
