"""Audit log: every administrative act, its actor and its values; nobody changes or deletes an entry."""

import pytest
from django.contrib import admin
from django.core.management import call_command
from django.db import IntegrityError, connection, transaction
from django.test import RequestFactory
from django.urls.converters import IntConverter

from feedback import audit
from feedback.actions import members, projects
from feedback.actions.tokens import issue_token
from feedback.admin_site import AuditedAdmin
from feedback.models import AuditEntry, Membership, Project, User
from tests.audited_writes import AUDITED, EXEMPT, SAFE, addresses, written_tables
from tests.factories import URL, client_of, lines, person

pytestmark = pytest.mark.django_db
REFUSED = 405


def last() -> AuditEntry:
    return AuditEntry.objects.latest("pk")


def takes_writes(pattern) -> bool:
    """Return whether the view of a URL accepts a method that writes."""
    view = pattern.callback
    if hasattr(view, "cls"):
        return bool({*view.cls().allowed_methods} - {*SAFE})
    request = RequestFactory().post("/")
    request.user = User()  # unknown to the database: a view that accepts a POST finds nothing for it
    arguments = {
        name: 1 if isinstance(kind, IntConverter) else "x" for name, kind in pattern.pattern.converters.items()
    }
    try:
        return view(request, **arguments, **pattern.default_args).status_code != REFUSED
    except Exception:  # noqa: BLE001 - the view was reached
        return True


@pytest.mark.slow
def test_every_address_that_writes_is_audited_or_exempt():
    writing = {name for name, pattern in addresses() if takes_writes(pattern)}
    assert writing - set(AUDITED) - set(EXEMPT) == set()
    assert (set(AUDITED) | set(EXEMPT)) - writing == set()


def test_every_act_belongs_to_an_address_or_to_a_program():
    by_programs = {"person.erase", "webhook.disable", "admin.add", "admin.change", "admin.delete"}
    assert set().union(*AUDITED.values()) | by_programs == set(audit.ACTS)


def test_the_watch_sees_writes_and_ignores_sessions():
    assert written_tables('INSERT INTO "feedback_project" ("id") VALUES (1)') == {"feedback_project"}
    assert written_tables('UPDATE "feedback_user" SET "last_login" = now()') == set()
    assert written_tables('UPDATE "feedback_user" SET "is_active" = true') == {"feedback_user"}
    assert written_tables('DELETE FROM "django_session"') == set()


def test_an_unaudited_write_fails_the_test_that_makes_it(client, manager, monkeypatch):
    monkeypatch.setattr(members.audit, "record", lambda *arguments, **named: None)
    person(None, "newcomer")
    client.force_login(manager)
    with pytest.raises(AssertionError, match="without an entry in the audit log"):
        client.post("/projects/support/people/", {"username": "newcomer", "role": "annotator"})


def test_every_page_of_the_admin_site_that_writes_is_audited():
    pages = admin.site._registry.values()
    assert len(pages) > 10
    assert [page for page in pages if not isinstance(page, AuditedAdmin)] == []


def test_a_change_of_settings_has_who_when_and_the_values_that_changed(manager, project):
    api = client_of(manager)
    assert api.patch(URL, {"gold_percent": 10}, format="json").status_code == 200
    entry = last()
    assert (entry.act, entry.actor, entry.actor_name, entry.via) == ("project.settings", manager, "mona", "api")
    assert (entry.before, entry.after, entry.token_name) == ({"gold_percent": 0}, {"gold_percent": 10}, "tests")
    assert (entry.project_slug, entry.object_type, entry.object_id) == ("support", "project", str(project.pk))


def test_the_pages_record_the_person_who_is_signed_in(client, manager, annotator):
    client.force_login(manager)
    client.post(f"/projects/support/people/{annotator.pk}/role/", {"role": "reviewer"})
    entry = last()
    assert (entry.act, entry.actor_name, entry.via, entry.object_name) == ("member.role", "mona", "page", "ann")
    assert (entry.before, entry.after) == ({"role": "annotator"}, {"role": "reviewer"})


def test_a_command_is_named(project, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_bytes(lines({"prompt": "Where?", "chosen": "Here.", "rejected": "There."}))
    call_command("load", "support", file)
    entry = AuditEntry.objects.get(act="import.start")
    assert (entry.actor, entry.actor_name, entry.via, entry.after) == (None, "load", "command", {"file": "rows.jsonl"})


def test_the_act_and_its_entry_are_one_transaction(manager, project, monkeypatch):
    def fail(*arguments, **named):
        raise RuntimeError

    newcomer = person(None, "newcomer")
    monkeypatch.setattr(AuditEntry.objects, "create", fail)
    project.gold_percent = 20
    for act in (
        lambda: members.add_member(project, "newcomer", "annotator"),
        lambda: projects.save_settings(project),
        lambda: issue_token(newcomer, "export"),
    ):
        with pytest.raises(RuntimeError):
            act()
    assert not Membership.objects.filter(user=newcomer).exists()
    assert Project.objects.get().gold_percent == 0
    assert not newcomer.api_tokens.exists()


def test_the_database_refuses_to_change_or_delete_an_entry(manager, project):
    members.change_role(project, manager.pk, "manager")
    entry = last()
    for refused in (
        lambda: AuditEntry.objects.filter(pk=entry.pk).update(actor_name="nobody"),
        lambda: AuditEntry.objects.filter(pk=entry.pk).delete(),
    ):
        with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
            refused()
    entry.refresh_from_db()
    assert entry.actor_name != "nobody"


@pytest.mark.slow
def test_an_entry_outlives_its_project_and_its_actor(client, manager, annotator, project):
    client.force_login(manager)
    client.post(f"/projects/support/people/{annotator.pk}/role/", {"role": "reviewer"})
    manager.delete()
    Project.objects.all().delete()
    assert (last().actor_name, last().project_slug) == ("mona", "support")


def test_an_erasure_takes_the_name_out_and_is_recorded(client, manager, annotator, colleague, project):
    client.force_login(manager)
    for user in (annotator, colleague):
        client.post(f"/projects/support/people/{user.pk}/role/", {"role": "reviewer"})
    audit.record("admin.change", project, annotator, before={"email": "ann@example.org", "is_active": True})
    erasure = audit.erase_person(annotator, "person 7")
    of_ann = AuditEntry.objects.filter(object_type="user", object_id=str(annotator.pk)).order_by("pk")
    assert {entry.object_name for entry in of_ann} == {"person 7"}
    assert of_ann[1].before == {"is_active": True}
    assert (erasure.act, erasure.object_id) == ("person.erase", str(annotator.pk))
    assert AuditEntry.objects.filter(object_name="cole").count() == 1
    audit.erase_person(manager, "person 8")
    assert not AuditEntry.objects.filter(actor_name="mona").exists()
    with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():  # the exception has ended
        AuditEntry.objects.filter(actor=manager).update(actor_name="x")


def test_an_erasure_without_a_record_is_refused(client, manager, annotator, colleague):
    client.force_login(manager)
    client.post(f"/projects/support/people/{annotator.pk}/role/", {"role": "reviewer"})
    entry = last()
    erasure = audit.erase_person(colleague, "person 9")
    for allowed in (entry.pk, erasure.pk):  # no erasure at all, and that of somebody else
        with (
            pytest.raises(IntegrityError, match="append-only"),
            transaction.atomic(),
            connection.cursor() as cursor,
        ):
            cursor.execute("SELECT set_config('accord.erasure', %s, true)", [str(allowed)])
            AuditEntry.objects.filter(pk=entry.pk).update(actor_name="x")


@pytest.mark.full  # three pages of the admin site; the watch over requests sees that they record
def test_the_admin_site_records_values_without_secrets(client, db):
    User.objects.create_superuser("root", password="root-password")
    client.force_login(User.objects.get())
    target = person(None, "target")
    form = client.get(f"/admin/feedback/user/{target.pk}/change/").context["adminform"].form
    values = {name: value for name, value in form.initial.items() if isinstance(value, str | bool) and value}
    values |= {"is_active": "", "email": "t@example.org", "date_joined_0": "2026-01-01", "date_joined_1": "00:00"}
    assert client.post(f"/admin/feedback/user/{target.pk}/change/", values).status_code == 302
    entry = last()
    assert (entry.act, entry.object_name, entry.before["is_active"], entry.after["is_active"]) == (
        *("admin.change", "target"),
        *(True, False),
    )
    changed = {"password1": "another-long-one", "password2": "another-long-one"}
    assert client.post(f"/admin/feedback/user/{target.pk}/password/", changed).status_code == 302
    assert "another-long-one" not in str(last().after)
    assert client.post(f"/admin/feedback/user/{target.pk}/delete/", {"post": "yes"}).status_code == 302
    assert (last().act, "password" in last().before) == ("admin.delete", False)


@pytest.mark.slow
def test_the_page_shows_who_changed_a_setting_and_its_filters_work(client, manager, project):
    client.force_login(manager)
    page = client.get("/projects/support/audit/")
    assert "Nothing here yet" in page.content.decode()
    api = client_of(manager)
    api.patch(URL, {"gold_percent": 10, "wanted_rankings": 2}, format="json")
    person(None, "newcomer")
    client.post("/projects/support/people/", {"username": "newcomer", "role": "annotator"})
    text = client.get("/projects/support/audit/").content.decode()
    for words in ("Gold, in percent:</span> 0 → 10", "changed the project&#x27;s settings", "added a member", "tests"):
        assert words in text
    assert len(client.get("/projects/support/audit/?act=member").context["rows"]) == 1
    assert len(client.get("/projects/support/audit/?actor=mona&act=project").context["rows"]) == 1
    assert "Nothing matches" in client.get("/projects/support/audit/?until=2020-01-01").content.decode()
    assert not client.get("/projects/support/audit/?act=unknown").context["rows"]


@pytest.mark.slow
def test_administrators_alone_read_the_log_of_the_site(client, manager, project):
    issue_token(manager, "export")  # an act that concerns no project
    client.force_login(manager)
    assert client.get("/audit/").status_code == client_of(manager).get("/api/v1/audit").status_code == 403
    manager.is_staff = True
    manager.save()
    assert "made an API token" in client.get("/audit/").content.decode()
    assert "made an API token" not in client.get("/projects/support/audit/").content.decode()
    acts = [row["act"] for row in client_of(manager).get("/api/v1/audit?actor=mona").json()["rows"]]
    assert acts == ["token.create"] * 3  # the other two are those of these requests


@pytest.mark.slow
def test_the_api_pages_by_cursor_and_misses_and_repeats_nothing(manager, project):
    api = client_of(manager)
    for percent in range(1, 6):
        api.patch(URL, {"gold_percent": percent}, format="json")
    seen, cursor = [], ""
    while True:
        page = api.get(f"{URL}/audit?act=project&limit=2&cursor={cursor}").json()
        seen += [row["after"]["gold_percent"] for row in page["rows"]]
        if page["next"] is None:
            break
        cursor = page["next"]
        if len(seen) == 2:  # a later act does not move the pages
            api.patch(URL, {"gold_percent": 50}, format="json")
    assert seen == [5, 4, 3, 2, 1]
    assert api.get(f"{URL}/audit?cursor=x").status_code == 400
    assert api.get(f"{URL}/audit?act=nothing").status_code == 400
    row = api.get(f"{URL}/audit?object_type=project&object_id={project.pk}&limit=1").json()["rows"][0]
    assert (row["actor"], row["is_person"], row["token"], row["via"]) == ("mona", True, "tests", "api")
    assert (row["before"], row["after"]) == ({"gold_percent": 5}, {"gold_percent": 50})


def test_a_token_needs_the_scope_of_the_audit_log(manager):
    from rest_framework.test import APIClient

    for scope, status in (("projects:read", 403), ("audit:read", 200)):
        api = APIClient()
        api.credentials(HTTP_AUTHORIZATION=f"Bearer {issue_token(manager, scope, scopes=[scope])[1]}")
        assert api.get(f"{URL}/audit").status_code == status
