"""Every checkpoint has the verdict of its model's check. Those that exist wait for theirs: the beat sends them to a
worker, and what rounds made gets its base's verdict.
"""

import django.db.models.deletion
import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("feedback", "0015_imports_to_undo"),
        ("training", "0004_paths_in_data_folder"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AddField(
            model_name="checkpoint",
            name="check_heartbeat_at",
            field=models.DateTimeField(blank=True, help_text="Last sign of who checks it.", null=True),
        ),
        migrations.AddField(
            model_name="checkpoint",
            name="check_queued_at",
            field=models.DateTimeField(blank=True, help_text="When a worker was last asked to check it.", null=True),
        ),
        migrations.AddField(
            model_name="checkpoint",
            name="check_requested_at",
            field=models.DateTimeField(
                db_default=django.db.models.functions.datetime.Now(), help_text="Since when it waits for its check."
            ),
        ),
        migrations.AddField(
            model_name="checkpoint",
            name="imported_by",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AddField(
            model_name="checkpoint",
            name="serve_when_checked",
            field=models.BooleanField(default=False, help_text="Promote it once its check finds it exact."),
        ),
        migrations.AddField(
            model_name="checkpoint",
            name="verdict",
            field=models.CharField(
                choices=[
                    ("waiting", "Waiting for its check"),
                    ("exact_fast", "Exact and fast"),
                    ("exact_generic", "Exact by the generic path, which is slow"),
                    ("refused", "Refused"),
                ],
                default="waiting",
                max_length=13,
            ),
        ),
        migrations.AddField(
            model_name="checkpoint",
            name="verdict_reason",
            field=models.TextField(blank=True, help_text="Why it is slow or refused."),
        ),
        migrations.AddConstraint(
            model_name="checkpoint",
            constraint=models.CheckConstraint(
                condition=models.Q(("verdict__in", ["waiting", "exact_fast", "exact_generic", "refused"])),
                name="checkpoint_verdict",
            ),
        ),
    ]
