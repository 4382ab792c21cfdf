"""Host names that pages answer to: the machine's own, never all."""

import os
import socket
import subprocess
import sys

import pytest
from django.conf import settings

from config.runtime import hosts


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::", "http://[::1]:8000"),
        ("fd00::7", "http://[fd00::7]:8000"),
        ("accord.example.org", "http://accord.example.org:8000"),
    ],
)
def test_a_service_is_reached_at_the_address_where_it_listens(host, address):
    assert hosts.address_of(host, 8000) == address


def test_a_service_answers_to_the_name_on_which_it_listens():
    local = ["localhost", "127.0.0.1", "[::1]"]
    assert hosts.default_allowed_hosts("", "") == hosts.default_allowed_hosts("127.0.0.1", "") == local
    assert hosts.default_allowed_hosts("10.1.2.3", "") == [*local, "10.1.2.3"]
    assert hosts.default_allowed_hosts("fd00::7", "") == [*local, "[fd00::7]"]
    assert hosts.default_allowed_hosts("", "https://Accord.example.org:8443") == [*local, "accord.example.org"]


def test_a_service_on_all_interfaces_answers_to_the_names_of_this_machine_only():
    names = hosts.default_allowed_hosts("0.0.0.0", "")
    assert socket.gethostname().lower() in names
    assert "127.0.0.1" in names
    assert "*" not in names


def test_health_is_answered_under_any_host_name_and_pages_are_not(client, db, settings):
    plain = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}  # the error page needs no collecting
    settings.STORAGES = {**settings.STORAGES, "staticfiles": plain}
    assert client.get("/healthz", headers={"host": "10.9.8.7"}).content == b"ok"
    assert client.get("/", headers={"host": "10.9.8.7"}).status_code == 400


@pytest.mark.process
@pytest.mark.parametrize(
    ("url", "location"),
    [("https://accord.example.org", "https://accord.example.org/x?y=1"), ("http://accord.example.org", None)],
)
def test_with_an_https_address_plain_requests_are_redirected(url, location):
    script = """
import django; django.setup()
from django.test import RequestFactory
from django.middleware.security import SecurityMiddleware
from django.http import HttpResponse
answer = SecurityMiddleware(lambda request: HttpResponse())
ask = RequestFactory(headers={"host": "accord.example.org"}).get
print(answer(ask("/x?y=1")).get("Location"), answer(ask("/x", headers={"X-Forwarded-Proto": "https"})).status_code)
"""
    environment = {**os.environ, "ACCORD_URL": url, "DJANGO_SETTINGS_MODULE": "config.settings"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, cwd=settings.BASE_DIR, capture_output=True)
    assert done.stdout.decode().split() == [str(location), "200"], done.stderr.decode()


def test_health_is_answered_over_plain_http(client, db, settings):
    settings.SECURE_SSL_REDIRECT = True
    assert client.get("/healthz").content == b"ok"
    assert client.get("/").status_code == 301
