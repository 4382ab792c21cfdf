"""A misspelt name is refused, everywhere: it would otherwise mean the default, with a success code."""

import re

import pytest

from feedback.models import ApiToken, Project
from tests.factories import URL, client_of

PARTS = {"slug": "support", "int": "1", "uuid": "a1c9b7de-0000-4000-8000-000000000000"}  # by kind


def every_address() -> list[tuple[str, str]]:
    """(method, path) of each address of the API, with parts filled in."""
    from feedback.api.urls import urlpatterns as of_feedback
    from training.api.urls import urlpatterns as of_training

    operations = []
    for pattern in [*of_feedback, *of_training]:
        path = re.sub(r"<(\w+):\w+>", lambda part: PARTS[part[1]], str(pattern.pattern))
        assert "<" not in path, path
        methods = sorted(pattern.callback.cls.http_method_names)
        operations += [(method, f"/api/v1/{path}") for method in methods if method not in ("options", "trace", "head")]
    return operations


@pytest.mark.slow
def test_an_unknown_query_parameter_is_refused(project, manager):
    client = client_of(manager)
    for method, path in every_address():
        answer = getattr(client, method)(f"{path}?splitt=train")
        assert answer.status_code == 400, (method, path)
        assert answer.json()["message"].startswith("splitt: Unknown name"), (method, path)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("patch", URL, {"wanted_rankingz": 2}),
        ("post", "/api/v1/projects", {"slug": "new", "name": "New", "guideline": "x"}),
        ("post", "/api/v1/tokens", {"name": "t", "scope": "read"}),
        ("post", f"{URL}/members", {"username": "ann", "roles": "manager"}),
        ("post", f"{URL}/rounds", {"learn": False}),
        ("put", f"{URL}/loop", {"round_evry": 5}),
        ("post", f"{URL}/leases", {"besides": []}),
    ],
)
def test_an_unknown_field_is_refused(project, manager, annotator, method, path, body):
    manager.is_staff = True
    manager.save()
    answer = getattr(client_of(manager), method)(path, body, format="json")
    if answer.status_code == 405:  # the loop's settings are changed by the other verb
        answer = client_of(manager).patch(path, body, format="json")
    assert answer.status_code == 400, answer.content
    misspelt = list(body)[-1]
    assert answer.json()["message"].startswith(f"{misspelt}: Unknown name")
    assert not ApiToken.objects.filter(name="t").exists() and not Project.objects.filter(slug="new").exists()


def test_the_error_lists_the_known_names(project, manager):
    message = client_of(manager).get(f"{URL}/preferences?splitt=train").json()["message"]
    assert "split" in message and "after" in message and "format" in message
