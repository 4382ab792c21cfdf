"""Load the checks again, in PL/pgSQL: a session plans these once, and SQL functions anew for every row."""

from django.db import migrations

from feedback import sql


class Migration(migrations.Migration):
    dependencies = [("feedback", "0007_reliability")]

    operations = [sql.replace(name) for name in ("orders", "ratings_and_spans", "disagreement")]
