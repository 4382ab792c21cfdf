"""Ratings of a project's sources, win rates by two sources and on slices of the prompts, for pages and API.

For a record of at most MAX_COMPUTED_BY_READER rows they are computed at each reading. For a longer one a worker
computes and stores them (`refresh`); readers get the last ones at once, with their time (`as_of`).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from time import monotonic
from typing import TYPE_CHECKING, Any

from django.utils import timezone
from django.utils.translation import gettext as _

from feedback.errors import NotComputedYet, NotFound
from feedback.models import Project, RatingsSnapshot, Source
from feedback.quality import ratings
from feedback.quality.ratings import Coefficient, RankedSources, Rating, Ratings, SliceRate, Status, WinRate
from feedback.reports.quality_snapshot import record_length

if TYPE_CHECKING:  # imports numpy
    from feedback.quality.ratings.slices import PromptFields

MAX_COMPUTED_BY_READER = 20_000  # rows of the record: 2,000 rankings of four take 0.1 s, most of it in PostgreSQL
MAX_WORKER_SHARE = 0.05  # of the worker's time for the ratings of one project
MAX_SLICED = 30  # two sources; those with most preferences have slices in a snapshot


@dataclass(frozen=True)
class SourceRatings:
    """Ratings with the sources that they mention."""

    ratings: Ratings
    win_rates: list[WinRate]  # of every two sources that met
    rankings: dict[int, int]  # with a completion of the source, by its id
    sources: dict[int, Source]  # by id, of all ranked completions
    as_of: datetime
    is_current: bool  # the record has not changed since `as_of`

    def win_rate(self, source_id: int, other_id: int) -> WinRate | None:
        """Return the win rate of a source against another; None if they did not meet."""
        for rate in self.win_rates:
            if (rate.source_id, rate.other_id) == (source_id, other_id):
                return rate
            if (rate.other_id, rate.source_id) == (source_id, other_id):
                return rate.reversed()
        return None


@dataclass(frozen=True)
class SourceSlices:
    """Win rates of a source against another on slices of the prompts."""

    rates: list[SliceRate]
    as_of: datetime
    is_current: bool
    is_stored: bool  # False: a long record, and these two are not among those with most preferences


def get_ratings(project: Project, *, with_style: bool = False) -> SourceRatings:
    """Return the ratings of a project's sources. Raises NotComputedYet for a long record without stored ratings."""
    now, length = timezone.now(), record_length(project)
    if length <= MAX_COMPUTED_BY_READER:
        rankings = _read(project, with_style)
        content = (_rate(rankings, with_style), _win_rates(rankings), _count_rankings(rankings))
        return _with_sources(project, *content, now, True)
    snapshot = _snapshot_of(project)
    return _with_sources(
        project, *_decode(snapshot.content, with_style), snapshot.computed_at, snapshot.record_length == length
    )


def get_slices(project: Project, source_id: int, other_id: int) -> SourceSlices:
    """Return the win rates of a source against another by slice. Raises as `get_ratings`."""
    now, length = timezone.now(), record_length(project)
    if length <= MAX_COMPUTED_BY_READER:
        rankings = _with_both(_read(project, False), source_id, other_id)
        return SourceSlices(_slice_rates(rankings, _prompts(project, rankings), source_id, other_id), now, True, True)
    snapshot = _snapshot_of(project)
    as_of, is_current = snapshot.computed_at, snapshot.record_length == length
    for one, other, rates in snapshot.slices:
        if {one, other} == {source_id, other_id}:
            decoded = [_decode_slice(rate) for rate in rates]
            return SourceSlices([_seen_by(source_id, rate) for rate in decoded], as_of, is_current, True)
    return SourceSlices([], as_of, is_current, False)


def source_named(project: Project, name: str) -> Source:
    """Return the project's source of this name. Raises NotFound."""
    source = project.sources.filter(name=name).first()
    if source is None:
        raise NotFound(_('There is no source "%(name)s" in this project.') % {"name": name})
    return source


def refresh() -> int:
    """Replace the outdated ratings of long records, which readers do not compute. Return the number of projects."""
    return sum(_refresh(project) for project in Project.objects.all())


def take_snapshot(project: Project) -> RatingsSnapshot:
    """Compute a project's ratings and store them."""
    began, now = monotonic(), timezone.now()
    length = record_length(project)  # read first: a ranking that arrives meanwhile makes the snapshot outdated
    rankings = _read(project, True)
    win_rates = _win_rates(rankings)
    content = {
        "plain": asdict(_rate(rankings, False)),
        "style": asdict(_rate(rankings, True)),
        "win_rates": [list(vars(rate).values()) for rate in win_rates],
        "rankings": list(_count_rankings(rankings).items()),
    }
    values = {
        "record_length": length,
        "computed_at": now,
        "content": content,
        "slices": _slices(project, rankings, win_rates),
        "seconds": monotonic() - began,
    }
    snapshot = RatingsSnapshot(project=project, **values)
    RatingsSnapshot.objects.bulk_create(
        [snapshot], update_conflicts=True, update_fields=list(values), unique_fields=["project"]
    )
    return snapshot


def _refresh(project: Project) -> bool:
    length = record_length(project)
    if length <= MAX_COMPUTED_BY_READER:
        return False
    snapshot = RatingsSnapshot.objects.filter(project=project).defer("content", "slices").first()
    if snapshot is not None:
        pause = timedelta(seconds=snapshot.seconds / MAX_WORKER_SHARE)
        if snapshot.record_length == length or timezone.now() - snapshot.computed_at < pause:
            return False
    take_snapshot(project)
    return True


def _snapshot_of(project: Project) -> RatingsSnapshot:
    snapshot = RatingsSnapshot.objects.filter(project=project).first()
    if snapshot is None:
        raise NotComputedYet(
            _("A worker is computing the ratings of this project for the first time: come back in a few minutes.")
        )
    return snapshot


def _read(project: Project, with_style: bool) -> list[RankedSources]:
    from feedback.quality.ratings import ranked_sources

    return ranked_sources.read(project, with_style=with_style)


def _rate(rankings: Sequence[RankedSources], with_style: bool) -> Ratings:
    from feedback.quality.ratings import ranked_sources

    if with_style:
        return ratings.rate_rankings(rankings, ranked_sources.STYLE_NAMES)
    return ratings.rate_rankings([ranking._replace(style=()) for ranking in rankings])


def _win_rates(rankings: Sequence[RankedSources]) -> list[WinRate]:
    from feedback.quality.ratings import win_rates
    from feedback.quality.ratings.pairs import pairs_of

    return win_rates.win_rates(pairs_of([ranking._replace(style=()) for ranking in rankings]))


def _count_rankings(rankings: Sequence[RankedSources]) -> dict[int, int]:
    return dict(Counter(source_id for ranking in rankings for source_id in set(ranking.sources)))


def _prompts(project: Project, rankings: Sequence[RankedSources]) -> "dict[int, PromptFields]":
    from feedback.quality.ratings import slices

    ids = {ranking.prompt_id for ranking in rankings}
    return {prompt.prompt_id: prompt for prompt in slices.read_prompts(project, ids)}


def _with_both(rankings: Sequence[RankedSources], source_id: int, other_id: int) -> list[RankedSources]:
    """Return the rankings with completions of both sources; none if it is one source."""
    both = {source_id, other_id}
    return [ranking for ranking in rankings if both <= set(ranking.sources)] if len(both) == 2 else []


def _slice_rates(
    rankings: Sequence[RankedSources], prompts: "dict[int, PromptFields]", source_id: int, other_id: int
) -> list[SliceRate]:
    """Return the win rates by slice; the rankings have completions of both sources."""
    from feedback.quality.ratings import slices

    ids = sorted({ranking.prompt_id for ranking in rankings})
    return slices.slice_rates(rankings, slices.slices_of([prompts[pk] for pk in ids]), source_id, other_id)


def _slices(project: Project, rankings: Sequence[RankedSources], win_rates: Sequence[WinRate]) -> list[Any]:
    """Return [[source id, other id, slices], …] of those with most preferences."""
    prompts = _prompts(project, rankings)
    chosen = sorted(win_rates, key=lambda rate: -rate.preferences)[:MAX_SLICED]
    encoded = []
    for two in [(rate.source_id, rate.other_id) for rate in chosen]:
        rates = _slice_rates(_with_both(rankings, *two), prompts, *two)
        encoded.append([*two, [asdict(rate) for rate in rates]])
    return encoded


def _with_sources(
    project: Project,
    result: Ratings,
    win_rates: list[WinRate],
    rankings: dict[int, int],
    as_of: datetime,
    is_current: bool,
) -> SourceRatings:
    sources = project.sources.in_bulk({*rankings, *result.sources})
    return SourceRatings(result, win_rates, rankings, sources, as_of, is_current)


def _decode(content: dict[str, Any], with_style: bool) -> tuple[Ratings, list[WinRate], dict[int, int]]:
    stored = content["style" if with_style else "plain"]
    decoded = {
        "ratings": [Rating(**row | {"status": Status(row["status"])}) for row in stored["ratings"]],
        "style": [Coefficient(**row) for row in stored["style"]],
        "log_nu": _decode_coefficient(stored["log_nu"]),
        "first_shown": _decode_coefficient(stored["first_shown"]),
    }
    win_rates = [WinRate(*values) for values in content["win_rates"]]
    return Ratings(**stored | decoded), win_rates, dict(content["rankings"])


def _decode_coefficient(stored: dict[str, Any] | None) -> Coefficient | None:
    return Coefficient(**stored) if stored else None


def _decode_slice(stored: dict[str, Any]) -> SliceRate:
    return SliceRate(**stored | {"rate": WinRate(**stored["rate"])})


def _seen_by(source_id: int, one: SliceRate) -> SliceRate:
    """Return the win rate on a slice as this source sees it."""
    if one.rate.source_id == source_id:
        return one
    difference = None if one.difference is None else -one.difference
    return SliceRate(one.kind, one.key, one.value, one.rate.reversed(), difference, one.p_value)
