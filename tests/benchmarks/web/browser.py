"""HTTP client that behaves like a browser: a kept connection, cookies, and the CSRF token.

It is the same for every product, and built on the standard library, to use little of the CPU that it shares with the
servers.
"""

import http.client
from http.cookies import SimpleCookie
from urllib.parse import urlencode


class Unexpected(Exception):
    """The server's answer is not the one that the page needs."""


class Browser:
    def __init__(self, port: int, cookies: dict[str, str] | None = None) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self.cookies = dict(cookies or {})

    def get(self, path: str, **headers: str) -> bytes:
        return self.send("GET", path, None, headers)

    def post(self, path: str, fields: list[tuple[str, str]], **headers: str) -> bytes:
        """Send a form as pages do."""
        headers["Content-Type"] = "application/x-www-form-urlencoded"
        return self.send("POST", path, urlencode(fields).encode(), headers)

    def send(self, verb: str, path: str, body: bytes | None, headers: dict[str, str]) -> bytes:
        """Return the response's body. Raises Unexpected for an error status, OSError or HTTPException if none came."""
        self._request(verb, path, body, headers)
        answer = self.connection.getresponse()
        content = answer.read()
        for cookie in answer.headers.get_all("Set-Cookie", ()):
            self.cookies |= {name: morsel.value for name, morsel in SimpleCookie(cookie).items()}
        if not 200 <= answer.status < 400:
            raise Unexpected(f"{verb} {path.partition('?')[0]}: {answer.status} {content[:200]!r}")
        return content

    def send_and_hang_up(self, path: str, fields: list[tuple[str, str]], **headers: str) -> None:
        """Send the request and close the connection before the answer comes."""
        headers["Content-Type"] = "application/x-www-form-urlencoded"
        self._request("POST", path, urlencode(fields).encode(), headers)
        self.connection.close()

    def _request(self, verb: str, path: str, body: bytes | None, headers: dict[str, str]) -> None:
        sent = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}
        if verb != "GET":
            sent["X-CSRFToken"] = self.cookies.get("csrftoken", "")
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        self.connection.request(verb, path, body, sent | given)
