"""Memberships and comparisons in the project of the fixtures."""

from collections.abc import Callable

import pytest

from feedback.models import Comparison, Membership
from tests.factories import add_work, membership


@pytest.fixture
def ann(annotator, project) -> Membership:
    return membership(annotator, project)


@pytest.fixture
def cole(colleague, project) -> Membership:
    return membership(colleague, project)


@pytest.fixture
def mona(manager, project) -> Membership:
    return membership(manager, project)


@pytest.fixture
def work(project) -> Callable[..., list[Comparison]]:
    return lambda count, size=2, **settings: add_work(project, count, size, **settings)
