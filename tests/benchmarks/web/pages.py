"""The requests of an annotator's page for each product: `next` and `submit`.

Accord's are those of rank.js. Label Studio's page sends more requests; only the two that are necessary are measured.
"""

import json
import random
import re
from dataclasses import dataclass, field
from typing import Any

from tests.benchmarks.web.browser import Browser, Unexpected

PROJECT = "bench"


@dataclass(frozen=True)
class Card:
    """A comparison on Accord's page."""

    lease: str
    comparison: int
    size: int
    key: str


_CARD = re.compile(
    rb'data-lease="([^"]*)" data-comparison="(\d+)" data-size="(\d)"'
    rb'.*?name="key" value="([^"]+)"',
    re.DOTALL,
)


def card_in(html: bytes) -> Card:
    found = _CARD.search(html)
    if found is None:
        raise Unexpected(f"there is no comparison in {html[:200]!r}")
    lease, comparison, size, key = (each.decode() for each in found.groups())
    return Card(lease, int(comparison), int(size), key)


@dataclass
class OurPage:
    """Accord's page, which shows one comparison and has fetched the next one."""

    browser: Browser
    draw: random.Random = field(default_factory=random.Random)
    address: str = f"/projects/{PROJECT}/rank/"

    def open(self) -> Card:
        return card_in(self.browser.get(self.address))

    def next(self, *held: Card) -> Card:
        query = "&".join(f"held={card.lease}" for card in held)
        return card_in(self.browser.get(f"{self.address}next/?{query}", HX_Request="true"))

    def submit(self, card: Card) -> None:
        self.browser.post(f"{self.address}submit/", [*self.fields(card), ("want", "0")], HX_Request="true")

    def submit_with_next(self, card: Card, *held: Card) -> Card:
        wanted = [("want", "1"), *(("held", each.lease) for each in held)]
        return card_in(self.browser.post(f"{self.address}submit/", [*self.fields(card), *wanted], HX_Request="true"))

    def fields(self, card: Card) -> list[tuple[str, str]]:
        ranks = self.draw.choices(range(1, card.size + 1), k=card.size)
        given = [(f"rank-{place}", str(rank)) for place, rank in enumerate(ranks)]
        return [("lease", card.lease), ("key", card.key), ("seconds", "3.20"), *given, ("comment", "")]


@dataclass
class LabelStudioPage:
    browser: Browser
    label: bytes = json.dumps(
        {"result": [{"from_name": "pw", "to_name": "a,b", "type": "pairwise", "value": {"selected": "left"}}],
         "lead_time": 3.2}
    ).encode()  # fmt: skip

    def open(self) -> None:
        return None

    def next(self, *held: Any) -> int:
        return json.loads(self.browser.get("/api/projects/1/next"))["id"]

    def submit(self, task: int) -> None:
        json_body = {"Content-Type": "application/json"}
        self.browser.send("POST", f"/api/tasks/{task}/annotations/?project=1", self.label, json_body)


PAGES = {"ours": OurPage, "label_studio": LabelStudioPage}
