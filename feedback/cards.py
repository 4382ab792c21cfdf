"""A comparison as one annotator sees it: rendered, in their order, under letters, without a trace of its sources."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import uuid4

from django.utils.translation import gettext as _

from feedback.judging import shown_ranks
from feedback.models import Comparison, Lease, Ranking
from feedback.rendering import render

LETTERS = "ABCDEFGHI"


@dataclass(frozen=True)
class ShownMessage:
    role: str
    label: str
    html: str


@dataclass(frozen=True)
class ShownCompletion:
    place: int  # in the order of display, from 0: all that the page knows of it
    letter: str
    rank: int | None
    html: str


@dataclass(frozen=True)
class Card:
    """What `rank/_card.html` shows. One of `lease` and `ranking` is an id, the other is empty."""

    comparison: int
    size: int
    messages: list[ShownMessage]
    completions: list[ShownCompletion]
    lease: str = ""
    ranking: str = ""
    expires_at: object = None
    key: str = ""

    @property
    def places(self) -> range:
        return range(1, self.size + 1)

    @property
    def dom(self) -> str:
        """Tells the ids of one card's elements from another's."""
        return f"{'r' if self.ranking else 'c'}{self.ranking or self.comparison}"


def card_of_lease(lease: Lease) -> Card:
    return Card(
        lease.comparison_id,
        lease.size,
        show_messages(lease.comparison.prompt.messages),
        _show_completions(lease.comparison, lease.display_order),
        lease=str(lease.pk),
        expires_at=lease.expires_at,
        key=str(uuid4()),
    )


def card_of_ranking(ranking: Ranking) -> Card:
    """For a correction: as it was shown, with the ranks that were given."""
    return Card(
        ranking.comparison_id,
        ranking.size,
        show_messages(ranking.comparison.prompt.messages),
        _show_completions(ranking.comparison, ranking.display_order, shown_ranks(ranking)),
        ranking=str(ranking.pk),
        key=str(uuid4()),
    )


def show_messages(messages: Sequence[dict[str, str]]) -> list[ShownMessage]:
    labels = {"system": _("System"), "user": _("User"), "assistant": _("Assistant")}
    return [
        ShownMessage(message["role"], labels.get(message["role"], message["role"]), render(message["content"]))
        for message in messages
    ]


def _show_completions(
    comparison: Comparison, order: Sequence[int], ranks: Sequence[int] | None = None
) -> list[ShownCompletion]:
    """Everything here runs in the order of display."""
    return [
        ShownCompletion(place, LETTERS[place], ranks[place] if ranks else None, render(text))
        for place, text in enumerate(comparison.texts(order))
    ]
