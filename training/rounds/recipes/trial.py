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
        FormField(
            "round",
            "checkpoints",
            _("Checkpoints"),
            _("Two to four. The served one is the one to beat; without it, the first in this list is."),
        ),
        FormField(
            "round",
            "trial_prompts",
            _("Prompts"),
            _("At most so many are answered by all, held-out prompts first. A prompt gives at most one decisive vote."),
        ),
        FormField(
            "round",
            "trial_share",
            _("Share of the queue, in percent"),
            _("Of the comparisons that annotators rank, so many are of the trial while it is open."),
        ),
        FormField(
            "round",
            "trial_may_train",
            _("Its rankings may train"),
            _("Later rounds learn from the rankings, too, except for those of held-out prompts."),
        ),
        FormField(
            "round",
            "trial_worthwhile_share",
            _("Worthwhile win share"),
            _("The trial ends as futile once the candidate surely wins less, such as 0.52. 0.5: it never does."),
        ),
        FormField(
            "sample", "temperature", _("Temperature"), _("The same for all. 0 always takes the likeliest token.")
        ),
    ),
    defaults={"sample": {"completions_per_prompt": 1}},
    learns=False,
    names_checkpoints=True,
)
