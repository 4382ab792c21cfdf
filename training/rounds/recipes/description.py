"""The parts of a recipe: jobs with their stage, input files and models, and their curves and figures on pages.

Everything here is a description. Texts for people are lazy translations.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from django.utils.functional import Promise

from training.learner.reward_terms import terms_with_references

Text: TypeAlias = str | Promise
Sections = dict[str, dict[str, Any]]

# Where a model of a job comes from; any other value names an earlier job, whose folder `model` it is.
NONE = ""
BASE = "base"  # the checkpoint that the round starts from
ROOT = "root"  # its imported ancestor
REWARD_MODEL_OF_BASE = "reward model of base"  # the reward model that the base was trained with, if any
CONTINUED_REWARD_MODEL = "continued reward model"  # the same, unless a full training is due (continued_reward.py)
CRITIC_OF_BASE = "critic of base"  # the critic that the base's round kept, if it fits (continued_critic.py)
NEWEST_REWARD_MODEL = "newest reward model"  # of the newest checkpoint of the project that has one, if any
CHECKPOINT = "checkpoint "  # and its name: a checkpoint of the project (named_checkpoints.py)

ENDPOINT = "endpoint"  # in place of a program: an endpoint of the project writes, see `run_round.endpoint_job`

# Kinds of rows of an input file: the modules of `rounds.inputs`. A value with a slash, such as "samples/samples.jsonl",
# is a file that an earlier job wrote.
RANKINGS = "rankings"
RATINGS = "ratings"
DEMONSTRATIONS = "demonstrations"
LOGGED_COMPLETIONS = "logged_completions"
PROMPTS_TO_LEARN_FROM = "prompts_to_learn_from"
PROMPTS_TO_ANSWER = "prompts_to_answer"
PROMPTS_TO_COMPARE = "prompts_to_compare"
PROMPTS_TO_EVALUATE = "prompts_to_evaluate"
GUARD_PROMPTS = "guard_prompts"
GUARD_TEXTS = "guard_texts"
PROMPTS_TO_TRY = "prompts_to_try"


class Stage(NamedTuple):
    """A part of the round that people see. Its first job has the same name."""

    name: str  # at most 20 characters
    label: Text


class Curve(NamedTuple):
    """A curve of the round's page: one or two metrics of a job, separated by a space."""

    title: Text
    metrics: str
    labels: tuple[Text, ...] = ()
    best: str = ""  # key in result.json of the best value that any model can attain, with _low, _high and _at_least


class Fact(NamedTuple):
    """A figure of a job's result on the round's page."""

    key: str  # in result.json
    label: Text
    note: Text = ""


class FormField(NamedTuple):
    """A setting in the simple view of the form of a new round; `rounds.declared` has its label and sentence.

    A list is that of the reward terms: the field chooses a text metric.
    """

    section: str
    name: str


class Counts(NamedTuple):
    """Numbers of rankings and demonstrations at the start of a round."""

    rankings: int = 0
    demonstrations: int = 0  # without those of held-out prompts


@dataclass(frozen=True)
class Job:
    """Run of a program in the round. `name` is its folder, its key in `Round.results`, and the job of its metrics."""

    name: str
    stage: Stage
    program: str
    inputs: Mapping[str, str]  # file name to the kind of its rows
    models: Mapping[str, str]  # model setting of the program to where the model comes from
    settings: Mapping[str, Any] = field(default_factory=dict)  # override those of the program's section
    curves: tuple[Curve, ...] = ()
    facts: tuple[Fact, ...] = ()
    source: str = ""  # key of the setting `sources` whose completions it writes for the comparisons; "": none

    @property
    def section(self) -> str:
        """Return the section of settings that it reads: an endpoint samples with those of `sample`."""
        return "sample" if self.program == ENDPOINT else self.program


@dataclass(frozen=True)
class Recipe:
    """A kind of round. The new checkpoint is the model that the job "samples" answers with.

    A recipe that does not learn makes no checkpoint: its round ends with the results of its jobs.
    """

    name: str
    label: Text
    help: Text  # one or two sentences
    programs: tuple[str, ...]  # their sections of settings are stored, checked and accepted
    # The settings are complete, but may be unchecked: a bad value must not raise here.
    jobs: Callable[[Sections, Counts], tuple[Job, ...]]
    fields: tuple[FormField, ...] = ()  # of the simple view, besides the number of prompts to answer
    defaults: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # by section, where they differ
    rewards_section: str = ""  # the section whose `rewards` score completions; "": none has such a setting
    learns: bool = True  # false: it trains nothing
    # The setting "checkpoints" of the section "round" names the two to four checkpoints that it is about.
    names_checkpoints: bool = False
    check: Callable[[Sections], None] = lambda settings: None  # raises BadInput, also for unchecked settings

    def reward_terms(self, settings: Sections) -> list[str]:
        """Return the names of the reward terms that score completions; none if nothing scores them."""
        terms = settings.get(self.rewards_section or "sample", {}).get("rewards", [])
        if not isinstance(terms, list):
            return ["reward_model"]  # the program's check refuses it with a better message
        return [str(term.get("name")) for term in terms if isinstance(term, dict)]

    def rewarded_attributes(self, settings: Sections) -> list[str]:
        """Return the rated attributes that score completions, without repetition."""
        terms = settings.get(self.rewards_section or "sample", {}).get("rewards", [])
        wanted = (term.get("of") for term in terms if isinstance(term, dict) and term.get("name") == "attribute")
        return list(dict.fromkeys(str(name) for name in wanted))

    def comparing_terms(self, settings: Sections) -> list[str]:
        """Return the names of those reward terms that need reference answers."""
        return terms_with_references([{"name": name} for name in self.reward_terms(settings)])
