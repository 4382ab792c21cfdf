from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("training", "0001_initial")]

    operations = [
        migrations.AddField(
            "round",
            "learns",
            models.BooleanField(
                default=True,
                help_text="False: it learns nothing, and only writes completions of its base to be ranked.",
            ),
        ),
        migrations.AddField(
            "round",
            "queued_at",
            models.DateTimeField(null=True, blank=True, help_text="When a worker was last asked to run it."),
        ),
        migrations.RemoveConstraint("metric", "metric_once"),
        migrations.RenameField("metric", "program", "job"),
        migrations.AlterField(
            "metric",
            "job",
            models.CharField(max_length=20, help_text="The folder of the program's job directory."),
        ),
        migrations.AlterModelOptions("metric", {"ordering": ["round", "job", "step"]}),
        migrations.AddConstraint(
            "metric", models.UniqueConstraint(fields=["round", "job", "step"], name="metric_once")
        ),
    ]
