"""Details of a ranking are accepted only if the project asks for them."""

from uuid import uuid4

import pytest

from feedback.actions import ranking_details, rankings
from feedback.actions.spans import Span, VisibleSpan
from feedback.errors import Invalid
from feedback.models import Ranking
from feedback.queue import leases
from tests.factories import rank_next

pytestmark = pytest.mark.django_db


@pytest.fixture
def asks(project):
    def change(**settings):
        for name, value in settings.items():
            setattr(project, name, value)
        project.save()

    return change


@pytest.mark.parametrize(
    ("asked", "details", "sentence"),
    [
        ({}, {"strength": 1}, "does not ask for a strength"),
        ({"strength_points": 4}, {"strength": 5}, "from 1 to 4"),
        ({"strength_points": 9}, {"strength": 10}, "from 1 to 9"),
        ({"strength_points": 9}, {"strength": 0}, "from 1 to 9"),
        ({"strength_points": 9}, {"strength": True}, "from 1 to 9"),
        ({"strength_points": 9}, {"strength": 2.0}, "from 1 to 9"),
        ({}, {"flags": "rude"}, "list of texts"),
        ({}, {"flags": ["rude"]}, 'no flag "rude": its flags are all bad, all good'),
        ({"flags": ["rude"]}, {"flags": ["Rude"]}, 'no flag "Rude"'),
        ({"flags": ["rude"]}, {"flags": [["rude"]]}, "no flag"),
        ({}, {"ratings": {"helpful": [1, 2]}}, 'does not rate "helpful"'),
        ({"attributes": ["helpful"]}, {"ratings": {"helpful": [1]}}, "2 ratings"),
        ({"attributes": ["helpful"]}, {"ratings": {"helpful": "12"}}, "2 ratings"),
        ({"attributes": ["helpful"]}, {"ratings": {"helpful": [1, 6]}}, "from 1"),
        ({"attributes": ["helpful"]}, {"ratings": {"helpful": [0, 1]}}, "from 1"),
        ({"attributes": ["helpful"]}, {"ratings": {"helpful": [True, 1]}}, "from 1"),
        ({"attributes": ["helpful"]}, {"ratings": {"helpful": [1.5, 1]}}, "from 1"),
        ({"attributes": ["helpful"]}, {"ratings": [1, 2]}, "must be an object"),
        ({}, {"spans": [Span(0, 0, 1, "ugly")]}, "good or bad"),
        ({}, {"spans": [Span(2, 0, 1, "bad")]}, "by the display position, counted from 0"),
        ({}, {"spans": [Span(-1, 0, 1, "bad")]}, "by the display position, counted from 0"),
        ({}, {"spans": [Span(0, 3, 3, "bad")]}, "from 3 to 3"),
        ({}, {"spans": [Span(0, -1, 3, "bad")]}, "from -1 to 3"),
        ({}, {"spans": [Span(0, 0, 14, "bad")]}, "has 13 characters"),
        ({}, {"spans": [Span(0, 0, 5, "bad"), Span(0, 4, 6, "bad")]}, "overlap"),
        ({}, {"spans": [Span(0, index, index + 1, "bad") for index in range(201)]}, "more than the maximum of 200"),
        ({}, {"spans": [VisibleSpan(0, 0, 6, "bad", "reponse")]}, "mark it again"),
        ({}, {"spans": [VisibleSpan(0, 0, 6, "bad", "")]}, "mark it again"),
        ({}, {"spans": [VisibleSpan(0, 0, 99, "bad", "answer")]}, "mark it again"),
        ({}, {"spans": [VisibleSpan(0, 4, 2, "bad", "a")]}, "mark it again"),
    ],
)
def test_details_that_the_project_does_not_ask_for_are_refused(ann, work, asks, asked, details, sentence):
    asks(**asked)
    work(1)
    lease = leases.lease_next(ann)
    with pytest.raises(Invalid, match=sentence):
        rankings.record_ranking(ann, lease.pk, [1, 2], idempotency_key=uuid4(), seconds=1.0, **details)
    assert not Ranking.objects.exists()


def test_a_strength_is_for_pairs(ann, work, asks):
    asks(strength_points=4)
    work(1, size=3)
    with pytest.raises(Invalid, match="comparison of two"):
        rank_next(ann, strength=2)


def test_ratings_are_kept_by_position_and_shown_as_they_were_given(ann, work, asks):
    asks(attributes=["helpful", "honest"])
    work(1, size=4)
    ranking = rank_next(ann, ratings={"helpful": [5, 4, None, 1], "honest": [None] * 4})
    ranking.refresh_from_db()
    assert list(ranking.ratings) == ["helpful"]
    assert ranking.ratings["helpful"][ranking.display_order[0]] == 5
    assert ranking.ratings["helpful"][ranking.display_order[2]] is None
    assert ranking_details.shown_ratings(ranking) == {"helpful": [5, 4, None, 1]}


def test_a_revision_replaces_all_details(ann, work, asks):
    asks(attributes=["helpful"], flags=["rude"])
    work(1)
    first = rank_next(ann, ratings={"helpful": [5, 1]}, flags=["rude"], spans=[Span(1, 0, 6, "bad")])
    details = {"ratings": {"helpful": [4, 1]}, "spans": [Span(1, 0, 3, "bad")]}
    second = rankings.revise_ranking(ann, first.pk, [1, 2], idempotency_key=uuid4(), seconds=1.0, **details)
    first.refresh_from_db()
    assert (first.flags, second.flags) == (["rude"], [])
    assert (ranking_details.shown_ratings(first), ranking_details.shown_ratings(second)) == (
        {"helpful": [5, 1]},
        {"helpful": [4, 1]},
    )
    assert (first.spans[0]["end"], second.spans[0]["end"]) == (6, 3)


def test_a_submit_without_spans_reads_no_texts(ann, work, django_assert_num_queries):
    work(2)
    lease = leases.lease_next(ann)
    details = {"idempotency_key": uuid4(), "seconds": 1.0}
    with django_assert_num_queries(6):  # begin, member, key, lease, ranking, commit
        rankings.record_ranking(ann, lease.pk, [1, 2], **details)
