"""Pairs of a ranking, and completions as messages or as text: what several export formats share."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations

from feedback.dialogues import Turns
from feedback.export.ranking_record import IDENTITY, Row, retraction
from feedback.export.reader import Reader

SPEAKERS = {"user": "Human", "assistant": "Assistant", "system": "System", "tool": "Tool"}


def pairs_of(ranks: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Return the indices (better, worse) of each pair that is not tied, the best first."""
    order = sorted(range(len(ranks)), key=ranks.__getitem__)
    return ((better, worse) for better, worse in combinations(order, 2) if ranks[better] < ranks[worse])


def number_of_pairs(ranks: Sequence[int]) -> int:
    """Return the number of pairs that are not tied."""
    return sum(1 for _pair in pairs_of(ranks))


def pairs_or_retraction(rows: Iterable[Row], reader: Reader) -> Iterator[tuple[Row, int, int] | Row]:
    """Yield (ranking, better, worse) for each pair, and retracted rows as they are.

    A reader that wants ties as rows gets each tied pair after the others, once in either order, with half the weight:
    both together say that neither is better. A revision that has no pair any more is retracted: the reader may have
    pairs of an earlier one.
    """
    for ranking in rows:
        if "retracted" in ranking:
            yield ranking
            continue
        ranks = ranking["ranks"]
        pairs = list(pairs_of(ranks))
        if not pairs and reader.after and ranking["revision"] > 1 and reader.ties != "rows":
            yield retraction(ranking, "tied")
        for better, worse in pairs:
            yield ranking, better, worse
        if reader.ties == "rows":
            half = ranking | {"weight": ranking["weight"] / 2}
            for first, second in combinations(range(len(ranks)), 2):
                if ranks[first] == ranks[second]:
                    yield half, first, second
                    yield half, second, first


def messages_of(ranking: Row, place: int) -> Turns:
    """Return a completion as messages: one of the assistant, or those of a dialogue."""
    turns = ranking["turns"][place] if "turns" in ranking else None
    return turns or [{"role": "assistant", "content": ranking["completions"][place]}]


def columns_of(ranking: Row, better: int, worse: int) -> Row:
    """Return the columns of a pair that trainers do not read: for filters, and for readers by cursor. None is null."""
    return {
        **{name: ranking[name] for name in IDENTITY if name != "sequence"},
        "external_id": ranking["external_id"] or "",
        "chosen_source": ranking["sources"][better],
        "rejected_source": ranking["sources"][worse],
        "strength": ranking["strength"] or 0,
        "trial": ranking["trial"] or 0,
        "created_at": ranking["created_at"],
        "weight": ranking["weight"],
    }


def transcript(messages: Sequence[dict[str, str]]) -> str:
    """Return messages as HH-RLHF writes them: two line ends, `Human:` or `Assistant:`, a blank and the text, each."""
    return "".join(f"\n\n{SPEAKERS[message['role']]}: {message['content']}" for message in messages)


def prompt_text(messages: Sequence[dict[str, str]]) -> str:
    """Return a prompt as one text: that of a single user message, or a transcript that the assistant continues."""
    if [message["role"] for message in messages] == ["user"]:
        return messages[0]["content"]
    return f"{transcript(messages)}\n\n{SPEAKERS['assistant']}: "


def completion_text(ranking: Row, place: int) -> str:
    """Return a completion as one text, a dialogue without the name of its first speaker."""
    messages = messages_of(ranking, place)
    return messages[0]["content"] + transcript(messages[1:])
