"""An account that goes, a membership that ends, an account that is closed: what they held goes back to the queue."""

from django.conf import settings
from django.db import migrations, models

from feedback import sql


class Migration(migrations.Migration):
    dependencies = [("feedback", "0013_blinding")]

    operations = [
        migrations.AlterField(
            model_name="lease",
            name="annotator",
            field=models.ForeignKey(on_delete=models.DO_NOTHING, related_name="leases", to=settings.AUTH_USER_MODEL),
        ),
        sql.load("freed_slots", "2d2f7d717611"),
    ]
