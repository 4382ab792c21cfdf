"""Annotators who send rankings twice, lose the connection, skip, and correct rankings, in one process.

Reads {"port", "cookies", "seconds"} and prints a line of JSON: confirmed rankings, actions, and errors. Like the page,
they keep a ranking until it is confirmed, and send it again with the same key.
"""

import json
import random
import sys
import threading
import time
from collections import Counter
from http.client import HTTPException
from typing import Any

from tests.benchmarks.web.browser import Browser, Unexpected
from tests.benchmarks.web.pages import Card, OurPage, card_in

ACTS = {"submit": 84, "send_twice": 5, "lose_connection": 5, "skip": 3, "correct": 3}  # shares, in percent
PATIENCE = 60.0  # seconds after the end until every kept ranking must be confirmed


class Careless(threading.Thread):
    def __init__(self, page: OurPage, ends: float) -> None:
        super().__init__(daemon=True)
        self.page, self.browser, self.ends = page, page.browser, ends
        self.confirmed: dict[str, tuple[int, list[int]]] = {}
        self.acts: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()

    def run(self) -> None:
        while time.monotonic() < self.ends:
            try:
                self.work()
            except (Unexpected, HTTPException, OSError) as error:
                self.errors[f"{type(error).__name__}: {error}"[:300]] += 1
                time.sleep(0.5)

    def work(self) -> None:
        shown = self.page.open()
        ahead = self.page.next(shown)
        while time.monotonic() < self.ends:
            (act,) = self.page.draw.choices(list(ACTS), ACTS.values())
            self.acts[act] += 1
            shown, ahead = ahead, getattr(self, act)(shown, ahead)

    def submit(self, card: Card, ahead: Card) -> Card:
        return self.deliver(card, ahead, self.page.fields(card))

    def send_twice(self, card: Card, ahead: Card) -> Card:
        fields = self.page.fields(card)
        following = self.deliver(card, ahead, fields)
        self.deliver(card, ahead, fields, following)
        return following

    def lose_connection(self, card: Card, ahead: Card) -> Card:
        fields = self.page.fields(card)
        self.browser.send_and_hang_up(f"{self.page.address}submit/", fields, HX_Request="true")
        return self.deliver(card, ahead, fields)

    def skip(self, card: Card, ahead: Card) -> Card:
        fields = [("lease", card.lease), ("reason", "not mine"), ("want", "1"), ("held", ahead.lease)]
        return card_in(self.browser.post(f"{self.page.address}skip/", fields, HX_Request="true"))

    def correct(self, card: Card, ahead: Card) -> Card:
        """Submit a ranking, undo it, and submit another one."""
        following = self.submit(card, ahead)
        old = card_in(self.browser.post(f"{self.page.address}undo/", [("before", "")], HX_Request="true"))
        fields = [*self.page.fields(old), ("want", "0")]
        self.browser.post(f"{self.page.address}submit/", fields, HX_Request="true")
        self.note_confirmed(old, fields)
        return following

    def deliver(self, card: Card, ahead: Card, fields: list[tuple[str, str]], *held: Card) -> Card:
        """Send until an answer comes, which confirms the ranking."""
        also = [("want", "1"), *(("held", each.lease) for each in (ahead, *held))]
        while True:
            try:
                answer = self.browser.post(f"{self.page.address}submit/", fields + also, HX_Request="true")
            except (HTTPException, OSError) as error:
                self.errors[f"kept and sent again: {type(error).__name__}"] += 1
                self.browser.connection.close()
                if time.monotonic() > self.ends + PATIENCE:
                    raise
                time.sleep(0.2)
            else:
                self.note_confirmed(card, fields)
                return card_in(answer)

    def note_confirmed(self, card: Card, fields: list[tuple[str, str]]) -> None:
        ranks = [int(value) for name, value in fields if name.startswith("rank-")]
        places = {rank: place for place, rank in enumerate(sorted(set(ranks)), start=1)}
        self.confirmed[card.key] = card.comparison, [places[rank] for rank in ranks]


def work(plan: dict[str, Any]) -> dict[str, Any]:
    ends = time.monotonic() + plan["seconds"]
    pages = [
        OurPage(Browser(plan["port"], cookies), random.Random(index)) for index, cookies in enumerate(plan["cookies"])
    ]
    staff = [Careless(page, ends) for page in pages]
    for annotator in staff:
        annotator.start()
    for annotator in staff:
        annotator.join()
    return {
        "confirmed": {key: ranking for each in staff for key, ranking in each.confirmed.items()},
        "acts": dict(sum((each.acts for each in staff), Counter())),
        "errors": dict(sum((each.errors for each in staff), Counter())),
    }


if __name__ == "__main__":
    print(json.dumps(work(json.load(sys.stdin))))
