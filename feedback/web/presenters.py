"""Template contexts of a comparison as one annotator sees it: rendered, in their display order, without sources."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from django.utils.translation import gettext as _

from feedback.actions import spans
from feedback.actions.demonstrations import place_of_origin
from feedback.actions.ranking_details import RATING_POINTS, shown_ratings
from feedback.actions.rankings import previous_ranking, shown_ranks
from feedback.dialogues import Answer, last_turn
from feedback.models import Demonstration, Lease, Membership, Project, Ranking
from feedback.models.flags import ALL_BAD, ALL_GOOD, flags_of
from feedback.queue.blinding import comparison_number
from feedback.rendering import render, render_answer

LETTERS = "ABCDEFGHI"
MAX_MARKDOWN_LENGTH = 200_000  # characters of a conversation; messages of a longer one are plain text
FLAG_KEYS = "FHJKNOQTXYZA"  # keys of the project's flags, in order: letters without another meaning on the page


@dataclass(frozen=True)
class CardMessage:
    role: str
    label: str
    html: str
    text: str  # the source
    is_earlier: bool = False  # before the last user turn


@dataclass(frozen=True)
class CardCompletion:
    place: int  # in the order of display, from 0; the page has no other id of a completion
    letter: str
    rank: int | None
    html: str
    text: str  # the source
    ratings: tuple["CardRating", ...] = ()
    spans: str = "[]"  # JSON: [[start, end, mark], …], offsets in visible characters
    last_turn: str | None = None  # of a dialogue: the source


@dataclass(frozen=True)
class CardRating:
    attribute: str
    rating: int | None = None


@dataclass(frozen=True)
class CardFlag:
    name: str
    label: str
    is_set: bool
    key: str = ""  # of the keyboard
    meaning: str = ""  # for people: what follows from the flag


@dataclass(frozen=True)
class Card:
    """Context of `rank/_card.jinja.html`."""

    comparison: int  # its number on this annotator's pages: see blinding.py
    size: int
    messages: list[CardMessage]
    completions: list[CardCompletion]
    lease: str = ""
    expires_at: object = None
    key: str = ""
    strength_points: int = 0
    strength: int | None = None
    one_key: bool = False  # one key ranks and submits
    flags: tuple["CardFlag", ...] = ()
    comment: str = ""
    returned: str = ""  # the reviewer's reason
    withdrawn_seconds: float | None = None  # time spent on the ranking that was undone

    @property
    def places(self) -> range:
        return range(1, self.size + 1)

    @property
    def strengths(self) -> range:
        """The points of the scale; none if the project does not ask for a strength."""
        return range(1, (self.strength_points if self.size == 2 else 0) + 1)

    @property
    def rating_points(self) -> range:
        return range(1, RATING_POINTS + 1)

    @property
    def dom_id(self) -> str:
        """Prefix that keeps the element ids of several cards apart."""
        return f"c{self.comparison}"


def card_of_lease(lease: Lease, membership: Membership) -> Card:
    """Return the card of a leased comparison. A returned or withdrawn ranking comes with its earlier values."""
    project, earlier = membership.project, previous_ranking(lease)
    return Card(
        comparison_number(membership, lease.comparison_id),
        lease.size,
        present_messages(lease.comparison.prompt.messages),
        _present_completions(lease.comparison.answers(lease.display_order), project, earlier),
        lease=str(lease.pk),
        expires_at=lease.expires_at,
        key=str(uuid4()),
        strength_points=project.strength_points,
        strength=earlier.strength if earlier else None,
        one_key=project.one_key_pairs and lease.size == 2,
        flags=present_flags(project, earlier.flags if earlier else ()),
        comment=earlier.comment if earlier else "",
        returned=earlier.review.reason if earlier and earlier.review else "",
        withdrawn_seconds=earlier.seconds if earlier and lease.withdrawn_id else None,
    )


def sample_card() -> Card:
    """Return the comparison of the practice page; nothing of it is stored."""
    prompt = _("My kettle came with a cracked lid. Can I have another one?")
    texts = (
        _("Things break in the post sometimes. You should have packed it better when you opened it."),
        _("I am sorry about the lid. A new kettle is on its way and reaches you on Thursday; keep the old one."),
        _("Please send us a photograph of the lid, and we send you a new kettle the same day."),
    )
    completions = [CardCompletion(place, LETTERS[place], None, render(text), text) for place, text in enumerate(texts)]
    return Card(0, len(texts), present_messages([{"role": "user", "content": prompt}]), completions)


def present_answer(membership: Membership, answer: Demonstration) -> dict[str, Any]:
    """Return an undone answer for the ranking page: its comparison, its text, and the completion that it began with."""
    place = place_of_origin(membership, answer)
    return {
        "comparison": comparison_number(membership, answer.comparison_id) if answer.comparison_id else 0,
        "text": last_turn(answer.completion.answer),
        "letter": "" if place is None else LETTERS[place],
    }


def present_flags(project: Project, chosen: Sequence[str] = ()) -> tuple[CardFlag, ...]:
    labels = {ALL_BAD: _("All bad"), ALL_GOOD: _("All good")}
    meanings = dict.fromkeys(project.flags, _("not for training"))
    meanings |= dict.fromkeys(project.review_flags, _("a reviewer looks at it"))
    return tuple(
        CardFlag(name, labels.get(name, name), name in chosen, key, meanings.get(name, ""))
        for name, key in zip(flags_of(project), "BV" + FLAG_KEYS, strict=False)
    )


def present_messages(messages: Sequence[dict[str, str]]) -> list[CardMessage]:
    labels = {"system": _("System"), "user": _("User"), "assistant": _("Assistant")}
    are_long = sum(len(message["content"]) for message in messages) > MAX_MARKDOWN_LENGTH
    last_user_turn = max((place for place, message in enumerate(messages) if message["role"] == "user"), default=0)
    return [
        CardMessage(
            message["role"],
            labels.get(message["role"], message["role"]),
            render(message["content"], as_plain=are_long),
            message["content"],
            is_earlier=place < last_user_turn,
        )
        for place, message in enumerate(messages)
    ]


def _present_completions(
    answers: Sequence[Answer], project: Project, ranking: Ranking | None = None
) -> list[CardCompletion]:
    """Present completions that are in the order of display, with the values of an earlier ranking."""
    size = len(answers)
    ranks = shown_ranks(ranking) if ranking else [None] * size
    ratings = shown_ratings(ranking) if ranking else {}
    all_spans = spans.shown_spans(ranking) if ranking else []
    completions = []
    for place, answer in enumerate(answers):
        own_spans = [span for span in all_spans if span["completion"] == place]
        completions.append(
            CardCompletion(
                place,
                LETTERS[place],
                ranks[place],
                render_answer(answer),
                answer.text,
                tuple(CardRating(name, ratings.get(name, [None] * size)[place]) for name in project.attributes),
                json.dumps(spans.visible_spans(own_spans, answer)),
                last_turn=None if answer.turns is None else last_turn(answer),
            )
        )
    return completions
