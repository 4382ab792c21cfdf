"""Language and time zone of a person, and the table of the cache that counts wrong passwords."""

from django.db import migrations, models

# As `createcachetable` makes it. After a crash it is empty, which resets the counts.
CACHE = """
CREATE UNLOGGED TABLE accord_cache (
    cache_key varchar(255) PRIMARY KEY, value text NOT NULL, expires timestamptz NOT NULL
);
CREATE INDEX accord_cache_expires ON accord_cache (expires);
"""


class Migration(migrations.Migration):
    dependencies = [("feedback", "0037_progress_of_imports")]

    operations = [
        migrations.AddField(
            model_name="user",
            name="language",
            field=models.CharField(blank=True, db_default="", default="", max_length=10),
        ),
        migrations.AddField(
            model_name="user",
            name="time_zone",
            field=models.CharField(blank=True, db_default="", default="", max_length=64),
        ),
        migrations.RunSQL(CACHE, "DROP TABLE accord_cache"),
    ]
