"""A small cast of people and one project, made by the product's own tables."""

import pytest

from feedback.models import Project, User
from tests.factories import person


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that start real processes first: they take up to two minutes each, and would keep the rest waiting last."""
    items.sort(key=lambda item: item.get_closest_marker("services") is None)


@pytest.fixture(autouse=True)
def _passwords_are_made_quickly(settings):
    settings.PASSWORD_HASHERS = ["tests.factories.QuickHasher"]


@pytest.fixture
def project(db) -> Project:
    return Project.objects.create(slug="support", name="Support replies", guidelines="Be kind.")


@pytest.fixture
def manager(project) -> User:
    return person(project, "mona", "manager")


@pytest.fixture
def annotator(project) -> User:
    return person(project, "ann", "annotator")


@pytest.fixture
def colleague(project) -> User:
    """Another annotator of the same project."""
    return person(project, "cole", "annotator")


@pytest.fixture
def stranger(db) -> User:
    """Signed in, but a member of another project alone."""
    other = Project.objects.create(slug="other", name="Another project")
    return person(other, "stan", "manager")
