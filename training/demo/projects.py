"""The projects of the demo: replies of a shop's support, and its dialogues with customers who answer back."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from training.demo import base_model, dialogue_utility, grammar, utility
from training.demo.grammar import dialogues
from training.demo.grammar.dialogues import Turns
from training.demo.settings import (
    DIALOGUE_ROUND,
    DIALOGUE_ROUND_OF_OTHER_MODELS,
    ROUND,
    ROUND_OF_OTHER_MODELS,
)
from training.rounds.settings import Sections

PROMPTS = 1600
DIALOGUE_PROMPTS = 400  # each with DIALOGUES imported dialogues
DIALOGUES = 4
PROMPT_SEED = 1  # differs from the seed of the base models' demonstrations

Row = dict[str, Any]


@dataclass(frozen=True)
class DemoProject:
    """A project of the demo, what its first model learns from, and how good an answer to a message is."""

    slug: str
    name: str
    guidelines: str  # a file of this folder
    rows: Callable[[], Iterator[Row]]  # of the first import
    has_completions: bool  # whether they come with completions to rank
    wanted_rankings: int
    demonstrations: Callable[[], Iterator[Row]]
    base_folder: str
    base_settings: dict[str, Any]  # of its training, beside those of `base_model`
    round: Sections
    round_of_other_models: Sections  # with --model
    utility: Callable[[str, Turns], float]


def reply_rows() -> Iterator[Row]:
    """Yield messages of customers, without completions."""
    for message in grammar.messages(PROMPT_SEED, PROMPTS):
        yield {"prompt": message.text}


def dialogue_rows() -> Iterator[Row]:
    """Yield first messages of customers with what they say next, and dialogues to rank."""
    for number, asked in enumerate(dialogues.requests(PROMPT_SEED, DIALOGUE_PROMPTS)):
        written = [dialogues.dialogue(asked, Random(f"import/{PROMPT_SEED}/{number}/{n}")) for n in range(DIALOGUES)]
        yield {
            "prompt": asked.text,
            "metadata": {"user_turns": [asked.answer]},
            "completions": [{"turns": turns} for turns in distinct(written)],
        }


def distinct(written: list[Turns]) -> list[Turns]:
    """Return the dialogues without repetitions."""
    return [turns for place, turns in enumerate(written) if turns not in written[:place]]


SUPPORT = DemoProject(
    slug="support",
    name="Support replies",
    guidelines="guidelines.md",
    rows=reply_rows,
    has_completions=False,
    wanted_rankings=1,
    demonstrations=base_model.reply_demonstrations,
    base_folder="base",
    base_settings={},
    round=ROUND,
    round_of_other_models=ROUND_OF_OTHER_MODELS,
    utility=lambda message, turns: utility.utility(message, turns[-1]["content"]),
)
DIALOGUE = DemoProject(
    slug="support-dialogues",
    name="Support dialogues",
    guidelines="dialogue_guidelines.md",
    rows=dialogue_rows,
    has_completions=True,
    wanted_rankings=2,
    demonstrations=base_model.dialogue_demonstrations,
    base_folder="dialogue-base",
    base_settings={"batch_tokens": 256},  # with fewer steps, the model does not learn to repeat the order number
    round=DIALOGUE_ROUND,
    round_of_other_models=DIALOGUE_ROUND_OF_OTHER_MODELS,
    utility=dialogue_utility.utility,
)
PROJECTS = {project.slug: project for project in (SUPPORT, DIALOGUE)}


def turns_of(text: str, turns: Turns | None) -> Turns:
    """Return the turns of a completion; a text is one turn of the assistant."""
    return turns or [{"role": "assistant", "content": text}]
