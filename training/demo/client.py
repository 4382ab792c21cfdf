"""The part of the API that the simulation uses, over one kept-alive connection."""

from time import monotonic
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import httpx2


class Refused(Exception):
    """The service answered with an error; the message is its own sentence."""


class Client:
    """One person's way in. Not to be shared between threads."""

    def __init__(self, base_url: str, project: str, token: str) -> None:
        self._http = httpx2.Client(
            base_url=f"{base_url}/api/v1/projects/{project}/",
            headers={"Authorization": f"Bearer {token}"},
            timeout=60.0,
            transport=httpx2.HTTPTransport(retries=3),  # connecting only: nothing is ever sent twice
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def take(self) -> dict[str, Any] | None:
        """The next comparison, held; None when nothing is left."""
        return self._send("POST", "leases", {})["lease"]

    def rank(self, lease: dict[str, Any], ranks: list[int], since: float, take_next: bool) -> dict[str, Any] | None:
        """Submit ranks in the order of display; the next comparison, if it is wanted and there is one."""
        said = {"ranks": ranks, "idempotency_key": str(uuid4()), "seconds": monotonic() - since}
        path = f"leases/{lease['lease']}/ranking"
        return self._send("POST", f"{path}?next=1" if take_next else path, said).get("next")

    def agreement(self) -> float | None:
        """How often two people prefer the same completion, of all pairs that both had a preference on."""
        return self._send("GET", "agreement")["pairwise"]["value"]

    def start_round(self, sections: dict[str, Any], learns: bool = True) -> int:
        """Start a round; its number."""
        return self._send("POST", "rounds", {"settings": sections, "learns": learns})["number"]

    def get_round(self, number: int, after: int = 0) -> dict[str, Any]:
        """A round in full, with the metrics after the line `after`."""
        return self._send("GET", f"rounds/{number}?after={after}")

    def checkpoints(self) -> list[dict[str, Any]]:
        return self._send("GET", "checkpoints")

    def promote(self, checkpoint_id: int) -> None:
        self._send("POST", f"checkpoints/{checkpoint_id}/promote")

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        answer = self._http.request(method, path, json=body)
        if answer.is_error:
            raise Refused(f"{method} {path} was answered with {answer.status_code}: {answer.text[:500]}")
        return answer.json()
