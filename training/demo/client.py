"""Client of the API for the simulation, with one keep-alive connection."""

from collections.abc import Sequence
from time import monotonic
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import httpx2


class Refused(Exception):
    """The API answered with an error status; the message contains its response."""


class Client:
    """API client of one user. Not thread-safe."""

    def __init__(self, base_url: str, project: str, token: str) -> None:
        self._http = httpx2.Client(
            base_url=f"{base_url}/api/v1/projects/{project}/",
            headers={"Authorization": f"Bearer {token}"},
            timeout=60.0,
            transport=httpx2.HTTPTransport(retries=3),  # retries connecting only: no request is sent twice
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def take(self) -> dict[str, Any] | None:
        """Lease the next comparison. Return None if there is none."""
        return self._send("POST", "leases", {})["lease"]

    def rank(self, lease: dict[str, Any], ranks: list[int], since: float, take_next: bool) -> dict[str, Any] | None:
        """Submit ranks in display order. Return the next lease if `take_next` is set and there is one."""
        body = {"ranks": ranks, "idempotency_key": str(uuid4()), "seconds": monotonic() - since}
        path = f"leases/{lease['lease']}/ranking"
        return self._send("POST", f"{path}?next=1" if take_next else path, body).get("next")

    def release(self, lease: dict[str, Any]) -> None:
        """Give a comparison back."""
        self._send("DELETE", f"leases/{lease['lease']}")

    def agreement(self) -> float | None:
        """Return the pairwise agreement: the share of pairs ranked without ties that two annotators order alike."""
        return self._send("GET", "agreement")["pairwise"]["value"]

    def start_round(self, sections: dict[str, Any], learns: bool = True, checkpoints: Sequence[int] = ()) -> int:
        """Start a round and return its number. checkpoints: ids of those of a trial, the one to beat first."""
        body = {"settings": sections, "learns": learns, "checkpoints": list(checkpoints)}
        return self._send("POST", "rounds", body)["number"]

    def get_round(self, number: int, after: int = 0) -> dict[str, Any]:
        """Return a round with its metrics after the line with the id `after`."""
        return self._send("GET", f"rounds/{number}?after={after}")

    def checkpoints(self) -> list[dict[str, Any]]:
        return self._send("GET", "checkpoints")

    def promote(self, checkpoint_id: int) -> None:
        """Serve a checkpoint, also if a guard fell: a simulation shows what every round leads to."""
        self._send("POST", f"checkpoints/{checkpoint_id}/promote", {"confirmed": True})

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        answer = self._http.request(method, path, json=body)
        if answer.is_error:
            raise Refused(f"{method} {path} was answered with {answer.status_code}: {answer.text[:500]}")
        return answer.json() if answer.content else None
