"""Two checkpoints beside each other: their answers to the same prompts, and what people said between the two.

An answer is a stored completion (of a sample, a trial, a comparison, an import) or a text of an evaluation. Of several
to one prompt, the page shows two that people compared with each other, else two that one round wrote, else two that
evaluations wrote, else the oldest ones.

Prompts of an open trial that still wants votes on them are left out: a manager may rank, too, and must not learn whose
answer is whose before.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from django.db.models import Exists, OuterRef, QuerySet

from feedback.dialogues import Answer
from feedback.errors import NotComputedYet
from feedback.models import Comparison, ComparisonItem, Completion, Lease, Membership, Prompt, Ranking, Trial
from feedback.quality.ratings import WinRate
from feedback.reports.data.pages import NEWEST, Searched, ids_after, page_of, read_cursor
from feedback.reports.source_ratings import get_ratings
from training.models import Checkpoint, Round, SampleAtStep
from training.rounds.recipes.evaluate import NAME as EVALUATE

PROMPTS_PER_PAGE = 10
SORT = "newest"


@dataclass(frozen=True)
class Text:
    """An answer of a checkpoint to a prompt."""

    answer: Answer
    round: int | None  # number of the round that wrote it; None: not known
    score: float | None  # its reward in that round
    completion_id: int | None  # None: a text of an evaluation
    count: int  # answers of the checkpoint to this prompt


@dataclass(frozen=True)
class Votes:
    """Rankings of a comparison of the two shown completions. None are counted while the reader holds it."""

    comparison_id: int
    one: int  # for the first checkpoint
    other: int
    ties: int


@dataclass(frozen=True)
class PairedPrompt:
    """A prompt with an answer of each checkpoint, and the comparisons of the two."""

    prompt: Prompt
    one: Text
    other: Text
    votes: list[Votes]

    @property
    def is_same_text(self) -> bool:
        return self.one.answer == self.other.answer

    @property
    def has_scores_of_two_rounds(self) -> bool:
        """Return whether the two scores do not compare: each round scores by its own reward."""
        has_both = self.one.score is not None and self.other.score is not None
        return has_both and self.one.round != self.other.round


@dataclass(frozen=True)
class PromptPage:
    """A page of the prompts that both answered, newest first, and the cursor of the next one; "": it is the last."""

    prompts: list[PairedPrompt]
    next: str
    withheld: int  # prompts of an open trial that are left out, on all pages


@dataclass(frozen=True)
class Judgement:
    """Preferences of people between two checkpoints, over all rankings."""

    rate: WinRate | None  # of the first one; None: nobody compared them
    refusal: str  # why it is not known yet, or ""
    trials: list[Trial]  # that both were in, newest first


def page_of_prompts(membership: Membership, one: Checkpoint, other: Checkpoint, cursor: str = "") -> PromptPage:
    """Return a page of the prompts that both checkpoints answered. Raises Invalid for a damaged cursor."""
    place = read_cursor(cursor, SORT)
    evaluated = [_evaluated(checkpoint) for checkpoint in (one, other)]
    common = Prompt.objects.filter(project=membership.project_id, pk__in=_answered_by_both(one, other, *evaluated))
    wanting = _wanting_votes(membership.project_id)
    rows = Searched(common.exclude(wanting))
    page = page_of(ids_after(rows, NEWEST, place, PROMPTS_PER_PAGE + 1), SORT, PROMPTS_PER_PAGE)
    prompts = Prompt.objects.in_bulk(page.ids)
    pairs = _pairs(page.ids, one, other, evaluated)
    texts = Completion.objects.in_bulk(
        [answer.pk for pair in pairs.values() for answer in pair.chosen if _is_stored(answer)]
    )
    votes = _votes([met for pair in pairs.values() for met in pair.compared], membership)
    paired = []
    for pk in page.ids:
        pair = pairs[pk]
        one_text, other_text = (
            _text(answer, count, texts) for answer, count in zip(pair.chosen, pair.counts, strict=True)
        )
        paired.append(PairedPrompt(prompts[pk], one_text, other_text, [votes[met.comparison] for met in pair.compared]))
    return PromptPage(paired, page.next, common.filter(wanting).count())


def judgement_of(one: Checkpoint, other: Checkpoint) -> Judgement:
    """Return what people said between the two."""
    both = Trial.objects.filter(trial_sources__source=one.source_id)
    trials = both.filter(pk__in=Trial.objects.filter(trial_sources__source=other.source_id)).order_by("-number")
    try:
        rate = get_ratings(one.project).win_rate(one.source_id, other.source_id)
    except NotComputedYet as refusal:
        return Judgement(None, refusal.message, list(trials))
    return Judgement(rate, "", list(trials))


Shown = Completion | SampleAtStep


class _Met(NamedTuple):
    """A ranked comparison of a completion of each checkpoint, and where they stand in it."""

    comparison: int
    completions: tuple[int, int]
    positions: tuple[int, int]


class _Pair(NamedTuple):
    """The chosen answers to one prompt, how many each checkpoint gave, and the ranked comparisons of the two."""

    chosen: tuple[Shown, Shown]
    counts: tuple[int, int]
    compared: list[_Met]


def _is_stored(answer: Shown) -> bool:
    return isinstance(answer, Completion)


def _answered_by_both(
    one: Checkpoint,
    other: Checkpoint,
    evaluated: Mapping[int, SampleAtStep],
    other_evaluated: Mapping[int, SampleAtStep],
) -> QuerySet[Any, Any]:
    """Return the ids of the prompts that both answered, as a query that is computed once, before the prompts are read.

    With two EXISTS, PostgreSQL would look at the prompts of the project, newest first, until a page is full.
    """
    written = Completion.objects.filter(source=one.source_id).values_list("prompt_id")
    other_written = Completion.objects.filter(source=other.source_id).values_list("prompt_id")
    common = written.intersection(other_written)
    few = set(evaluated) & set(other_evaluated)
    few |= set(other_written.filter(prompt__in=list(evaluated)).values_list("prompt_id", flat=True))
    few |= set(written.filter(prompt__in=list(other_evaluated)).values_list("prompt_id", flat=True))
    return common.union(Prompt.objects.filter(pk__in=few).values_list("pk")) if few else common


def _wanting_votes(project_id: int) -> Exists:
    comparisons = Comparison.objects.filter(project=project_id, prompt=OuterRef("pk"), open_slots__gt=0)
    return Exists(comparisons.filter(trial__isnull=False, trial__ended_at__isnull=True))


def _evaluated(checkpoint: Checkpoint) -> dict[int, SampleAtStep]:
    """Return the texts of the checkpoint's evaluations, of each prompt the newest one."""
    rounds = Round.objects.filter(base=checkpoint, status=Round.Status.FINISHED, settings__round__recipe=EVALUATE)
    samples = SampleAtStep.objects.filter(round__in=rounds, job=EVALUATE).select_related("round")
    return {sample.prompt_id: sample for sample in samples.order_by("round__number", "step")}


def _pairs(
    ids: Sequence[int], one: Checkpoint, other: Checkpoint, evaluated: Sequence[Mapping[int, SampleAtStep]]
) -> dict[int, _Pair]:
    """Return the answers to show, by prompt. Completions are without their texts, of which there may be hundreds."""
    sources = (one.source_id, other.source_id)
    written: dict[int, dict[int, list[Completion]]] = {pk: {source: [] for source in sources} for pk in ids}
    rows = Completion.objects.filter(prompt__in=ids, source__in=sources)
    for completion in rows.only("prompt", "source", "sampling").order_by("pk"):
        written[completion.prompt_id][completion.source_id].append(completion)
    compared = _compared(ids, sources)
    pairs = {}
    for pk in ids:
        ours, theirs = (written[pk][source] for source in sources)
        our_sample, their_sample = (texts.get(pk) for texts in evaluated)
        chosen = _choice(ours, theirs, our_sample, their_sample, compared[pk])
        counts = (len(ours) + (our_sample is not None), len(theirs) + (their_sample is not None))
        both = tuple(answer.pk if _is_stored(answer) else None for answer in chosen)
        pairs[pk] = _Pair(chosen, counts, [met for met in compared[pk] if met.completions == both])
    return pairs


def _compared(ids: Sequence[int], sources: tuple[int, int]) -> dict[int, list[_Met]]:
    """Return the ranked comparisons with completions of both sources, by prompt, newest first."""
    items = ComparisonItem.objects.filter(
        comparison__prompt__in=ids, comparison__ranking_count__gt=0, completion__source__in=sources
    )
    values = items.values_list("prompt_id", "comparison_id", "completion__source_id", "completion_id", "position")
    completions: dict[tuple[int, int], dict[int, tuple[int, int]]] = defaultdict(dict)
    # Of several completions of one source in a comparison, the first one stays.
    for prompt_id, comparison_id, source_id, completion_id, position in values.order_by("-comparison_id", "-position"):
        completions[prompt_id, comparison_id][source_id] = (completion_id, position)
    compared: dict[int, list[_Met]] = {pk: [] for pk in ids}
    for (prompt_id, comparison_id), by_source in completions.items():
        if len(by_source) == len(sources):
            (ours, at), (theirs, other_at) = (by_source[source] for source in sources)
            compared[prompt_id].append(_Met(comparison_id, (ours, theirs), (at, other_at)))
    return compared


def _choice(
    ours: Sequence[Completion],
    theirs: Sequence[Completion],
    our_sample: SampleAtStep | None,
    their_sample: SampleAtStep | None,
    compared: Sequence[_Met],
) -> tuple[Shown, Shown]:
    """Return the two answers to show, by the rule of the module."""
    if compared:
        one, other = compared[0].completions
        return next(row for row in ours if row.pk == one), next(row for row in theirs if row.pk == other)
    first_of_round = {_round_of(row): row for row in reversed(theirs) if _round_of(row) is not None}
    for row in ours:
        if (same := first_of_round.get(_round_of(row))) is not None:
            return row, same
    if our_sample is not None and their_sample is not None:
        return our_sample, their_sample
    one_text, other_text = ours[0] if ours else our_sample, theirs[0] if theirs else their_sample
    assert one_text is not None and other_text is not None, "both checkpoints answered the prompt"
    return one_text, other_text


def _round_of(completion: Completion) -> int | None:
    number = completion.sampling.get("round")
    return number if isinstance(number, int) else None


def _text(answer: Shown, count: int, texts: Mapping[int, Completion]) -> Text:
    if isinstance(answer, Completion):
        return Text(texts[answer.pk].answer, _round_of(answer), answer.sampling.get("score"), answer.pk, count)
    return Text(answer.answer, answer.round.number, answer.reward, None, count)


def _votes(compared: Sequence[_Met], membership: Membership) -> dict[int, Votes]:
    """Return the live rankings that count, by comparison. Those of one that the reader holds are not counted."""
    ids = {met.comparison for met in compared}
    held = Lease.objects.filter(annotator=membership.user_id, project=membership.project_id, lapsed_at__isnull=True)
    seen = ids - set(held.filter(comparison__in=ids).values_list("comparison", flat=True))
    rankings: dict[int, list[list[int]]] = defaultdict(list)
    rows = Ranking.objects.filter(comparison__in=seen, is_live=True, standing=Ranking.Standing.COUNTS)
    for comparison_id, ranks in rows.values_list("comparison", "ranks"):
        rankings[comparison_id].append(ranks)
    votes = {}
    for met in compared:
        at, other_at = met.positions
        gains = [ranks[other_at] - ranks[at] for ranks in rankings[met.comparison]]  # above 0: the first one is better
        counts = (sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains), gains.count(0))
        votes[met.comparison] = Votes(met.comparison, *counts)
    return votes
