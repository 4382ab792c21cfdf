"""Typed text is kept when the session ended, or the user signed in again, before it was sent."""

import re
from html import unescape

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from feedback.models import Project

pytestmark = pytest.mark.usefixtures("plain_static_files")

SETTINGS = "/projects/support/settings/"
GUIDELINES = 'Say what the customer can do next.\r\nNever promise a date, not even "soon".'
HERE = {"HTTP_REFERER": f"http://testserver{SETTINGS}", "HTTP_ORIGIN": "http://testserver"}


def hidden_fields(response) -> dict[str, str]:
    found = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', response.content.decode())
    return {unescape(name): unescape(value) for name, value in found}


def sign_in(client: Client, response, name: str):
    """Fill in the sign-in form of this response, as a browser would send it."""
    return client.post("/sign-in/", {**hidden_fields(response), "username": name, "password": f"{name}-password"})


@pytest.fixture
def settings_form(client, manager) -> dict[str, str]:
    """Return the fields of the settings page with typed guidelines."""
    client.force_login(manager)
    form = client.get(SETTINGS).context["form"]
    shown = {name: form[name].value() for name in form.fields}
    client.logout()
    return {name: value for name, value in shown.items() if value is not None and value is not False} | {
        "guidelines": GUIDELINES
    }


def test_guidelines_sent_after_the_session_ended_can_be_saved_after_signing_in(client, settings_form, manager):
    asked = client.post(SETTINGS, settings_form, **HERE)
    assert asked.status_code == 401
    kept = sign_in(client, asked, "mona")
    assert kept.context["unsent"].texts == [GUIDELINES]
    assert Project.objects.get().guidelines == "Be kind."
    assert client.post(kept.context["unsent"].action, hidden_fields(kept)).url == SETTINGS
    assert Project.objects.get().guidelines.splitlines() == GUIDELINES.splitlines()


def test_a_wrong_password_in_between_keeps_the_unsent_form(client, settings_form):
    asked = client.post(SETTINGS, settings_form, **HERE)
    refused = client.post("/sign-in/", {**hidden_fields(asked), "username": "mona", "password": "wrong"})
    assert sign_in(client, refused, "mona").context["unsent"].texts == [GUIDELINES]


def test_a_form_with_an_outdated_token_is_kept_for_the_signed_in_user(project, manager):
    client = Client(enforce_csrf_checks=True)
    client.force_login(manager)
    kept = client.post(SETTINGS, {"guidelines": GUIDELINES, "csrfmiddlewaretoken": "old"}, **HERE)
    assert kept.context["unsent"].texts == [GUIDELINES]
    sent = client.post(SETTINGS, hidden_fields(kept), **HERE)
    assert sent.context["form"]["guidelines"].value() == GUIDELINES


def test_another_sites_form_is_refused_and_not_offered_for_sending(project, manager):
    client = Client(enforce_csrf_checks=True)
    client.force_login(manager)
    refused = client.post(SETTINGS, {"guidelines": GUIDELINES}, HTTP_ORIGIN="https://elsewhere.example")
    assert refused.status_code == 403
    assert GUIDELINES[:20] not in refused.content.decode()


def test_an_unsent_form_is_never_sent_to_another_site(client, manager):
    fields = {"unsent-action": "https://elsewhere.example/", "unsent.a": "b", "username": "mona"}
    answer = client.post("/sign-in/", {**fields, "password": "mona-password"})
    assert (answer.status_code, answer.url) == (302, "/")


def test_a_button_pressed_after_the_session_ended_leads_back_to_its_page(client, project, manager):
    """The URL accepts only POST: a redirect to it after the sign-in would show an error page."""
    asked = client.post("/projects/support/people/1/remove/", HTTP_REFERER="http://testserver/projects/support/people/")
    assert hidden_fields(asked)["next"] == "/projects/support/people/"
    assert sign_in(client, asked, "mona").context["unsent"].page == "/projects/support/people/"


def test_passwords_are_never_written_into_a_page(client, manager):
    fields = {"old_password": "mona-password", "new_password1": "a new secret 1", "new_password2": "a new secret 1"}
    asked = client.post("/account/password/", fields, HTTP_REFERER="http://testserver/account/password/")
    assert b"secret" not in asked.content and b"mona-password" not in asked.content
    assert sign_in(client, asked, "mona").url == "/account/password/"


def test_the_sign_in_page_asks_for_an_unsent_file_again(client, manager):
    file = SimpleUploadedFile("prompts.jsonl", b'{"prompt": "Hello"}')
    asked = client.post("/projects/support/prompts/", {"file": file})
    assert asked.context["is_file_lost"] and b"choose it again" in asked.content


def test_an_outdated_sign_in_page_is_shown_again(project):
    refused = Client(enforce_csrf_checks=True).post("/sign-in/", {"username": "mona", "next": SETTINGS}, **HERE)
    assert hidden_fields(refused)["next"] == SETTINGS and b"open for too long" in refused.content


def test_a_script_without_a_session_still_gets_a_redirect(client, project):
    answer = client.post("/projects/support/rank/submit/", {}, HTTP_SEC_FETCH_MODE="cors")
    assert answer.url.startswith("/sign-in/?next=")


def test_an_address_that_takes_forms_alone_answers_a_reader_with_a_page(client, manager):
    client.force_login(manager)
    answer = client.get("/projects/support/rounds/start/")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
    assert b"Nothing was changed" in answer.content


def test_a_user_who_may_not_create_projects_gets_the_reason(client, manager):
    client.force_login(manager)
    answer = client.get("/projects/new/")
    assert answer.status_code == 403 and b"administrators" in answer.content
