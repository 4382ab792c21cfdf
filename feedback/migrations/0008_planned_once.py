"""Load the checks again, in PL/pgSQL: a session plans these once, and SQL functions anew for every row."""

from django.db import migrations

from feedback import sql


class Migration(migrations.Migration):
    dependencies = [("feedback", "0007_reliability")]

    operations = [
        sql.replace("orders", "00cd77bdd559"),
        sql.replace("ratings_and_spans", "9e6659c184ec"),
        sql.replace("disagreement", "7e676d9ecba7"),
    ]
