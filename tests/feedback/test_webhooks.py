"""Webhooks against a real server: signatures, retries, order, refused addresses, the outbox, pages and API."""

import base64
import hashlib
import hmac
import re
import socket
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from django.core.management import call_command
from django.db import transaction
from django.utils import timezone

from feedback import imports, network, webhooks
from feedback.actions import webhooks as actions
from feedback.errors import Conflict, Invalid
from feedback.models import AuditEntry, Webhook, WebhookDelivery
from feedback.webhooks import addresses, delivery, post, signing
from feedback.webhooks.post import Answer
from tests import hook_server
from tests.factories import URL, add_work, client_of, lines, membership, rank_next

pytestmark = pytest.mark.django_db
GUIDE = Path(__file__).parents[2] / "docs" / "data-and-api.md"
FAILED = (500, {})


@pytest.fixture(scope="module")
def running_server():
    with hook_server.running() as server:
        yield server


@pytest.fixture
def server(running_server, settings):
    settings.WEBHOOK_NETWORKS = hook_server.LOOPBACK
    running_server.received.clear()
    running_server.answers.clear()
    running_server.drips = None
    return running_server


@pytest.fixture
def mona(manager, project):
    return membership(manager, project)


@pytest.fixture
def made(server, mona):
    return actions.make(mona, "builds", server.url, [*webhooks.EVENTS])


def emit(project, thing: str, event: str = "round.started", **data) -> None:
    project.refresh_from_db()
    webhooks.emit(project, event, thing, data)


def due_now() -> None:
    WebhookDelivery.objects.update(next_attempt_at=timezone.now())


def test_the_signature_is_that_of_the_specification():
    """The values are the example of the Standard Webhooks libraries."""
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signed = signing.signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b'{"test": 2432232314}')
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_example_of_the_guide_accepts_a_delivery_and_refuses_a_forged_or_old_one(project, made, server):
    (example,) = re.findall(r"```python\n((?:(?!```).)*?def verify.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    names: dict = {}
    exec(example, names)
    emit(project, "round:1", number=1)
    assert delivery.deliver_due() == 1
    ((headers, body),) = server.received
    event = names["verify"](made.secret, headers, body)
    assert (event["type"], event["data"]) == ("round.started", {"number": 1})
    old = headers | {"webhook-timestamp": str(int(headers["webhook-timestamp"]) - 600)}
    other = signing.secret_of("another")
    for secret, sent, content in (
        (made.secret, headers, body + b" "),
        (made.secret, old, body),
        (other, headers, body),
    ):
        with pytest.raises(ValueError, match=r"signature|old"):
            names["verify"](secret, sent, content)


def test_a_delivery_has_the_headers_and_the_log_has_the_answer(project, made, server):
    emit(project, "round:1")
    delivery.deliver_due()
    ((headers, _body),) = server.received
    sent = WebhookDelivery.objects.get()
    assert headers["webhook-id"] == f"msg_{sent.message_id.hex}"
    assert headers["content-type"] == "application/json"
    assert (sent.state, sent.log[0]["status"], sent.log[0]["answer"]) == ("delivered", 200, "answer 1")
    assert delivery.deliver_due() == 0


def test_an_event_that_is_rolled_back_is_not_delivered(project, made, server):
    with pytest.raises(RuntimeError), transaction.atomic():
        emit(project, "round:1")
        raise RuntimeError
    assert delivery.deliver_due() == 0
    assert server.received == []


def test_an_event_that_no_webhook_wants_costs_no_query(project, server, mona, django_assert_num_queries):
    actions.make(mona, "builds", server.url, ["round.failed"])
    project.refresh_from_db()
    assert project.webhook_events == ["round.failed"]
    with django_assert_num_queries(0):
        webhooks.emit(project, "round.started", "round:1", {})


def test_failures_are_tried_again_by_the_schedule_and_then_given_up(project, made, server):
    emit(project, "round:1")
    waits = []
    for _attempt in range(len(delivery.RETRIES)):
        server.answers[:] = [FAILED]
        assert delivery.deliver_due() == 1
        sent = WebhookDelivery.objects.get()
        last = timezone.datetime.fromisoformat(sent.log[-1]["at"])
        waits.append((sent.next_attempt_at - last).total_seconds())
        assert delivery.deliver_due() == 0  # not before its time
        due_now()
    assert waits == [5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400]
    server.answers[:] = [FAILED]
    delivery.deliver_due()
    sent = WebhookDelivery.objects.get()
    assert (sent.state, len(sent.log), {entry["status"] for entry in sent.log}) == ("failed", 10, {500})
    assert len({headers["webhook-id"] for headers, _body in server.received}) == 1
    assert len({body for _headers, body in server.received}) == 1


def test_events_of_one_object_stay_in_order_and_others_do_not_wait(project, made, server):
    for number in (1, 2, 3):
        emit(project, "round:1", number=number)
    server.answers[:] = [FAILED]
    delivery.deliver_due()
    emit(project, "round:2", number=9)
    delivery.deliver_due()
    assert [body["data"]["number"] for body in server.bodies] == [1, 9]
    due_now()
    delivery.deliver_due()
    assert [body["data"]["number"] for body in server.bodies] == [1, 9, 1, 2, 3]


def test_a_redirect_is_a_failure_and_is_not_followed(project, made, server):
    server.answers[:] = [(302, {"Location": server.url})]
    emit(project, "round:1")
    delivery.deliver_due()
    assert (WebhookDelivery.objects.get().log[0]["status"], len(server.received)) == (302, 1)
    assert WebhookDelivery.objects.get().state == "waiting"


def test_an_answer_that_never_ends_is_cut_off(project, made, server, monkeypatch):
    monkeypatch.setattr(post, "MAX_SECONDS", 0.2)
    server.drips = threading.Event()
    emit(project, "round:1")
    delivery.deliver_due()
    entry = WebhookDelivery.objects.get().log[0]
    assert entry["status"] is None
    assert "no answer within" in entry["answer"]


def test_an_address_where_nothing_listens_is_a_failure_with_its_reason(project, made, server):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    Webhook.objects.update(url=f"http://127.0.0.1:{port}/")
    emit(project, "round:1")
    delivery.deliver_due()
    assert WebhookDelivery.objects.get().log[0]["answer"] == "Connection refused"


REFUSED_ADDRESSES = (
    *("https://127.0.0.1/", "https://localhost/", "https://[::1]/", "https://[::ffff:127.0.0.1]/"),
    *("https://10.0.0.1/", "https://192.168.1.1/", "https://172.16.0.1/", "https://169.254.169.254/latest/"),
    *(
        "https://100.64.0.1/",
        "https://0.0.0.0/",
        "https://224.0.0.1/",
        "https://255.255.255.255/",
        "https://[fe80::1]/",
    ),
    *("https://[fd00::1]/", "https://[64:ff9b::7f00:1]/", "https://[2002:7f00:1::]/", "https://2130706433/"),
    *("https://0x7f.1/", "http://8.8.8.8/", "ftp://8.8.8.8/", "https://user:pass@8.8.8.8/", "https://8.8.8.8:99999/"),
    *("https:///path", "https://8.8.8.8/\r\nX: y", "javascript:alert(1)"),
)


def test_private_and_malformed_addresses_are_refused(mona):
    for url in REFUSED_ADDRESSES:
        with pytest.raises(Invalid):
            actions.make(mona, "inside", url, ["round.failed"])
    assert not Webhook.objects.exists()


def test_a_public_address_with_tls_is_accepted():
    assert addresses.resolve("https://8.8.8.8/hook?a=b") == addresses.Target(
        True, "8.8.8.8", 443, "/hook?a=b", "8.8.8.8"
    )
    assert addresses.resolve("https://[2606:4700::1111]:8443").port == 8443


def test_a_name_that_moves_to_a_private_address_reaches_nothing(project, server, mona, settings, monkeypatch):
    """DNS rebinding: the first look-up gives a public address, later ones a private one."""
    settings.WEBHOOK_NETWORKS = []
    look_ups = iter(["8.8.8.8", "127.0.0.1", "8.8.4.4", "127.0.0.1"])
    answer = lambda host, port, **named: [(2, 1, 6, "", (next(look_ups), port))]  # noqa: E731
    monkeypatch.setattr(network.socket, "getaddrinfo", answer)
    connected = []

    def connect(address, timeout):
        connected.append(address)
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(post.socket, "create_connection", connect)
    actions.make(mona, "moving", f"https://moving.example.org:{server.port}/", ["round.started"])
    for number in (1, 2):
        emit(project, f"round:{number}")
        delivery.deliver_due()
    assert connected == [("8.8.4.4", server.port)]  # the address that was checked, and no other
    assert "127.0.0.1 is not a public address" in WebhookDelivery.objects.earliest("pk").log[0]["answer"]
    assert server.received == []


def test_a_name_with_one_private_address_among_public_ones_is_refused(monkeypatch):
    answers = [(2, 1, 6, "", ("8.8.8.8", 443)), (2, 1, 6, "", ("10.0.0.1", 443))]
    monkeypatch.setattr(network.socket, "getaddrinfo", lambda *arguments, **named: answers)
    with pytest.raises(Invalid, match=r"10\.0\.0\.1 is not a public address"):
        addresses.resolve("https://mixed.example.org/")


def test_both_secrets_sign_until_the_overlap_ends(project, made, server):
    rotated = actions.rotate(made.webhook, timedelta(hours=1))
    assert rotated.secret != made.secret
    emit(project, "round:1")
    delivery.deliver_due()
    Webhook.objects.update(former_until=timezone.now())
    emit(project, "round:1")
    delivery.deliver_due()

    def expected(secret, headers, body):
        content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        digest = hmac.new(base64.b64decode(secret.removeprefix("whsec_")), content, hashlib.sha256).digest()
        return f"v1,{base64.b64encode(digest).decode()}"

    (first, second) = server.received
    secrets = [rotated.secret, made.secret]
    assert first[0]["webhook-signature"].split(" ") == [expected(secret, *first) for secret in secrets]
    assert second[0]["webhook-signature"] == expected(rotated.secret, *second)


def test_the_database_does_not_have_the_secret(made):
    stored = str(Webhook.objects.values().get())
    assert made.secret not in stored
    assert made.secret.removeprefix("whsec_") not in stored


@pytest.mark.slow
def test_a_webhook_that_fails_for_days_is_disabled_with_a_notice(project, made, server, client, manager):
    since = timezone.now() - delivery.DISABLED_AFTER + timedelta(hours=1)
    Webhook.objects.update(failing_since=since)
    server.answers[:] = [FAILED, (200, {}), FAILED]
    emit(project, "round:1")
    delivery.deliver_due()
    assert Webhook.objects.get().disabled_at is None  # not yet
    Webhook.objects.update(failing_since=since - timedelta(hours=2))
    due_now()
    delivery.deliver_due()
    assert Webhook.objects.get().failing_since is None  # a success
    Webhook.objects.update(failing_since=since - timedelta(hours=2))
    emit(project, "round:1")
    delivery.deliver_due()
    disabled = Webhook.objects.get()
    assert (disabled.disabled_why, disabled.disabled_at is None) == ("failed", False)
    entry = AuditEntry.objects.latest("pk")
    assert (entry.act, entry.actor_name, entry.via) == ("webhook.disable", "webhooks", "worker")
    project.refresh_from_db()
    assert project.webhook_events == []
    client.force_login(manager)
    page = f"/projects/support/webhooks/{disabled.pk}/"
    assert "it had failed for 5 days" in client.get(page).content.decode()
    due_now()
    assert delivery.deliver_due() == 0
    client.post(f"{page}switch/")
    due_now()
    assert delivery.deliver_due() == 1  # what waited
    assert Webhook.objects.get().disabled_at is None


def test_an_address_that_is_gone_disables_its_webhook(project, made, server):
    server.answers[:] = [(410, {})]
    emit(project, "round:1")
    delivery.deliver_due()
    assert Webhook.objects.get().disabled_why == "failed"


def test_the_answer_to_an_attempt_that_was_lost_changes_nothing(project, made, server):
    emit(project, "round:1")
    (lost,) = delivery.claim_one(WebhookDelivery.objects.get())
    assert delivery.claim_one(lost) == []  # nobody else gets it meanwhile
    due_now()  # its worker has died: after a minute it is due again
    (again,) = delivery.claim_one(lost)
    delivery.store(lost, Answer(200, "late", 1.0))
    assert WebhookDelivery.objects.get().state == "waiting"
    delivery.store(again, Answer(204, "", 1.0))
    assert [entry["status"] for entry in WebhookDelivery.objects.get().log] == [204]


def test_old_deliveries_are_deleted(project, made):
    emit(project, "round:1")
    emit(project, "round:2")
    WebhookDelivery.objects.filter(object="round:1").update(created_at=timezone.now() - timedelta(days=31))
    assert delivery.delete_old() == 1


@pytest.mark.slow
def test_rankings_and_a_completed_comparison_and_new_work_reach_the_outbox(project, made, server, annotator, colleague):
    project.refresh_from_db()
    add_work(project, 1, wanted_rankings=2)
    add_work(project, 1)  # no event: work waited already
    for person in (annotator, colleague):
        rank_next(membership(person, project))
    first, second = (person.rankings.get() for person in (annotator, colleague))
    events = list(WebhookDelivery.objects.order_by("pk").values_list("event", "data"))
    assert events[0] == ("work.waiting", {"project": "support", "comparisons": 1})
    about = {"project": "support", "comparison": first.comparison_id}
    assert events[1] == ("ranking.recorded", about | {"ranking": first.pk, "revision": 1})
    completed = [data for event, data in events if event == "comparison.completed"]
    if second.comparison_id == first.comparison_id:
        assert completed == [about | {"rankings": 2}]
    delivery.deliver_due()
    assert len(server.received) == len(events)


def test_a_file_that_brings_work_to_an_empty_queue_has_one_event(project, made, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_bytes(lines(*({"prompt": f"{n}?", "completions": ["a", "b"]} for n in range(3))))
    call_command("load", "support", file)
    (event,) = WebhookDelivery.objects.all()
    assert (event.event, event.data["comparisons"]) == ("work.waiting", 3)


def test_a_comparison_that_somebody_still_holds_is_not_completed(project, made, annotator, colleague):
    from feedback.queue import leases

    project.refresh_from_db()
    add_work(project, 1, wanted_rankings=2)
    leases.lease_next(membership(colleague, project))
    rank_next(membership(annotator, project))
    assert not WebhookDelivery.objects.filter(event="comparison.completed").exists()
    rank_next(membership(colleague, project))
    assert WebhookDelivery.objects.get(event="comparison.completed").data["rankings"] == 2


def test_gold_makes_no_event(project, made, annotator):
    project.refresh_from_db()
    added = imports.add_prompts(project, [{"prompt": "?", "completions": ["a", "b"]}])
    imports.add_gold(project, [{"completion_ids": ids, "ranks": [1, 2]} for ids in added.completion_ids])
    project.qualification_items = 1
    project.save()
    assert rank_next(membership(annotator, project)).reason == "qualification"
    assert not WebhookDelivery.objects.exists()


@pytest.mark.slow
def test_the_api_makes_changes_tests_and_deletes_a_webhook(manager, server, project):
    api = client_of(manager)
    body = {"name": "builds", "url": server.url, "events": ["round.finished", "round.failed"]}
    made = api.post(f"{URL}/webhooks", body, format="json")
    assert made.status_code == 201
    assert made.json()["secret"].startswith("whsec_")
    at = f"{URL}/webhooks/{made.json()['id']}"
    assert "secret" not in api.get(at).json()
    assert api.get(f"{URL}/webhooks").json()[0]["events"] == ["round.failed", "round.finished"] or body["events"]
    for wrong in ({"events": ["nothing"]}, {"events": []}, {"url": "http://10.0.0.1/"}, {"name": ""}):
        assert api.post(f"{URL}/webhooks", body | wrong, format="json").status_code == 400, wrong
    tested = api.post(f"{at}/test").json()
    assert (tested["event"], tested["state"], tested["attempts"][0]["status"]) == ("test", "delivered", 200)
    server.answers[:] = [FAILED]
    assert api.post(f"{at}/test").json()["state"] == "failed"
    listed = api.get(f"{at}/deliveries?state=failed").json()["rows"]
    assert [row["attempts"][0]["answer"] for row in listed] == ["answer 2"]
    again = api.post(f"{at}/deliveries/{listed[0]['id']}/redeliver").json()
    assert again["state"] == "waiting"
    assert api.post(f"{at}/deliveries/{listed[0]['id']}/redeliver").status_code == 409
    delivery.deliver_due()
    assert api.get(f"{at}/deliveries?limit=1").json()["rows"][0]["state"] == "delivered"
    assert server.received[1][0]["webhook-id"] == server.received[2][0]["webhook-id"]
    assert api.patch(at, {"is_enabled": False}, format="json").json()["disabled_why"] == "hand"
    assert api.post(f"{at}/test").status_code == 409
    assert api.post(f"{at}/rotate", {}, format="json").json()["secret"] != made.json()["secret"]
    assert api.delete(at).status_code == 204
    assert api.get(at).status_code == 404


@pytest.mark.slow
def test_the_page_makes_a_webhook_shows_its_secret_once_and_its_deliveries(client, manager, server, project):
    client.force_login(manager)
    form = {"name": "builds", "url": server.url, "events": ["round.started"]}
    refused = client.post("/projects/support/webhooks/", form | {"url": "https://10.0.0.1/"}).content.decode()
    assert "10.0.0.1 is not a public address" in refused
    page = client.post("/projects/support/webhooks/", form).content.decode()
    webhook = Webhook.objects.get()
    secret = signing.secret_of(webhook.salt)
    assert secret in page
    at = f"/projects/support/webhooks/{webhook.pk}/"
    assert secret not in client.get(at).content.decode()
    assert client.post(f"{at}test/").url == at
    assert "answer 1" in client.get(at).content.decode()
    sent = WebhookDelivery.objects.get()
    client.post(f"{at}deliveries/{sent.pk}/redeliver/")
    delivery.deliver_due()
    assert len(server.received) == 2
    assert signing.secret_of(webhook.salt) not in client.post(f"{at}rotate/", {"hours": 24}).content.decode()
    changed = client.post(at, form | {"events": ["round.failed", "trial.decided"]})
    assert changed.status_code == 302
    assert Webhook.objects.get().events == ["round.failed", "trial.decided"]
    client.post(f"{at}delete/")
    assert not Webhook.objects.exists()


def test_a_project_has_at_most_twenty_webhooks(mona, server):
    Webhook.objects.bulk_create(
        Webhook(project=mona.project, name=str(number), url=server.url, events=["round.failed"])
        for number in range(actions.MAX_WEBHOOKS)
    )
    with pytest.raises(Conflict, match="at most 20 webhooks"):
        actions.make(mona, "more", server.url, ["round.failed"])


def test_a_webhook_of_another_project_is_not_found(client, stranger, made):
    client.force_login(stranger)
    assert client.get(f"/projects/other/webhooks/{made.webhook.pk}/").status_code == 404
    assert client_of(stranger).get(f"/api/v1/projects/other/webhooks/{made.webhook.pk}").status_code == 404
