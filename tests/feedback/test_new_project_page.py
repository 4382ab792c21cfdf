"""The page for a new project: administrators create projects there, all other users get the reason why they may not."""

import pytest

from feedback.models import Project

PAGE = "/projects/new/"


@pytest.fixture
def administrator(client, django_user_model):
    client.force_login(django_user_model.objects.create_user("ada", is_staff=True))


def test_a_user_without_the_right_gets_the_reason_after_signing_in(client, manager):
    asked = client.get(PAGE)
    signed_in = client.post(asked.url, {"username": "mona", "password": "mona-password"}, follow=True)
    assert [address for address, _status in signed_in.redirect_chain] == [PAGE]
    assert signed_in.status_code == 403
    assert "Only administrators of this site may create projects" in signed_in.content.decode()
    assert client.get(asked.url, follow=True).status_code == 403  # the sign-in page sends those who are signed in on


def test_an_administrator_makes_a_project(client, administrator):
    made = client.post(PAGE, {"slug": "letters", "name": "Letters"})
    assert made.url == "/projects/letters/prompts/"
    assert Project.objects.get().memberships.get().is_manager


def test_a_taken_address_is_an_error_at_its_field(client, administrator, project):
    answer = client.post(PAGE, {"slug": "support", "name": "Another one"})
    assert answer.context["form"].errors["slug"] == [
        "Another project has this address already: choose a different one."
    ]
    assert "Another project has this address already" in answer.content.decode()
