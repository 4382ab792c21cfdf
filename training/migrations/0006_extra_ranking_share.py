"""Rename the round setting second_opinions to extra_ranking_share in stored rounds and loops."""

from django.db import migrations

FORMER, NAME = "second_opinions", "extra_ranking_share"


def rename(former: str, name: str) -> list[str]:
    return [
        f"UPDATE {table} SET settings = jsonb_set(settings #- '{{round,{former}}}', '{{round,{name}}}', "
        f"settings #> '{{round,{former}}}') WHERE settings #> '{{round,{former}}}' IS NOT NULL"
        for table in ("training_round", "training_loopsettings")
    ]


class Migration(migrations.Migration):
    dependencies = [("training", "0005_checkpoint_verdict")]
    operations = [migrations.RunSQL(rename(FORMER, NAME), rename(NAME, FORMER))]
