"""Signing in does not slow others down, and signing out ends the session."""

import fcntl
from types import SimpleNamespace

import pytest
from django.conf import settings as django_settings
from django.contrib.auth.password_validation import validate_password
from django.contrib.sessions.models import Session
from django.core.exceptions import ValidationError
from django.test import Client

from config.runtime import health
from feedback.web import passwords
from training.tasks import clear_sessions

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("plain_static_files")]


@pytest.fixture
def all_places_taken(settings, tmp_path):
    settings.DATA_DIR = tmp_path
    settings.PASSWORD_HASHERS = ["feedback.web.passwords.LimitedHasher"]
    files = [(tmp_path / f"sign-in-{number}.lock").open("w") for number in range(passwords.MAX_CONCURRENT)]
    for file in files:
        fcntl.flock(file, fcntl.LOCK_EX)
    yield files
    for file in files:
        file.close()


@pytest.mark.slow
def test_a_cookie_copied_before_signing_out_is_invalid_afterwards(annotator):
    client, thief = Client(), Client()
    client.force_login(annotator)
    thief.cookies["sessionid"] = client.cookies["sessionid"].value
    assert thief.get("/account/").status_code == 200
    client.post("/sign-out/")
    assert thief.get("/account/").status_code == 302


def test_sessions_that_expired_are_cleared(annotator):
    Client().force_login(annotator)
    Client().force_login(annotator)
    Session.objects.filter(pk=Session.objects.first().pk).update(expire_date="2020-01-01T00:00Z")
    clear_sessions()
    assert Session.objects.count() == 1


def test_a_third_simultaneous_password_check_waits_and_is_then_refused(
    client, annotator, all_places_taken, monkeypatch
):
    monkeypatch.setattr(passwords, "MAX_WAIT", 0.1)
    answer = client.post("/sign-in/", {"username": "ann", "password": "ann-password"})
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert b"try again in a few seconds" in answer.content


@pytest.mark.slow
def test_a_sign_in_waits_until_a_slot_is_free(client, annotator, all_places_taken, monkeypatch):
    monkeypatch.setattr(passwords, "sleep", lambda _: all_places_taken[0].close())
    assert client.post("/sign-in/", {"username": "ann", "password": "ann-password"}).status_code == 302


def test_half_of_the_threads_are_left_to_others(client, annotator, all_places_taken):
    held = [passwords._waiting.acquire(blocking=False) for _ in range(django_settings.WEB_THREADS // 2)]
    assert all(held)
    assert client.post("/sign-in/", {"username": "ann", "password": "ann-password"}).status_code == 503
    for _ in held:
        passwords._waiting.release()


@pytest.mark.parametrize("password", ["aaaaaaab", "abababab", "1234567890", "password1", "ann-annotator"])
def test_weak_passwords_are_refused(annotator, password):
    annotator.username = "ann-annotator"
    with pytest.raises(ValidationError):
        validate_password(password, annotator)


def test_a_full_disk_is_not_healthy(client, monkeypatch):
    assert client.get("/healthz").status_code == 200
    monkeypatch.setattr(health.shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    assert client.get("/healthz").status_code == 503
