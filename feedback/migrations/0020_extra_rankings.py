"""Rename `extra_opinions` of projects and comparisons to `extra_rankings`."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("feedback", "0019_figures_index"),
    ]

    operations = [
        migrations.RenameField("project", "extra_opinions", "extra_rankings"),
        migrations.RenameField("comparison", "extra_opinions", "extra_rankings"),
    ]
