"""What a round's checkpoint says, beside what another says to the same prompts."""

from dataclasses import dataclass
from statistics import fmean

from django.db.models import QuerySet

from feedback.models import Completion, Prompt
from feedback.quality.agreement.estimates import wilson
from training.models import Checkpoint, Round


@dataclass(frozen=True)
class Sample:
    """One prompt with a completion of each side; the other side may not have answered it."""

    prompt: Prompt
    ours: Completion
    theirs: Completion | None
    our_score: float | None
    their_score: float | None  # by the same round, else none


@dataclass(frozen=True)
class Summary:
    """How often ours is scored higher, over the `count` prompts that both sides answered and the round scored.

    There are no mean scores here: the round's own figure, on more prompts, is `results["policy"]["reward_gain"]`.
    """

    better: float | None  # share of those prompts; a tie counts half
    low: float | None  # Wilson's 95 % interval
    high: float | None
    count: int


def beside(checkpoint: Checkpoint) -> Checkpoint | None:
    """Whose samples to put beside this one's: the served checkpoint's, or when it is that one, its parent's."""
    if checkpoint.is_served:
        return checkpoint.parent
    return checkpoint.project.checkpoints.filter(is_served=True).select_related("source").first()


def samples_of(round_: Round, checkpoint: Checkpoint, other: Checkpoint | None) -> list[Sample]:
    """A sample for each prompt that the round's checkpoint answered: first those that both answered, held-out first."""
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
    """One completion a prompt: the first of this round's own, whose scores can be compared, or else the first."""
    first: dict[int, Completion] = {}
    for completion in completions.order_by("pk"):
        known = first.get(completion.prompt_id)
        if known is None or (score(known, round_) is None and score(completion, round_) is not None):
            first[completion.prompt_id] = completion
    return first


def score(completion: Completion | None, round_: Round) -> float | None:
    """What this round scored it by what it learned from: other rounds' scores have other scales."""
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
    return Summary(better, *wilson(better, len(pairs)), len(pairs))
