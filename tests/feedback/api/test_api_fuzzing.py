"""Malformed bodies at every writing address: the answer is a 4xx with problem details, and nothing is half done."""

import json
import random

import pytest
from django.urls import resolve
from rest_framework.test import APIClient

from feedback.actions.tokens import issue_token
from feedback.api import strict
from feedback.models import Completion, Prompt
from tests.feedback.api.test_api_strict import every_address

pytestmark = pytest.mark.django_db
BODIES = 30  # of a test; each test is a transaction
SHORT, LONG = 8, 167  # 240 and 5,010 bodies

ROW_NAMES = ["prompt", "messages", "external_id", "references", "metadata", "completions", "prompt_id", "text", "turns"]
ROW_NAMES += ["sampling", "demonstration", "completion_ids", "ranks", "role", "content", "source"]
VALUES = [None, True, 0, 1, -1, 2**31, 2**63, -(2**63) - 1, 10**30, 1.5, 1e308, float("nan"), float("inf")]
VALUES += ["", " ", "x", "\x00", "\ud800", "\u202e", "1", "x" * 300, "support", "0001-01-01T00:00:00Z", "9999-12-31"]
VALUES += ["00000000-0000-0000-0000-000000000000", [], [[]], {}, {"": None}, [1, 2], [2, 1], ["x", "x"], [None]]
VALUES += [{"round": {"recipe": "x"}}, {"round": 3}, {"ppo": {"steps": 10**30}}, [{"role": "user", "content": "x"}]]


@pytest.fixture
def client(manager, work):
    work(2)
    manager.is_staff = True
    manager.save()
    client = APIClient(raise_request_exception=False)
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {issue_token(manager, 'fuzzing')[1]}")
    return client


def names_of(method: str, path: str) -> list[str]:
    """The names that the body of an operation may have."""
    view = resolve(path).func.cls()
    view.request, view.kwargs = None, {}
    schema = strict._schema_of(view, method.upper())
    serializer = schema.get_request_serializer() if schema else None
    return list(serializer().fields) if isinstance(serializer, type) else ROW_NAMES


def random_body(draw: random.Random, names: list[str]) -> bytes:
    """A body that is mostly JSON, with names that are mostly known and values of all kinds."""
    count = draw.randrange(1, 5)
    rows = [{draw.choice([*names, "x"]): draw.choice(VALUES) for _ in range(draw.randrange(5))} for _ in range(count)]
    kind = draw.randrange(12)
    if kind < 6:
        return json.dumps(rows[0]).encode()
    if kind < 8:
        return b"\n".join(json.dumps(row).encode() for row in rows)
    if kind == 8:
        return json.dumps(draw.choice(VALUES)).encode()
    text = json.dumps(rows).encode()
    broken = [
        text[: draw.randrange(len(text))],
        b"[" * 2000,
        b'{"a":' * 500 + b"1" + b"}" * 500,
        b"\xff\xfe" + text,
        "\ufeff{}".encode(),
        json.dumps(rows[0]).encode("utf-16"),
        b"\x1f\x8b\x08" + draw.randbytes(20),
        b"\x28\xb5\x2f\xfd" + draw.randbytes(20),
        b"PAR1" + draw.randbytes(20),
        b'a,b\n"1',
        draw.randbytes(draw.randrange(40)),
        b'{"a": 1, "a": 2}',
    ]
    return draw.choice(broken)


@pytest.mark.slow
@pytest.mark.parametrize(
    "seed", [*range(SHORT), *(pytest.param(seed, marks=pytest.mark.full) for seed in range(SHORT, LONG))]
)
def test_a_malformed_body_is_a_problem_of_the_client(client, seed):
    draw = random.Random(seed)
    writing = [(method, path) for method, path in every_address() if method != "get"]
    for _ in range(BODIES):
        method, path = draw.choice(writing)
        body = random_body(draw, names_of(method, path))
        kind = draw.choice([*["application/json"] * 9, "application/x-ndjson", "text/csv", "", "multipart/form-data"])
        headers = {"Idempotency-Key": draw.choice(["a", "x" * 300, "\u00e9"])} if draw.random() < 0.1 else {}
        before = (Prompt.objects.count(), Completion.objects.count())
        answer = client.generic(method.upper(), path, body, content_type=kind, headers=headers)
        told = (seed, method, path, kind, body, answer.status_code, answer.content[:300])
        assert answer.status_code < 500, told
        if answer.status_code >= 400:
            problem = answer.json()
            assert answer["Content-Type"] == "application/problem+json", told
            assert problem["status"] == answer.status_code and problem["code"] and problem["detail"], told
            assert (Prompt.objects.count(), Completion.objects.count()) == before, told
