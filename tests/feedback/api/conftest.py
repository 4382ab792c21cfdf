"""Clients of the API, each with a token of its own."""

import json

import pytest
from rest_framework.test import APIClient

from feedback.models import ApiToken

URL = "/api/v1/projects/support"


def client_of(user) -> APIClient:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {ApiToken.issue(user, 'tests')[1]}")
    return client


def lines(*rows) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def rows_of(response) -> list:
    return [json.loads(line) for line in b"".join(response.streaming_content).splitlines()]


@pytest.fixture
def as_manager(manager):
    return client_of(manager)


@pytest.fixture
def as_annotator(annotator):
    return client_of(annotator)


@pytest.fixture
def as_colleague(colleague):
    return client_of(colleague)


@pytest.fixture
def as_stranger(stranger):
    return client_of(stranger)


@pytest.fixture
def as_nobody():
    return APIClient()
