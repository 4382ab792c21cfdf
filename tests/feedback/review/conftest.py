"""A reviewer, and a comparison on which two annotators disagree."""

import pytest

from feedback.models import Comparison, Membership
from tests.factories import membership, person, rank_by_position


@pytest.fixture
def rita(project) -> Membership:
    """A reviewer."""
    return membership(person(project, "rita", "reviewer"), project)


@pytest.fixture
def bea(project) -> Membership:
    return membership(person(project, "bea", "annotator"), project)


@pytest.fixture
def disputed(ann, cole, work) -> Comparison:
    """Ann prefers the first completion, Cole the second; a third ranking is wanted."""
    (comparison,) = work(1, wanted_rankings=3)
    rank_by_position(ann, [1, 2])
    rank_by_position(cole, [2, 1])
    return comparison
