"""Recipe evaluate: measure a checkpoint on held-out prompts. It trains nothing and makes no checkpoint.

The seed is fixed and prompts are chosen by it, so that the evaluations of two checkpoints compare: they are of the same
prompts, unless held-out prompts were added in between, with the same random numbers.
"""

from django.utils.translation import gettext_lazy as _

from training.rounds.recipes.description import (
    BASE,
    NEWEST_REWARD_MODEL,
    PROMPTS_TO_EVALUATE,
    Counts,
    Fact,
    FormField,
    Job,
    Recipe,
    Sections,
    Stage,
)
from training.rounds.recipes.parts import measured_root

NAME = "evaluate"

# The rows of the table, in order. Further figures of the result follow under their own names.
FIGURES = (
    Fact("similarity", _("Similarity to the references"), _("chrF, 0 to 1")),
    Fact("rouge_l", "ROUGE-L", _("F-measure, 0 to 1")),
    Fact("bleu", "BLEU", _("mean of sentences, 0 to 1")),
    Fact("token_f1", _("Token F1"), _("as in SQuAD, 0 to 1")),
    Fact("exact_match", _("Exact match"), _("share of completions")),
    Fact("reward_model", _("Score of the reward model")),
    Fact("reward_model_deviation", _("Deviation of that score"), _("between the heads of the reward model")),
    Fact("kl_from_root", _("KL from the imported model"), _("nats per completion")),
    Fact("tokens", _("Length"), _("tokens")),
    Fact("finished", _("Finished"), _("share of completions")),
    Fact("cut_off", _("Cut off"), _("share of completions, at the maximum length")),
    Fact("truncated", _("Truncated"), _("share of dialogues that no further turn fitted into")),
    Fact("empty", _("Empty"), _("share of completions")),
    Fact("repeated", _("Repeated"), _("share of completions with a phrase three times in a row")),
    Fact("distinct_1", "distinct-1", _("distinct tokens by tokens")),
    Fact("distinct_2", "distinct-2", _("distinct pairs of tokens by tokens")),
)


def jobs(settings: Sections, counts: Counts) -> tuple[Job, ...]:
    """Return the only job: evaluate the base."""
    return (
        Job(
            "evaluate",
            Stage("evaluate", _("Evaluation")),
            "evaluate",
            inputs={"prompts.jsonl": PROMPTS_TO_EVALUATE},
            models={
                "model": BASE,
                "reward_model": NEWEST_REWARD_MODEL,
                "root_model": measured_root(settings, "evaluate"),
            },
        ),
    )


RECIPE = Recipe(
    name=NAME,
    label=_("Evaluation"),
    help=_("The served checkpoint answers held-out prompts, and its answers are measured. It makes no checkpoint."),
    programs=("evaluate",),
    jobs=jobs,
    fields=(FormField("round", "evaluation_prompts"),),
    defaults={"evaluate": {"seed": 0}},
    learns=False,
)
