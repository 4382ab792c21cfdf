"""Checkpoints' folders below the data folder are stored relative to it; those that it took along in a move are found."""

from django.db import migrations, models

from training import paths

FIELDS = ("path", "reward_model_path")


def make_relative(apps, schema_editor):
    for checkpoint in apps.get_model("training", "Checkpoint").objects.all():
        for field in FIELDS:
            setattr(checkpoint, field, paths.moved(getattr(checkpoint, field)))
        checkpoint.save(update_fields=FIELDS)


def make_absolute(apps, schema_editor):
    checkpoints = apps.get_model("training", "Checkpoint").objects
    for checkpoint in checkpoints.all():
        absolute = {name: models.Value(getattr(checkpoint, name), models.CharField()) for name in FIELDS}
        checkpoints.filter(pk=checkpoint.pk).update(**absolute)


class Migration(migrations.Migration):
    dependencies = [("training", "0003_restrict")]
    operations = [
        migrations.AlterField(
            "checkpoint", "path", paths.FolderField(help_text="A Hugging Face folder or hub id.", max_length=1000)
        ),
        migrations.AlterField(
            "checkpoint",
            "reward_model_path",
            paths.FolderField(blank=True, help_text="What it was tuned against.", max_length=1000),
        ),
        migrations.RunPython(make_relative, make_absolute),
    ]
