"""Clients of the API, each with a token of its own."""

import pytest
from rest_framework.test import APIClient

from tests.factories import client_of


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
