"""Request bodies that do not arrive completely, are missing, or do not belong to the request."""

import io

import pytest

from feedback.actions.tokens import issue_token
from feedback.models import ApiToken, Lease, Prompt
from tests.factories import URL
from tests.feedback.api.test_api_strict import every_address


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


@pytest.mark.slow
def test_a_missing_body_never_means_the_defaults(as_manager, manager, project, work):
    work(1)
    manager.is_staff = True
    manager.save()
    refused = 0
    for method, path in every_address():
        if method in ("post", "put", "patch"):
            answer = getattr(as_manager, method)(path)
            sentence = answer.json().get("detail", "")
            assert answer.status_code in (400, 404, 409, 200, 201), (method, path, answer.content)
            refused += answer.status_code == 400 and ("no body" in sentence or "no row" in sentence)
    assert refused > 20
    assert (Lease.objects.count(), ApiToken.objects.count()) == (0, 1)
    assert as_manager.post(f"{URL}/leases", {}, format="json").status_code == 200


def test_a_body_where_none_belongs_is_refused(as_manager, project):
    for body in ({"force": True}, [1], "now"):
        answer = as_manager.post(f"{URL}/undo", body, format="json")
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid"), body
    assert as_manager.post(f"{URL}/undo", {}, format="json").status_code == 404
    assert as_manager.post(f"{URL}/undo").status_code == 404


def test_a_form_is_not_read_as_json(as_manager, project):
    answer = as_manager.post(f"{URL}/rounds", "learns=false", content_type="application/x-www-form-urlencoded")
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
