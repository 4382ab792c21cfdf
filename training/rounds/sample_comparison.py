"""Comparison of a round's samples with another checkpoint's, on the same prompts."""

from dataclasses import dataclass
from statistics import fmean

from django.db.models import QuerySet

from feedback.models import Completion, Prompt
from feedback.quality.agreement.estimates import wilson_interval
from training.models import Checkpoint, Round


@dataclass(frozen=True)
class Sample:
    """A prompt with one completion of each checkpoint; the other checkpoint may have none."""

    prompt: Prompt
    ours: Completion
    theirs: Completion | None
    our_score: float | None
    their_score: float | None  # by the same round's reward; None if another round scored it


@dataclass(frozen=True)
class Summary:
    """Share of prompts on which our completion has the higher score, over `count` prompts with two scores.

    Mean scores are left out: `results["policy"]["reward_gain"]` measures them on more prompts.
    """

    better: float | None  # a tie counts half
    low: float | None  # 95 % Wilson interval
    high: float | None
    count: int


def other_checkpoint(checkpoint: Checkpoint) -> Checkpoint | None:
    """Return the checkpoint to compare with: the served one; for the served one its parent."""
    if checkpoint.is_served:
        return checkpoint.parent
    return checkpoint.project.checkpoints.filter(is_served=True).select_related("source").first()


def samples_of(round_: Round, checkpoint: Checkpoint, other: Checkpoint | None) -> list[Sample]:
    """Return a sample per prompt that the checkpoint answered; prompts that both answered come first."""
    ours = _first_by_prompt(Completion.objects.filter(source=checkpoint.source, sampling__round=round_.number), round_)
    theirs = _first_by_prompt(Completion.objects.filter(source=other.source, prompt__in=ours), round_) if other else {}
    prompts = Prompt.objects.filter(pk__in=ours).order_by("split", "pk")  # "held_out" comes before "train"
    samples = [
        Sample(
            prompt,
            ours[prompt.pk],
            theirs.get(prompt.pk),
            score(ours[prompt.pk], round_),
            score(theirs.get(prompt.pk), round_),
        )
        for prompt in prompts
    ]
    return sorted(samples, key=lambda sample: sample.theirs is None)


def _first_by_prompt(completions: QuerySet[Completion], round_: Round) -> dict[int, Completion]:
    """Return one completion per prompt: the first one that this round scored, else the first one."""
    first: dict[int, Completion] = {}
    for completion in completions.order_by("pk"):
        known = first.get(completion.prompt_id)
        if known is None or (score(known, round_) is None and score(completion, round_) is not None):
            first[completion.prompt_id] = completion
    return first


def score(completion: Completion | None, round_: Round) -> float | None:
    """Return the score that this round gave the completion, or None. Scores of other rounds have other scales."""
    if completion is None or completion.sampling.get("round") != round_.number:
        return None
    return completion.sampling.get("score")


def summary_of(samples: list[Sample]) -> Summary:
    pairs = [
        (sample.our_score, sample.their_score)
        for sample in samples
        if sample.our_score is not None and sample.their_score is not None
    ]
    if not pairs:
        return Summary(None, None, None, 0)
    better = fmean((our > their) + (our == their) / 2 for our, their in pairs)
    return Summary(better, *wilson_interval(better, len(pairs)), len(pairs))
