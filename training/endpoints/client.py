"""Requests to an OpenAI-compatible endpoint: one completion, or the list of its models. No Django models here.

A failure is temporary (a lost connection, no answer in time, an answer that cannot be read, status 408, 409, 425, 429
or 5xx) or permanent. Temporary ones are tried again after a growing time with a random part, or after the time that
`Retry-After` names, which then holds for all requests to the endpoint. A refused key or an unknown model is final. No
message contains the key: a server may repeat it in its answer.
"""

import email.utils
import json
import random
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any

import httpx2
from django.utils.translation import gettext as _

from feedback.errors import Invalid
from training.endpoints.addresses import Target, target_of

TEMPORARY = {408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529}
FINAL = {401, 403, 404}
CONNECT_SECONDS = 10.0
MAX_ANSWER_BYTES = 16 * 2**20
MAX_ERROR_LENGTH = 300  # characters of a server's message
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds between two attempts
LONGEST_RETRY_AFTER = 600.0  # seconds; a server that asks for more gets no further attempt


class EndpointFailed(Exception):
    """An endpoint gave no completion. `message` is for people. A final failure would be that of every other prompt."""

    def __init__(
        self, message: str, *, is_temporary: bool, is_final: bool = False, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.message, self.is_temporary, self.is_final = message, is_temporary, is_final
        self.retry_after = retry_after


class Stopped(Exception):
    """A stop was requested while a request waited."""


@dataclass(frozen=True)
class Written:
    """A completion of an endpoint. Token counts are None if the endpoint does not count."""

    text: str
    finish_reason: str
    model: str  # as the endpoint names it
    prompt_tokens: int | None
    completion_tokens: int | None
    seconds: float


@dataclass
class Client:
    """A client of one endpoint, for many threads. `stop` ends all waits."""

    url: str
    key: str
    model: str
    timeout: float  # seconds for one answer
    retries: int
    stop: threading.Event = field(default_factory=threading.Event)
    wait: Callable[[float], None] | None = None  # for tests: instead of waiting that many seconds
    _http: httpx2.Client = field(init=False)
    _not_before: float = 0.0  # of the monotonic clock: `Retry-After` of the endpoint
    _limit_name: str = "max_tokens"

    def __post_init__(self) -> None:
        limits = httpx2.Timeout(self.timeout, connect=min(CONNECT_SECONDS, self.timeout))
        self._http = httpx2.Client(timeout=limits, follow_redirects=False, verify=_certificates())

    def close(self) -> None:
        """End all requests."""
        self.stop.set()
        self._http.close()

    def models(self) -> list[str]:
        """Return the names of the endpoint's models. Raise EndpointFailed."""
        answer = self._json("GET", "/models")
        entries = answer.get("data") if isinstance(answer, dict) else None
        listed = entries if isinstance(entries, list) else []
        names = [entry["id"] for entry in listed if isinstance(entry, dict) and isinstance(entry.get("id"), str)]
        if not names:
            raise EndpointFailed(_("The endpoint lists no models: write the model's name."), is_temporary=False)
        return sorted(names)

    def complete(self, messages: list[dict[str, Any]], parameters: dict[str, Any], max_tokens: int) -> Written:
        """Return a completion of the messages, after several attempts if need be. Raise EndpointFailed or Stopped.

        parameters: temperature, top_p.
        """
        for attempt in range(self.retries + 1):
            self._pause(self._not_before - time.monotonic())
            try:
                return self._complete(messages, parameters, max_tokens)
            except EndpointFailed as failure:
                asked = failure.retry_after or 0.0
                if not failure.is_temporary or attempt == self.retries or asked > LONGEST_RETRY_AFTER:
                    raise
                self._not_before = max(self._not_before, time.monotonic() + asked)
                longest = min(LONGEST_WAIT, FIRST_WAIT * 2**attempt)
                self._pause(max(asked, longest * (0.5 + random.random() / 2)))
        raise AssertionError("the last attempt returns or raises")

    def _pause(self, seconds: float) -> None:
        """Wait. Raise Stopped if a stop is requested."""
        if seconds > 0:
            if self.wait is not None:
                self.wait(seconds)
            else:
                self.stop.wait(seconds)
        if self.stop.is_set():
            raise Stopped

    def _complete(self, messages: list[dict[str, Any]], parameters: dict[str, Any], max_tokens: int) -> Written:
        begun = time.monotonic()
        body = {"model": self.model, "messages": messages, **parameters, self._limit_name: max_tokens}
        try:
            answer = self._json("POST", "/chat/completions", body)
        except EndpointFailed as failure:
            # Models that reason have another name for the limit and refuse the usual one.
            if self._limit_name == "max_tokens" and "max_completion_tokens" in failure.message:
                self._limit_name = "max_completion_tokens"
                return self._complete(messages, parameters, max_tokens)
            raise
        return read_completion(answer, self.model, time.monotonic() - begun)

    def _json(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Return the JSON of an answer. Raise EndpointFailed, or Stopped if the client was closed meanwhile."""
        try:
            target = target_of(self.url, has_key=bool(self.key))
            status, headers, content = self._exchange(target, method, path, body)
        except Invalid as refusal:
            raise EndpointFailed(refusal.message, is_temporary=False, is_final=True) from None
        except httpx2.TimeoutException:
            raise self._unless_stopped(
                _("The endpoint did not answer within %(seconds)s seconds.") % {"seconds": f"{self.timeout:g}"}
            ) from None
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, RuntimeError, ValueError) as error:
            raise self._unless_stopped(
                _("The connection to the endpoint failed: %(reason)s.") % {"reason": self._hidden(str(error))}
            ) from None
        if status != 200:
            raise self._refused(status, headers, content)
        try:
            return json.loads(content)
        except ValueError:
            raise EndpointFailed(_("The endpoint's answer is not JSON."), is_temporary=True) from None

    def _unless_stopped(self, message: str) -> Exception:
        return Stopped() if self.stop.is_set() else EndpointFailed(message, is_temporary=True)

    def _exchange(
        self, target: Target, method: str, path: str, body: dict[str, Any] | None
    ) -> tuple[int, httpx2.Headers, bytes]:
        """Send a request. Return status, headers and body, which must arrive in time and not be too long."""
        headers = {"Accept": "application/json", "User-Agent": "accord"}
        if target.host_header:
            headers["Host"] = target.host_header
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        extensions = {"sni_hostname": target.server_name} if target.server_name else {}
        deadline = time.monotonic() + self.timeout
        with self._http.stream(
            method, f"{target.base_url}{path}", json=body, headers=headers, extensions=extensions
        ) as response:
            content = bytearray()
            for part in response.iter_bytes():
                content += part
                if time.monotonic() > deadline:
                    raise httpx2.ReadTimeout("the answer takes too long")
                if len(content) > MAX_ANSWER_BYTES:
                    raise ValueError(_("its answer has more than %(most)s bytes") % {"most": MAX_ANSWER_BYTES})
            return response.status_code, response.headers, bytes(content)

    def _refused(self, status: int, headers: httpx2.Headers, content: bytes) -> EndpointFailed:
        if 300 <= status < 400:
            sentence = _("The endpoint answers with a redirect (%(status)s): write the address that it leads to.")
        elif status in (401, 403):
            sentence = _("The endpoint refuses the key (%(status)s).")
        elif status == 404:
            sentence = _("The endpoint knows no such address or model (%(status)s).")
        elif status == 429:
            sentence = _("The endpoint limits our requests (%(status)s).")
        else:
            sentence = _("The endpoint answers with status %(status)s.")
        message = sentence % {"status": status}
        if reason := self._hidden(message_in(content)):
            message = f"{message} {reason}."
        is_temporary = status in TEMPORARY
        return EndpointFailed(
            message,
            is_temporary=is_temporary,
            is_final=300 <= status < 400 or status in FINAL,
            retry_after=retry_after(headers) if is_temporary else None,
        )

    def _hidden(self, text: str) -> str:
        text = " ".join(text.split())
        return (text.replace(self.key, "…") if self.key else text)[:MAX_ERROR_LENGTH].rstrip(".")


@cache
def _certificates() -> ssl.SSLContext:
    """Return the certificates that are trusted; reading them takes a good part of a second."""
    return httpx2.create_ssl_context()


@contextmanager
def opened(client: Client) -> Iterator[Client]:
    try:
        yield client
    finally:
        client.close()


def read_completion(answer: Any, model: str, seconds: float) -> Written:
    """Return the completion of an answer of `/chat/completions`. Raise EndpointFailed if it has none."""
    try:
        choice = answer["choices"][0]
        text = choice["message"]["content"]
    except (KeyError, IndexError, TypeError):
        raise EndpointFailed(_("The endpoint's answer has no completion."), is_temporary=True) from None
    reason = choice.get("finish_reason")
    reason = reason[:40] if isinstance(reason, str) else ""
    if not isinstance(text, str) or not text.strip():
        raise EndpointFailed(
            _('The endpoint\'s completion is empty (finish reason "%(reason)s").') % {"reason": reason or "–"},
            is_temporary=reason != "length",  # tokens that are not shown used up the limit, and would again
        )
    usage = answer.get("usage") if isinstance(answer.get("usage"), dict) else {}
    named = answer.get("model")
    return Written(
        text.replace("\0", ""),
        reason,
        named[:200] if isinstance(named, str) and named else model,
        _count(usage.get("prompt_tokens")),
        _count(usage.get("completion_tokens")),
        seconds,
    )


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31 else None


def message_in(content: bytes) -> str:
    """Return the message of an error's body, in the forms that servers use; "" if there is none."""
    try:
        body = json.loads(content)
    except ValueError:
        return ""
    error = body.get("error", body) if isinstance(body, dict) else body
    message = (error.get("message") or error.get("detail")) if isinstance(error, dict) else error
    return message if isinstance(message, str) else ""


def retry_after(headers: httpx2.Headers) -> float | None:
    """Return the seconds that `Retry-After` asks to wait, a number or a date; None without it."""
    value = headers.get("retry-after", "").strip()
    try:
        return max(0.0, float(value)) if value else None
    except ValueError:
        pass
    try:
        date = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())
