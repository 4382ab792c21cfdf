"""Second factors: asked for at every way to sign in, and demanded of managers where the installation says so."""

import base64
import hmac
import time

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from allauth.mfa.totp.internal.auth import TOTP
from django.core.exceptions import PermissionDenied
from django.test import Client

from feedback.actions import password_links, tokens
from feedback.models import AuditEntry, Membership, User

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("plain_static_files")]
SECRET = base64.b32encode(b"twenty bytes of key!").decode()


def code_of(secret: str, now: float) -> str:
    """Return the code of RFC 6238: HMAC-SHA1, 30 seconds, 6 digits."""
    digest = hmac.digest(base64.b32decode(secret), int(now // 30).to_bytes(8, "big"), "sha1")
    start = digest[-1] & 15
    return f"{(int.from_bytes(digest[start : start + 4], 'big') & 0x7FFFFFFF) % 10**6:06}"


@pytest.fixture(autouse=True)
def now(monkeypatch) -> float:
    """Let the time stand still, so that a code does not change within a test."""
    moment = time.time() // 30 * 30 + 10
    monkeypatch.setattr(time, "time", lambda: moment)
    return moment


def sign_in(client: Client, name: str):
    return client.post("/sign-in/", {"username": name, "password": f"{name}-password"})


def is_signed_in(client: Client) -> bool:
    return client.get("/account/").status_code == 200


@pytest.fixture
def app(annotator) -> Authenticator:
    return TOTP.activate(annotator, SECRET).instance


def test_secrets_are_stored_encrypted_and_lost_with_the_key(client, annotator, app, settings, now):
    RecoveryCodes.activate(annotator)
    stored = str(list(Authenticator.objects.values_list("data", flat=True)))
    assert SECRET not in stored
    assert TOTP(app).validate_code(code_of(SECRET, now))
    settings.SECRET_KEY = "another key of more than thirty-two characters"
    with pytest.raises(PermissionDenied, match="SECRET_KEY has changed"):
        TOTP(app).validate_code(code_of(SECRET, now))


@pytest.mark.slow
def test_an_app_is_set_up_and_then_asked_for(client, annotator, now):
    sign_in(client, "ann")
    asked = client.get("/account/second-factor/app/")
    assert asked.url.startswith("/account/confirm/")  # an open session alone is not enough
    client.post(asked.url, {"password": "ann-password"})
    secret = client.get("/account/second-factor/app/").context["form"].secret
    assert b"not right" in client.post("/account/second-factor/app/", {"code": "000000"}).content
    done = client.post("/account/second-factor/app/", {"code": code_of(secret, now)})
    codes = client.get(done.url).context["unused_codes"]
    assert len(codes) == 10
    kinds = AuditEntry.objects.filter(act="second_factor.add", actor=annotator).values_list("after", flat=True)
    assert {one["kind"] for one in kinds} == {"totp", "recovery_codes"}
    client.post("/sign-out/")

    assert sign_in(client, "ann").url == "/sign-in/code/"
    assert not is_signed_in(client)
    assert b"not right" in client.post("/sign-in/code/", {"code": "000000"}).content
    client.post("/sign-in/code/", {"code": codes[0]})
    assert is_signed_in(client)
    client.post("/sign-out/")
    sign_in(client, "ann")
    client.post("/sign-in/code/", {"code": codes[0]})  # it has been used
    assert not is_signed_in(client)


def test_a_managers_link_for_a_new_password_does_not_go_around_the_second_factor(client, app, mona, annotator, now):
    link = "/account/password/{}/{}/".format(*password_links.password_link(mona, annotator.pk))
    form = client.get(link, follow=True).redirect_chain[-1][0]
    passwords = {"new_password1": "a-new-passw0rd", "new_password2": "a-new-passw0rd"}
    assert client.post(form, passwords).url == "/sign-in/code/"
    assert not is_signed_in(client)
    client.post("/sign-in/code/", {"code": code_of(SECRET, now)})
    assert is_signed_in(client)


def test_wrong_codes_are_limited(client, app, now, settings):
    settings.ACCOUNT_RATE_LIMITS = settings.ACCOUNT_RATE_LIMITS | {"login_failed": "3/m/key"}
    sign_in(client, "ann")
    for _ in range(3):
        client.post("/sign-in/code/", {"code": "000000"})
    client.post("/sign-in/code/", {"code": code_of(SECRET, now)})
    assert not is_signed_in(client)


def test_a_form_that_was_not_sent_survives_the_second_factor(client, app, annotator, now):
    client.force_login(annotator)
    client.logout()
    kept = {"unsent-action": "/account/profile/", "unsent-page": "/account/", "unsent.note": "x" * 80}
    asked = client.post("/sign-in/", {"username": "ann", "password": "ann-password", **kept})
    assert asked.url == "/sign-in/code/"
    offered = client.post("/sign-in/code/", {"code": code_of(SECRET, now)}, follow=True)
    assert offered.context["unsent"].texts == ["x" * 80]
    assert client.get("/sign-in/unsent/").url == "/"  # offered once


def test_managers_are_sent_to_set_up_a_second_factor_before_they_manage(client, manager, annotator, settings):
    client.force_login(manager)
    assert client.get("/projects/support/people/").status_code == 200
    settings.SECOND_FACTOR = "MANAGERS"
    sent = client.get("/projects/support/people/", follow=True)
    assert sent.redirect_chain[-1][0] == "/account/second-factor/"
    assert b"need a second factor" in sent.content
    client.post("/projects/support/people/", {"username": "ann", "role": "manager"})
    client.post(f"/projects/support/people/{annotator.pk}/role/", {"role": "manager"})
    assert Membership.objects.get(user=annotator).role == "annotator"
    assert client.get("/projects/support/rank/").status_code == 200  # ranking is nothing administrative
    TOTP.activate(manager, SECRET)
    assert client.get("/projects/support/people/").status_code == 200


def test_a_token_of_a_manager_without_a_second_factor_is_refused_with_a_code(client, manager, settings):
    settings.SECOND_FACTOR = "MANAGERS"
    _token, key = tokens.issue_token(manager, "program")
    answer = client.get("/api/v1/projects/support/invitations", headers={"Authorization": f"Bearer {key}"})
    assert (answer.status_code, answer.json()["code"]) == (403, "second_factor_needed")


def test_administrators_need_a_second_factor_for_projects_and_the_admin_site(client, settings, db):
    settings.SECOND_FACTOR = "MANAGERS"
    root = User.objects.create_superuser("root", password="root-password")
    client.force_login(root)
    for page in ("/projects/new/", "/machines/", "/admin/"):
        assert client.get(page).url == "/account/second-factor/", page
    TOTP.activate(root, SECRET)
    assert client.get("/admin/").status_code == client.get("/projects/new/").status_code == 200


def test_annotators_are_never_asked_to_set_one_up(client, annotator, settings):
    settings.SECOND_FACTOR = "MANAGERS"
    client.force_login(annotator)
    assert b"need a second factor" not in client.get("/account/second-factor/").content
    assert client.get("/projects/support/rank/").status_code == 200


@pytest.mark.slow
def test_the_last_factor_of_a_manager_cannot_be_removed_where_one_is_needed(client, manager, settings):
    TOTP.activate(manager, SECRET)
    RecoveryCodes.activate(manager)
    sign_in(client, "mona")
    client.post("/sign-in/code/", {"code": RecoveryCodes.activate(manager).get_unused_codes()[0]})
    settings.SECOND_FACTOR = "MANAGERS"
    remove = client.get("/account/second-factor/app/remove/").url
    client.post(remove, {"password": "mona-password"})
    refused = client.post("/account/second-factor/app/remove/")
    assert b"add a passkey before" in refused.content
    settings.SECOND_FACTOR = "OPTIONAL"
    client.post("/account/second-factor/app/remove/")
    assert not Authenticator.objects.filter(user=manager).exists()  # the recovery codes went with it
