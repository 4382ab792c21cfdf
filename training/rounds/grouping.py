"""Groups of completions that are compared: without near-duplicates, and in the mixture of sources that a round wants.

A near-duplicate gives its place to a spare completion of the same source. Where none is left the comparison is smaller,
or there is none. Everything is counted, and the round's page says it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from feedback.dialogues import Answer, text_of
from feedback.imports.near_duplicates import alike_among

MIN_SIZE = 2


class Candidate(NamedTuple):
    """A sampled completion: the source's key in the setting `sources` ("" without it), and its place in the rows."""

    source: str
    place: int
    answer: Answer


@dataclass
class Tally:
    """Counts of near-duplicates and what followed from them; stored in `Round.results`."""

    near_duplicates: int = 0  # completions that gave their place to another
    smaller: int = 0  # comparisons of fewer completions than wanted
    dropped: int = 0  # comparisons of which fewer than two completions were left

    def to_json(self) -> dict[str, int]:
        return asdict(self)


@dataclass
class Grouping:
    """The groups by prompt, as pairs of a source's key and a place in its rows."""

    by_prompt: dict[int, list[list[tuple[str, int]]]] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)


def candidate(source: str, place: int, row: Mapping[str, Any]) -> Candidate:
    """Return the candidate of a row for `imports.add_completions`."""
    turns = row.get("turns")
    return Candidate(source, place, Answer(text_of(turns), turns) if turns else Answer(row["text"]))


def grouped(candidates: Sequence[Candidate], size: int, most: int, tally: Tally) -> list[list[Candidate]]:
    """Return at most `most` groups of `size` completions of one prompt, in order; the last may be smaller.

    A completion goes to the first group with room and without a near-duplicate of it.
    """
    groups: list[list[Candidate]] = []
    for one in candidates:
        is_alike = False
        for group in groups:
            if len(group) == size:
                continue
            if not _is_alike(one, group):
                group.append(one)
                break
            is_alike = True
        else:
            if len(groups) < most:
                groups.append([one])
        tally.near_duplicates += is_alike
    whole = [group for group in groups if len(group) >= MIN_SIZE]
    # As many completions that are all different would make groups of these sizes.
    different = min(len(candidates), most * size)
    sizes = [min(size, different - begin) for begin in range(0, different, size)]
    wanted = [number for number in sizes if number >= MIN_SIZE]
    tally.smaller += sum(len(group) < number for group, number in zip(whole, wanted, strict=False))
    tally.dropped += max(0, len(wanted) - len(whole))
    return whole


def mixed_group(candidates: Sequence[Candidate], wanted: Mapping[str, int], tally: Tally) -> list[list[Candidate]]:
    """Return the one group of a prompt: as many completions of each source as wanted, spares where some are alike.

    The source that comes first keeps a completion that another source has, too; which one does, changes with the
    prompt, so that the shares of the sources stay as wanted.
    """
    group: list[Candidate] = []
    for source, count in wanted.items():
        taken = 0
        for one in (one for one in candidates if one.source == source):
            if taken == count:
                break
            if _is_alike(one, group):
                tally.near_duplicates += 1
                continue
            group.append(one)
            taken += 1
    if len(group) < MIN_SIZE:
        tally.dropped += 1
        return []
    tally.smaller += len(group) < sum(wanted.values())
    return [group]


def _is_alike(one: Candidate, group: Sequence[Candidate]) -> bool:
    return alike_among(one.answer, [other.answer for other in group])
