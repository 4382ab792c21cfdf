"""rankings.jsonl: the rankings up to the round's cut-off."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from django.db.models import Q, QuerySet
from django.utils.translation import gettext as _

from feedback.errors import Invalid
from feedback.export import ranking_record
from feedback.models import Project, Prompt, Ranking
from feedback.models.flags import ALL_BAD, ALL_GOOD, is_trainable, trainable
from feedback.quality import reliability
from training.models import Round
from training.rounds.inputs import needs, rows
from training.rounds.recipes.description import RANKINGS, Job, Recipe, Sections


class Selection:
    """Choice of the rankings that a round of a project reads, of all those that count. It counts them as it goes."""

    def __init__(self, project: Project, counts: dict[str, int]) -> None:
        self.project, self.counts = project, counts
        self._measuring_trials = set(project.trials.filter(may_train=False).values_list("number", flat=True))
        counts |= {"rankings": 0, "flagged_rankings": 0}

    def takes(self, ranking: Mapping[str, Any], number: int = 1) -> bool:
        """Return whether a round reads a ranking, and count it.

        Rankings with a flag "not for training" are left out, and so are those on training prompts of trials that must
        not train. A ranking on a held-out prompt is read, but only measures.

        ranking: its flags, split and trial (a number, or None). number: rankings that are equal in these.
        """
        is_held_out = ranking["split"] == Prompt.Split.HELD_OUT
        if not is_trainable(self.project, ranking["flags"]):
            self._count("flagged_rankings", number)
        elif ranking["trial"] in self._measuring_trials and not is_held_out:
            self._count("trial_rankings", number)
        else:
            self._count("rankings", number)
            if is_held_out:
                self._count("held_out_rankings", number)
            return True
        return False

    def _count(self, name: str, number: int) -> None:
        self.counts[name] = self.counts.get(name, 0) + number


@rows(RANKINGS)
def rankings(round_: Round, job: Job, counts: dict[str, int]) -> Iterator[dict[str, Any]]:
    """Yield the rankings that `Selection` takes, and count them."""
    selection = Selection(round_.project, counts)
    for row in ranking_record.rankings(
        round_.project, until=round_.cutoff, still_counting=True, reliability=weights(round_), include_flagged=True
    ):
        if not selection.takes(row):
            continue
        anchor = anchor_of(row["flags"]) if round_.settings["round"].get("anchors") else None
        count_details(row, anchor, counts)
        yield row | ({"anchor": anchor} if round_.settings["round"].get("anchors") else {})


def count_details(row: dict[str, Any], anchor: str | None, counts: dict[str, int]) -> None:
    """Count the marks of a training prompt's ranking, and the ranking itself if it has an anchor."""
    if row["split"] != Prompt.Split.TRAIN:
        return
    if row["spans"]:
        counts["marks"] = counts.get("marks", 0) + len(row["spans"])
    if anchor is not None:
        counts["anchored_rankings"] = counts.get("anchored_rankings", 0) + 1


def anchor_of(flags: Sequence[str]) -> str | None:
    """Return on which side of the anchor the annotator puts every completion; None without a clear statement."""
    is_bad, is_good = ALL_BAD in flags, ALL_GOOD in flags
    return None if is_bad == is_good else "below" if is_bad else "above"


def weights(round_: Round) -> dict[int, float] | None:
    """Return the annotators' reliability at the round's cut-off; None if all rankings have equal weight."""
    if round_.settings["round"].get("weights") != "reliability":
        return None
    return reliability.values(reliability.report_at(round_.project, round_.cutoff))


@needs(RANKINGS)
def check_rankings(project: Project, recipe: Recipe, settings: Sections) -> None:
    """Raise Invalid if there is no ranking to learn from."""
    if trainable_rankings(project).exists():
        return
    if ranking_record.counting_now(project).exists():
        raise Invalid(
            _(
                'So far every ranking has a flag that means "not for training" or belongs to a trial that must not '
                "train, and rounds do not learn from such rankings."
            )
        )
    raise Invalid(_("There are no rankings to learn from yet: rank some comparisons first."))


def trainable_rankings(project: Project) -> QuerySet[Ranking]:
    """Return the rankings that a round could learn from now.

    Rankings of gold, discarded rankings, and those that `learnable` excludes are left out.
    """
    return ranking_record.counting_now(project).filter(learnable(project))


def learnable(project: Project) -> Q:
    """Return the condition on rankings that neither a flag nor their trial forbids a round to learn from them.

    A trial that must not train (`may_train`) leaves out its rankings on training prompts. Those on held-out prompts
    stay: they train nothing in any case, and measure.
    """
    measures_only = Q(comparison__trial__may_train=False, comparison__prompt__split=Prompt.Split.TRAIN)
    return trainable(project) & ~measures_only
