"""The leases of a removed member and of a closed or deleted account open their slots."""

import pytest
from django.db import connection
from django.test import Client

from feedback.actions import members
from feedback.models import Comparison, Lease, Membership, User
from feedback.queue import leases as queue
from tests.factories import person, rank_next

pytestmark = pytest.mark.django_db


@pytest.fixture
def held(ann, work):
    """Return the leases of five comparisons, all held by Ann."""
    work(5)
    leases: list[Lease] = []
    while len(leases) < 5:
        leases.append(queue.lease_next(ann, beside=[lease.pk for lease in leases]))
    assert open_slots() == 0
    return leases


def open_slots():
    return sum(Comparison.objects.values_list("open_slots", flat=True))


def delete_in_the_administration(ann, manager):
    manager.is_staff = manager.is_superuser = True
    manager.save()
    client = Client()
    client.force_login(manager)
    url = f"/admin/feedback/user/{ann.user_id}/delete/"
    assert client.post(url, {"post": "yes"}).status_code == 302
    assert not User.objects.filter(pk=ann.user_id).exists()


def delete_by_sql(ann, manager):
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM feedback_membership WHERE user_id = %s", [ann.user_id])
        cursor.execute("DELETE FROM feedback_user WHERE id = %s", [ann.user_id])


WAYS = {
    "the account is deleted": lambda ann, _: User.objects.get(pk=ann.user_id).delete(),
    "accounts are deleted": lambda ann, _: User.objects.filter(pk=ann.user_id).delete(),
    "it is deleted by SQL": delete_by_sql,
    "the account is closed": lambda ann, _: User.objects.filter(pk=ann.user_id).update(is_active=False),
    "the member is removed": lambda ann, _: members.remove_member(ann.project, ann.user_id),
    "it is deleted in the administration": delete_in_the_administration,
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_all_leases_of_a_person_are_opened_for_others_when(ann, manager, cole, held, way, plain_static_files):
    WAYS[way](ann, manager)
    connection.check_constraints()
    assert open_slots() == 5
    assert not Lease.objects.filter(lapsed_at__isnull=True).exists()
    assert [rank_next(cole) is not None for _ in range(6)] == [True] * 5 + [False]


def test_a_lease_that_had_lapsed_gives_no_second_slot(ann, held):
    Lease.objects.update(expires_at=held[0].taken_at)
    queue.sweep()
    assert open_slots() == 5
    User.objects.get(pk=ann.user_id).delete()
    assert open_slots() == 5


def test_leaving_one_project_opens_no_slots_in_another(ann, held, stranger):
    other = stranger.memberships.get().project
    Membership.objects.create(project=other, user=ann.user)
    members.remove_member(other, ann.user_id)
    assert open_slots() == 0


def test_a_returning_member_may_submit_the_comparison_that_they_held(ann, manager, held, project):
    members.remove_member(project, ann.user_id)
    again = members.add_member(project, ann.user.username, "annotator")
    assert queue.renew(again, held[0].pk).lapsed_at is None
    assert open_slots() == 4


def test_closing_a_closed_account_again_opens_no_slots(ann, held):
    for _ in range(2):
        User.objects.filter(pk=ann.user_id).update(is_active=False)
    assert open_slots() == 5


def test_an_account_without_leases_can_be_deleted(project):
    person(project, "bea", "annotator").delete()
    assert not User.objects.filter(username="bea").exists()
