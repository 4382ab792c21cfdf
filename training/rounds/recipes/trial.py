"""Recipe trial: named checkpoints answer the same prompts, and annotators compare the answers blind.

Each checkpoint writes one completion of each prompt, with the same seed and the same sampling parameters. The end of
the round starts the trial (`rounds.results`): a ranking of two completions is then a vote of the trial.
"""

from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy as _

from training.rounds.recipes.description import (
    BASE,
    CHECKPOINT,
    PROMPTS_TO_TRY,
    Counts,
    FormField,
    Job,
    Recipe,
    Sections,
    Stage,
)

NAME = "trial"


def jobs(settings: Sections, counts: Counts) -> tuple[Job, ...]:
    """Return one job for each checkpoint, in their order. Without names it is the base's alone."""
    names = settings["round"].get("checkpoints", [])
    origins = {name: f"{CHECKPOINT}{name}" for name in names} or {BASE: BASE}
    return tuple(
        Job(
            job := f"completions_{number}",
            Stage(job, format_lazy(_("Completions of {name}"), name=name)),
            "sample",
            inputs={"prompts.jsonl": PROMPTS_TO_TRY},
            models={"model": origin},
            # A project's own number of completions is one of comparisons to learn from.
            settings={"completions_per_prompt": 1},
        )
        for number, (name, origin) in enumerate(origins.items())
    )


RECIPE = Recipe(
    name=NAME,
    label=_("Blind trial"),
    help=_(
        "Two to four checkpoints answer the same prompts. Annotators compare the answers without learning whose they "
        "are, until their votes decide which checkpoint is better. It makes no checkpoint."
    ),
    programs=("sample",),
    jobs=jobs,
    fields=(
        FormField("round", "checkpoints"),
        FormField("round", "trial_prompts"),
        FormField("round", "trial_share"),
    ),
    defaults={"sample": {"completions_per_prompt": 1}},
    learns=False,
    names_checkpoints=True,
)
