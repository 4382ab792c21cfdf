"""A comparison as one annotator sees it: rendered, in their order, under letters, without a trace of its sources."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import uuid4

from django.utils.translation import gettext as _

from feedback.actions import spans
from feedback.actions.ranking_details import ALL_BAD, ALL_GOOD, RATING_POINTS, flags_of, shown_ratings
from feedback.actions.rankings import previous_ranking, shown_ranks
from feedback.models import Lease, Membership, Project, Ranking
from feedback.queue.blinding import comparison_number
from feedback.rendering import render

LETTERS = "ABCDEFGHI"
MOST_MARKDOWN = 200_000  # characters of a conversation; each message of a longer one is plain text
FLAG_KEYS = "FHJKNOQTXYZA"  # of a project's own flags, in their order: letters that mean nothing else on the page


@dataclass(frozen=True)
class ShownMessage:
    role: str
    label: str
    html: str
    text: str  # as it is written
    is_earlier: bool = False  # before the last user turn, which the completions answer


@dataclass(frozen=True)
class ShownCompletion:
    place: int  # in the order of display, from 0: all that the page knows of it
    letter: str
    rank: int | None
    html: str
    text: str  # as it is written
    ratings: tuple["ShownRating", ...] = ()
    spans: str = "[]"  # JSON: [[start, end, mark], …] in visible characters


@dataclass(frozen=True)
class ShownRating:
    """What a completion is rated on, and how it was."""

    attribute: str
    rating: int | None = None


@dataclass(frozen=True)
class ShownFlag:
    name: str
    label: str
    is_set: bool
    key: str = ""  # on the keyboard


@dataclass(frozen=True)
class Card:
    """What `rank/_card.jinja.html` shows."""

    comparison: int  # the number that its annotator knows it by: see blinding.py
    size: int
    messages: list[ShownMessage]
    completions: list[ShownCompletion]
    lease: str = ""
    expires_at: object = None
    key: str = ""
    strength_points: int = 0
    strength: int | None = None
    one_key: bool = False  # ranks and submits it
    flags: tuple["ShownFlag", ...] = ()
    comment: str = ""
    returned: str = ""  # why a reviewer wants it looked at again
    withdrawn_seconds: float | None = None  # that its annotator had spent on it before they undid it

    @property
    def places(self) -> range:
        return range(1, self.size + 1)

    @property
    def strengths(self) -> range:
        """Empty when strength is not asked."""
        return range(1, (self.strength_points if self.size == 2 else 0) + 1)

    @property
    def rating_points(self) -> range:
        return range(1, RATING_POINTS + 1)

    @property
    def dom(self) -> str:
        """Tells the ids of one card's elements from another's."""
        return f"c{self.comparison}"


def card_of_lease(lease: Lease, membership: Membership) -> Card:
    """What was returned or withdrawn comes with what its annotator said of it, and why they should look again."""
    project, earlier = membership.project, previous_ranking(lease)
    return Card(
        comparison_number(membership, lease.comparison_id),
        lease.size,
        show_messages(lease.comparison.prompt.messages),
        _show_completions(lease.comparison.texts(lease.display_order), project, earlier),
        lease=str(lease.pk),
        expires_at=lease.expires_at,
        key=str(uuid4()),
        strength_points=project.strength_points,
        strength=earlier.strength if earlier else None,
        one_key=project.one_key_pairs and lease.size == 2,
        flags=show_flags(project, earlier.flags if earlier else ()),
        comment=earlier.comment if earlier else "",
        returned=earlier.review.reason if earlier and earlier.review else "",
        withdrawn_seconds=earlier.seconds if earlier and lease.withdrawn_id else None,
    )


def sample_card() -> Card:
    """A comparison to practise on; nothing of it is stored."""
    prompt = _("My kettle came with a cracked lid. Can I have another one?")
    texts = (
        _("Things break in the post sometimes. You should have packed it better when you opened it."),
        _("I am sorry about the lid. A new kettle is on its way and reaches you on Thursday; keep the old one."),
        _("Please send us a photograph of the lid, and we send you a new kettle the same day."),
    )
    shown = [ShownCompletion(place, LETTERS[place], None, render(text), text) for place, text in enumerate(texts)]
    return Card(0, len(texts), show_messages([{"role": "user", "content": prompt}]), shown)


def show_flags(project: Project, chosen: Sequence[str] = ()) -> tuple[ShownFlag, ...]:
    labels = {ALL_BAD: _("All bad"), ALL_GOOD: _("All good")}
    return tuple(
        ShownFlag(name, labels.get(name, name), name in chosen, key)
        for name, key in zip(flags_of(project), "BV" + FLAG_KEYS, strict=False)
    )


def show_messages(messages: Sequence[dict[str, str]]) -> list[ShownMessage]:
    labels = {"system": _("System"), "user": _("User"), "assistant": _("Assistant")}
    are_long = sum(len(message["content"]) for message in messages) > MOST_MARKDOWN
    last_user_turn = max((place for place, message in enumerate(messages) if message["role"] == "user"), default=0)
    return [
        ShownMessage(
            message["role"],
            labels.get(message["role"], message["role"]),
            render(message["content"], as_plain=are_long),
            message["content"],
            is_earlier=place < last_user_turn,
        )
        for place, message in enumerate(messages)
    ]


def _show_completions(texts: Sequence[str], project: Project, ranking: Ranking | None = None) -> list[ShownCompletion]:
    """Everything here runs in the order of display."""
    ranks = shown_ranks(ranking) if ranking else [None] * len(texts)
    rated = shown_ratings(ranking) if ranking else {}
    marked = spans.shown_spans(ranking) if ranking else []
    return [
        ShownCompletion(
            place,
            LETTERS[place],
            ranks[place],
            render(text),
            text,
            tuple(ShownRating(each, rated[each][place] if each in rated else None) for each in project.attributes),
            json.dumps(spans.seen([span for span in marked if span["completion"] == place], text)),
        )
        for place, text in enumerate(texts)
    ]
