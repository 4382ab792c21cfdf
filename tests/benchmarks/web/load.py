"""Simulated annotators in a separate process: threads that wait for the server nearly all the time.

    echo '{"product": "ours", "port": 8000, "cookies": [{…}], "seconds": 10, "together": true}' | python -m …web.load

Prints one line of JSON: labels, seconds, errors, and the seconds of each request by kind: `next`, `submit`,
`submit_with_next`, and `label`, the time from one submit to the next comparison on screen.
"""

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.client import HTTPException
from typing import Any

from tests.benchmarks.web.browser import Browser, Unexpected
from tests.benchmarks.web.pages import PAGES

WARM_UP = 3.0  # seconds before anything is counted


class Annotator(threading.Thread):
    def __init__(self, page: Any, together: bool, starts: float, ends: float) -> None:
        super().__init__(daemon=True)
        self.page, self.together, self.starts, self.ends = page, together, starts, ends
        self.taken: dict[str, list[float]] = {"next": [], "submit": [], "submit_with_next": [], "label": []}
        self.errors: Counter[str] = Counter()

    def run(self) -> None:
        while time.monotonic() < self.ends:
            try:
                self.work()
            except (Unexpected, HTTPException, OSError) as error:
                self.errors[f"{type(error).__name__}: {error}"[:300]] += 1

    def work(self) -> None:
        """Rank until the time is over."""
        self.page.open()
        shown, ahead = self.page.next(), None
        if self.together:
            ahead = self.page.next(shown)
        while time.monotonic() < self.ends:
            start = time.monotonic()
            if self.together:
                shown, ahead = ahead, self.timed("submit_with_next", self.page.submit_with_next, shown, ahead)
            else:
                self.timed("submit", self.page.submit, shown)
                shown = self.timed("next", self.page.next)
            self.note("label", start)

    def timed(self, kind: str, act: Callable[..., Any], *given: Any) -> Any:
        start = time.monotonic()
        answer = act(*given)
        self.note(kind, start)
        return answer

    def note(self, kind: str, start: float) -> None:
        if start >= self.starts and (now := time.monotonic()) <= self.ends:
            self.taken[kind].append(now - start)


def work(plan: dict[str, Any]) -> dict[str, Any]:
    sys.setswitchinterval(0.0005)  # a thread that got its answer should note the time at once
    starts = time.monotonic() + WARM_UP
    page = PAGES[plan["product"]]
    staff = [
        Annotator(page(Browser(plan["port"], cookies)), plan["together"], starts, starts + plan["seconds"])
        for cookies in plan["cookies"]
    ]
    for annotator in staff:
        annotator.start()
    for annotator in staff:
        annotator.join()
    taken = {kind: [taken for each in staff for taken in each.taken[kind]] for kind in staff[0].taken}
    errors = sum((each.errors for each in staff), Counter())
    return {"labels": len(taken["label"]), "seconds": plan["seconds"], "errors": dict(errors), **taken}


if __name__ == "__main__":
    print(json.dumps(work(json.load(sys.stdin))))
