"""Request bodies that do not arrive completely."""

import io

import pytest

from feedback.actions.tokens import issue_token
from feedback.models import Prompt


class Stops(io.RawIOBase):
    """A connection whose client sends half a line, and is then too slow for the web worker."""

    def __init__(self) -> None:
        self.pieces = [b'{"prompt": "half']

    def read(self, size: int = -1) -> bytes:
        return self.readline(size)

    def readline(self, size: int | None = -1) -> bytes:
        if self.pieces:
            return self.pieces.pop()
        raise TimeoutError("timed out")


@pytest.mark.parametrize("kind", ["application/x-ndjson", "application/json"])
def test_a_body_that_does_not_arrive_in_time_is_an_error_of_the_client(client, project, manager, kind):
    answer = client.generic(
        "POST",
        f"/api/v1/projects/{project.slug}/prompts",
        content_type=kind,
        headers={"Authorization": f"Bearer {issue_token(manager, 'upload')[1]}"},
        **{"wsgi.input": Stops(), "CONTENT_LENGTH": "1000"},
    )
    assert (answer.status_code, answer.json()["code"]) == (408, "timeout")
    assert not Prompt.objects.exists()
