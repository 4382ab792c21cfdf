"""Recipe sft: imitate the demonstrations (behaviour cloning). It needs no ranking.

`rewards` of the section "sample" may score the new completions, for example by token F1.
"""

from django.utils.translation import gettext_lazy as _

from training.rounds.recipes.description import NONE, Counts, Job, Recipe, Sections
from training.rounds.recipes.parts import SFT_DEFAULTS, SFT_FIELDS, sample_jobs, sft_job


def jobs(settings: Sections, counts: Counts) -> tuple[Job, ...]:
    """Return the jobs: sft, samples, baseline and guards."""
    return (sft_job(), *sample_jobs(settings, "sft", NONE))


RECIPE = Recipe(
    name="sft",
    label=_("Imitation"),
    help=_("The model imitates the answers that people wrote or imported as demonstrations."),
    programs=("sft", "sample", "guards"),
    jobs=jobs,
    fields=SFT_FIELDS,
    defaults={"sft": SFT_DEFAULTS},
)
