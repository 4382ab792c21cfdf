"""Accounts: wrong passwords are limited, sessions are listed and ended, passwords are reset by mail, own time zone."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from allauth.usersessions.models import UserSession
from django.core import mail
from django.db import connection
from django.test import Client
from django.utils import timezone

from feedback.actions import members, tokens
from feedback.errors import Conflict, Forbidden
from feedback.models import Lease, Ranking, User
from feedback.queue import leases
from feedback.web.accounts import adapter
from tests.factories import person, rank_next
from training.tasks import clear_sessions

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("plain_static_files")]
LIMIT = 3  # wrong passwords a minute; the product's limit is 20
BERLIN = "Europe/Berlin"


def sign_in(client: Client, name: str, password: str = "wrong", address: str = "192.0.2.1"):
    return client.post("/sign-in/", {"username": name, "password": password}, REMOTE_ADDR=address)


def guess(name: str, address: str = "192.0.2.1") -> list[int]:
    """Return the statuses of LIMIT wrong passwords from one address, and of one more."""
    client = Client()
    return [sign_in(client, name, address=address).status_code for _ in range(LIMIT + 1)]


@pytest.fixture(autouse=True)
def lower_limits(settings):
    assert settings.ACCOUNT_RATE_LIMITS["login_failed"] == "20/m/ip,20/m/key"
    assert settings.ACCOUNT_RATE_LIMITS["login_failed_in_known_browser"] == "20/m/key"
    lower = {"login_failed": f"{LIMIT}/m/ip,{LIMIT}/m/key", "login_failed_in_known_browser": f"{LIMIT}/m/key"}
    settings.ACCOUNT_RATE_LIMITS = settings.ACCOUNT_RATE_LIMITS | lower


def text_of(response) -> str:
    return re.sub(r"[A-Za-z0-9]{64}", "TOKEN", response.content.decode())


def test_too_many_wrong_passwords_of_an_account_are_refused_whether_it_exists_or_not(annotator, settings):
    settings.ACCOUNT_RATE_LIMITS = settings.ACCOUNT_RATE_LIMITS | {"login_failed": f"{LIMIT}/m/key"}
    assert guess("ann") == guess("nobody") == [200] * LIMIT + [429]
    client = Client()
    known, unknown = (sign_in(client, name, address="192.0.2.2") for name in ("ann", "nobody"))
    assert known.headers["Retry-After"] == unknown.headers["Retry-After"] == "60"
    assert b"wait a minute" in known.content
    assert text_of(known) == text_of(unknown)


@pytest.mark.slow
def test_too_many_wrong_passwords_from_an_address_are_refused_and_other_addresses_are_not(annotator):
    assert guess("nobody")[-1] == 429
    assert sign_in(Client(), "ann", "ann-password").status_code == 429
    assert sign_in(Client(), "ann", "ann-password", "192.0.2.2").status_code == 302


@pytest.mark.slow
def test_the_guesses_of_others_do_not_lock_out_who_has_signed_in_in_this_browser(annotator):
    browser = Client()
    assert sign_in(browser, "ann", "ann-password").status_code == 302
    browser.post("/sign-out/")
    assert guess("ann")[-1] == 429
    assert sign_in(Client(), "ann", "ann-password").status_code == 429
    assert sign_in(browser, "ann", "ann-password").status_code == 302
    browser.post("/sign-out/")
    browser.cookies["known-browser"] = browser.cookies["known-browser"].value[:-1] + "x"  # not signed by us
    assert sign_in(browser, "ann", "ann-password").status_code == 429


def test_right_passwords_are_not_counted(annotator, settings):
    settings.ACCOUNT_RATE_LIMITS = settings.ACCOUNT_RATE_LIMITS | {"login_failed": "1/m/ip,1/m/key"}
    assert [sign_in(Client(), "ann", "ann-password").status_code for _ in range(2)] == [302] * 2


def test_counts_are_in_the_database_which_all_web_processes_share_and_expire(client, annotator):
    def rows() -> int:
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM accord_cache")
            return cursor.fetchone()[0]

    sign_in(client, "ann")
    clear_sessions()
    assert rows() == 2  # of the account and of the address
    with connection.cursor() as cursor:
        cursor.execute("UPDATE accord_cache SET expires = now() - interval '1 second'")
    clear_sessions()
    assert rows() == 0


@pytest.mark.parametrize(
    ("peer", "forwarded", "proxies", "address"),
    [
        ("192.0.2.1", "", 0, "192.0.2.1"),
        ("192.0.2.1", "198.51.100.7", 0, "192.0.2.1"),  # anybody may send the header
        ("127.0.0.1", "203.0.113.1, 198.51.100.7", 0, "198.51.100.7"),  # the proxy of this machine added the last one
        ("", "", 0, "127.0.0.1"),
        ("192.0.2.1", "203.0.113.1, 198.51.100.7, 192.0.2.9", 2, "198.51.100.7"),
        ("127.0.0.1", "nonsense", 0, "127.0.0.1"),
    ],
)
def test_the_address_is_that_of_the_browser_behind_trusted_proxies(rf, settings, peer, forwarded, proxies, address):
    settings.TRUSTED_PROXIES = proxies
    request = rf.get("/", REMOTE_ADDR=peer, headers={"X-Forwarded-For": forwarded} if forwarded else {})
    assert adapter.client_address(request) == address


def test_the_admin_site_has_no_sign_in_of_its_own(client, manager):
    User.objects.filter(pk=manager.pk).update(is_staff=True)
    assert client.get("/admin/", follow=True).redirect_chain[-1][0].startswith("/sign-in/?next=")
    client.post("/admin/login/?next=/admin/", {"username": "mona", "password": "mona-password"})
    assert client.get("/account/").status_code == 302


@pytest.mark.slow
def test_sessions_are_listed_and_ended_one_by_one(annotator):
    here, there = Client(headers={"User-Agent": "Mozilla/5.0 (X11; Linux) Firefox/140.0"}), Client()
    for browser in (here, there):
        sign_in(browser, "ann", "ann-password")
    listed = here.get("/account/").context["sessions"]
    assert [(one.browser, one.is_current) for one in listed] == [("Firefox, Linux", True), ("Unknown browser", False)]
    assert here.post(f"/account/sessions/{listed[1].pk}/end/").url == "/account/"
    assert there.get("/account/").status_code == 302
    assert here.get("/account/").status_code == 200


@pytest.mark.slow
def test_a_session_of_somebody_else_cannot_be_ended(client, annotator, colleague):
    other = Client()
    sign_in(other, "cole", "cole-password")
    client.force_login(annotator)
    session = UserSession.objects.get(user=colleague)
    assert client.post(f"/account/sessions/{session.pk}/end/").status_code == 404
    assert other.get("/account/").status_code == 200


def test_signing_out_everywhere_also_ends_sessions_without_a_record(annotator):
    here, old = Client(), Client()
    sign_in(here, "ann", "ann-password")
    old.force_login(annotator)  # as before allauth was installed
    assert here.post("/account/sessions/end/").url == "/sign-in/"
    assert here.get("/account/").status_code == old.get("/account/").status_code == 302


@pytest.mark.slow
def test_a_link_for_a_new_password_is_mailed_and_works_once(client, annotator, settings):
    settings.HAS_MAIL = True
    User.objects.filter(pk=annotator.pk).update(email="ann@example.org")
    assert b"/sign-in/password/" in client.get("/sign-in/").content
    sent = client.post("/sign-in/password/", {"email": "ANN@example.org"}, follow=True)
    unknown = client.post("/sign-in/password/", {"email": "nobody@example.org"}, follow=True)
    assert text_of(sent) == text_of(unknown)  # no hint which addresses have an account
    (letter,) = mail.outbox
    assert "ann" in letter.body
    link = re.search(r"http://testserver(\S+)", letter.body)[1]
    form = client.get(link, follow=True)
    passwords = {"password1": "a-new-passw0rd", "password2": "a-new-passw0rd"}
    assert client.post(form.redirect_chain[-1][0], passwords).url == "/"
    assert client.get("/account/").status_code == 200
    assert b"has been used" in Client().get(link, follow=True).content
    assert sign_in(Client(), "ann", "a-new-passw0rd").status_code == 302


def test_a_mailed_link_refuses_a_weak_password(client, annotator):
    User.objects.filter(pk=annotator.pk).update(email="ann@example.org")
    client.post("/sign-in/password/", {"email": "ann@example.org"})
    link = re.search(r"http://testserver(\S+)", mail.outbox[0].body)[1]
    address = client.get(link, follow=True).redirect_chain[-1][0]
    assert client.post(address, {"password1": "12345678", "password2": "12345678"}).status_code == 200
    annotator.refresh_from_db()
    assert annotator.check_password("ann-password")


@pytest.mark.slow
def test_a_mail_address_is_changed_only_after_the_password_was_asked_again(client, annotator):
    sign_in(client, "ann", "ann-password")
    fields = {"email": "ann@example.org", "language": "", "time_zone": ""}
    asked = client.post("/account/profile/", fields)
    assert asked.url.startswith("/account/confirm/")
    assert not User.objects.get(pk=annotator.pk).email
    assert client.post(asked.url, {"password": "wrong"}).status_code == 200
    client.post(asked.url, {"password": "ann-password"})
    assert User.objects.get(pk=annotator.pk).email == "ann@example.org"


@pytest.mark.slow
def test_pages_follow_the_language_and_time_zone_of_the_account(client, annotator, project):
    client.force_login(annotator)
    client.post("/account/profile/", {"email": "", "language": "zh-hans", "time_zone": "Asia/Shanghai"})
    page = client.get("/account/", headers={"Accept-Language": "en"}).content.decode()
    assert '<html lang="zh-hans"' in page
    client.post("/language/", {"language": "en"})  # the menu of every page
    assert User.objects.get(pk=annotator.pk).language == "en"
    assert timezone.get_current_timezone_name() == "UTC"  # the next request of this thread is somebody else's


@pytest.mark.slow
def test_a_time_zone_that_does_not_exist_is_refused(client, annotator):
    client.force_login(annotator)
    assert client.post("/account/profile/", {"email": "", "time_zone": "Mars/Olympus"}).status_code == 400


def test_today_begins_at_midnight_of_the_persons_own_time_zone(client, ann, work, monkeypatch):
    """At 23:30 UTC it is half past midnight in Berlin: a ranking of 22:30 UTC was made yesterday there."""
    work(1)
    rank_next(ann)
    now = datetime(2026, 1, 10, 23, 30, tzinfo=UTC)
    Ranking.objects.update(created_at=now - timedelta(hours=1))
    monkeypatch.setattr(timezone, "now", lambda: now)
    counts = {}
    for zone in ("", BERLIN):
        User.objects.filter(pk=ann.user_id).update(time_zone=zone)
        client.force_login(User.objects.get(pk=ann.user_id))
        counts[zone] = client.get("/").context["memberships"][0].ranked_today
    assert counts == {"": 1, BERLIN: 0}


@pytest.mark.slow
def test_a_deactivated_person_is_signed_out_and_the_rankings_stay(client, manager, ann, work):
    User.objects.filter(pk=manager.pk).update(is_staff=True)
    work(2)
    rank_next(ann)
    leases.lease_next(ann)
    annotator, (_token, key) = Client(), tokens.issue_token(ann.user, "program")
    sign_in(annotator, "ann", "ann-password")
    client.force_login(User.objects.get(pk=manager.pk))
    assert b"Deactivate" in client.get("/projects/support/people/").content
    client.post(f"/projects/support/people/{ann.user_id}/active/", {"active": "no"})
    assert b"deactivated" in client.get("/projects/support/people/").content
    assert annotator.get("/account/").status_code == 302
    assert sign_in(annotator, "ann", "ann-password").status_code == 200
    assert tokens.find_token(key) is None
    assert Lease.objects.get().lapsed_at is not None  # its slot is open again
    assert Ranking.objects.get().annotator_id == ann.user_id
    assert members.members_of(ann.project).get(user=ann.user_id).ranking_count == 1
    client.post(f"/projects/support/people/{ann.user_id}/active/", {"active": "yes"})
    assert annotator.get("/account/").status_code == 302  # the old session has ended
    assert sign_in(annotator, "ann", "ann-password").status_code == 302


def test_only_administrators_deactivate_and_neither_themselves_nor_an_only_manager(manager, annotator, project):
    with pytest.raises(Forbidden):
        members.set_active(manager, project, annotator.pk, False)
    root = person(project, "root", "annotator")
    User.objects.filter(pk__in=[manager.pk, root.pk]).update(is_staff=True)
    root, manager = User.objects.get(pk=root.pk), User.objects.get(pk=manager.pk)
    with pytest.raises(Conflict):
        members.set_active(manager, project, manager.pk, False)
    with pytest.raises(Conflict, match="only manager of Support replies"):
        members.set_active(root, project, manager.pk, False)
