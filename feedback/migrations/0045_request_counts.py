"""Counts of API requests. The table is unlogged: after a crash of PostgreSQL it is empty, and everybody starts again."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("feedback", "0044_webhooks")]
    operations = [
        migrations.RunSQL(
            "CREATE UNLOGGED TABLE accord_request_counts "
            "(key text PRIMARY KEY, minute bigint NOT NULL, count integer NOT NULL)",
            "DROP TABLE accord_request_counts",
        ),
    ]
