"""OpenAssistant: trees of messages, or the first messages of trees with their replies.

Every message of a prompter with answers is a prompt. `rank` of an answer (0 is best) is a consensus, and
`events.ranking` has the rankings of people; with these the consensus is left out, because it is made of them.
"""

from collections.abc import Iterator
from typing import Any

from django.utils.translation import gettext as _

from feedback.imports.maps.description import Rules
from feedback.imports.maps.values import FieldError

CONSENSUS = "consensus"


def flat_rows(row: dict[str, Any], rules: Rules) -> Iterator[dict[str, Any]]:
    root = row.get("prompt") if isinstance(row.get("prompt"), dict) else row
    if not isinstance(root, dict) or not isinstance(root.get("text"), str):
        raise FieldError(_('The row has no "%(column)s".') % {"column": "prompt.text"}, "prompt.text")
    if row.get("parent_id") is not None:
        raise FieldError(
            _("The row is a reply without its tree: a file of single messages cannot be read, one of trees can."),
            "parent_id",
            row["parent_id"],
        )
    yield from _of_message(root, [])


def _of_message(message: dict[str, Any], before: list[dict[str, str]]) -> Iterator[dict[str, Any]]:
    role = message.get("role")
    conversation = [*before, {"role": str(role), "content": message.get("text") or ""}]
    replies = [reply for reply in message.get("replies") or [] if not reply.get("deleted")]
    if role == "prompter" and replies:
        yield from _of_answers(message, conversation, replies)
    for reply in replies:
        yield from _of_message(reply, conversation)


def _of_answers(
    message: dict[str, Any], conversation: list[dict[str, str]], replies: list[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    flat = {
        "messages": conversation,
        "external_id": message.get("message_id"),
        "metadata": {"language": message["lang"]} if message.get("lang") else {},
    }
    people = [event for event in (message.get("events") or {}).get("ranking") or [] if event.get("ranked_message_ids")]
    ranked = [reply for reply in replies if reply.get("rank") is not None]
    if people:
        for event in people:
            named = [str(name) for name in event["ranked_message_ids"]]
            listed = {reply["message_id"]: reply for reply in replies if reply.get("message_id") in named}
            order = [name for name in named if name in listed]  # without deleted replies
            yield flat | {"answers": _answers(list(listed.values())), "order": order, "judge": event.get("user_id")}
    elif len(ranked) > 1:
        best_first = sorted(ranked, key=lambda reply: int(reply["rank"]))
        names = [reply["message_id"] for reply in best_first]
        yield flat | {"answers": _answers(ranked), "order": names, "judge": CONSENSUS}
    else:
        yield flat | {"answers": _answers(replies)}


def _answers(replies: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"text": reply.get("text"), "name": reply.get("message_id"), "source": reply.get("model_name") or "volunteers"}
        for reply in replies
    ]
