"""Invitations and links for new passwords: who can use them, how often, and how long."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone

from feedback.actions import invitations, password_links
from feedback.errors import AccordError, Conflict, Forbidden, NotFound
from feedback.models import Invitation, Membership, User
from tests.factories import URL, client_of, membership, person

WORDS = "correct horse battery"
pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("plain_static_files")]


@pytest.fixture
def key(project, manager):
    return invitations.invite(membership(manager, project), "annotator")[1]


def account(name="newcomer", password=WORDS):
    return {"username": name, "password1": password, "password2": password}


@pytest.mark.slow
def test_a_stranger_makes_an_account_and_is_on_the_ranking_page(client, project, key):
    page = client.get(f"/join/{key}/")
    assert project.name in page.content.decode()
    answer = client.post(f"/join/{key}/", account())
    assert answer.url == "/projects/support/rank/"
    assert client.get(answer.url).status_code == 200
    new = User.objects.get(username="newcomer")
    assert new.check_password(WORDS) and not new.is_staff
    assert new.memberships.get().role == "annotator"


@pytest.mark.parametrize(
    ("name", "password", "said"), [("mona", WORDS, "already exists"), ("new", "1234", "too short")]
)
def test_a_name_that_is_taken_and_a_weak_password_use_no_place(client, key, name, password, said):
    assert said in client.post(f"/join/{key}/", account(name, password)).content.decode()
    assert Invitation.objects.get().used == 0
    assert not User.objects.filter(username="new").exists()


def test_somebody_who_is_signed_in_joins_with_their_account(client, key, stranger):
    client.force_login(stranger)
    assert "stan" in client.get(f"/join/{key}/").content.decode()
    assert client.post(f"/join/{key}/").url == "/projects/support/rank/"
    assert Membership.objects.filter(user=stranger).count() == 2
    assert User.objects.count() == 2


def test_a_member_keeps_their_role_and_uses_no_place(client, project, manager):
    _, key = invitations.invite(membership(manager, project), "annotator")
    client.force_login(manager)
    assert client.post(f"/join/{key}/").status_code == 409
    assert membership(manager, project).is_manager
    assert Invitation.objects.get().used == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"used": 1}, "has been used"),
        ({"revoked_at": timezone.now()}, "withdrawn"),
        ({"expires_at": timezone.now() - timedelta(seconds=1)}, "expired"),
    ],
)
def test_an_ended_invitation_says_why_and_makes_no_account(client, key, change, said):
    Invitation.objects.update(**change)
    for answer in (client.get(f"/join/{key}/"), client.post(f"/join/{key}/", account())):
        assert answer.status_code == 410
        assert said in answer.content.decode()
    assert not User.objects.filter(username="newcomer").exists()


def test_an_archived_project_cannot_be_joined(client, project, key):
    project.archived_at = timezone.now()
    project.save()
    assert client.post(f"/join/{key}/", account()).status_code == 410


def test_an_unknown_key_is_not_found(client, key):
    assert client.get(f"/join/{key[:-1]}/").status_code == 404


def test_an_invitation_lasts_seven_days_and_its_key_is_not_stored(key):
    invitation = Invitation.objects.get()
    assert abs(invitation.expires_at - timezone.now() - timedelta(days=7)) < timedelta(minutes=5)
    assert key not in str(vars(invitation))


@pytest.mark.django_db(transaction=True)
def test_the_last_place_is_taken_by_one_of_two_who_come_at_once(project, manager):
    _, key = invitations.invite(membership(manager, project), "annotator", places=1)
    together = Barrier(2)

    def come(name):
        together.wait()
        try:
            invitations.join_as_new_user(key, name, WORDS)
        except invitations.Ended:
            return "late"
        finally:
            connection.close()
        return "in"

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(come, ("one", "two"))) == ["in", "late"]
    assert User.objects.filter(username__in=("one", "two")).count() == 1


def test_a_name_taken_while_the_form_was_open_is_refused(key):
    User.objects.create_user("newcomer")
    with pytest.raises(Conflict, match="has this name already"):
        invitations.join_as_new_user(key, "newcomer", WORDS)
    assert Invitation.objects.get().used == 0


@pytest.mark.slow
def test_the_page_shows_a_link_once_and_withdraws_it(client, manager):
    client.force_login(manager)
    page = client.post("/projects/support/people/invite/", {"role": "reviewer", "name": "Team B", "places": "3"})
    text = page.content.decode()
    (path,) = {part.split("<")[0] for part in text.split("http://testserver") if part.startswith("/join/")}
    listed = client.get("/projects/support/people/").content.decode()
    assert "Team B" in listed and "0 of 3" in listed and path not in listed
    client.post(f"/projects/support/people/invite/{Invitation.objects.get().pk}/revoke/")
    assert client.get(path).status_code == 410
    assert "withdrawn" in client.get("/projects/support/people/").content.decode()


def test_the_api_makes_lists_and_withdraws_invitations(client, manager):
    api = client_of(manager)
    made = api.post(f"{URL}/invitations", {"role": "annotator", "places": 2}, format="json").json()
    assert made["state"] == "open" and (made["places"], made["used"]) == (2, 0)
    assert client.get(made["url"]).status_code == 200
    (listed,) = api.get(f"{URL}/invitations").json()
    assert listed == {name: value for name, value in made.items() if name != "url"}
    assert api.delete(f"{URL}/invitations/{made['id']}").status_code == 204
    assert api.get(f"{URL}/invitations").json()[0]["state"] == "withdrawn"
    assert api.post(f"{URL}/invitations", {"places": 0}, format="json").status_code == 400


@pytest.mark.slow
def test_a_managers_link_sets_a_password_once_and_ends_other_sessions(client, project, manager, annotator):
    other, ann = Client(), Client()
    ann.force_login(annotator)
    other.force_login(manager)
    text = other.post(f"/projects/support/people/{annotator.pk}/password/").content.decode()
    (link,) = {part.split("<")[0] for part in text.split("http://testserver") if part.startswith("/account/password/")}
    form = client.get(link, follow=True)
    new = {"new_password1": WORDS, "new_password2": WORDS}
    assert client.post(form.request["PATH_INFO"], new).url == "/"
    assert client.get("/account/").status_code == 200
    assert ann.get("/account/").status_code == 302
    annotator.refresh_from_db()
    assert annotator.check_password(WORDS)
    assert "has been used or has expired" in Client().get(link, follow=True).content.decode()


def test_no_manager_makes_a_link_for_somebody_who_can_do_more(project, manager, annotator, stranger):
    own = membership(manager, project)
    assert password_links.password_link(own, annotator.pk)
    Membership.objects.create(project=project, user=stranger, role="annotator")
    administrator = person(project, "root", "annotator")
    User.objects.filter(pk=administrator.pk).update(is_staff=True)
    for user in (stranger, administrator):
        with pytest.raises(Forbidden, match="ask an administrator"):
            password_links.password_link(own, user.pk)
    away = person(None, "away")
    with pytest.raises(NotFound):
        password_links.password_link(own, away.pk)
    with pytest.raises(AccordError):
        password_links.password_link(own, 0)
