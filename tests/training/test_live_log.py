"""End of a running program's log: read, stored with the heartbeat, and shown on the round's page."""

import pytest
from django.test import Client

from training.models import Round
from training.rounds import lifecycle
from training.run_round.heartbeat import Heartbeat
from training.run_round.log import TAIL_BYTES, LogTail, end_of

STATUS = "/projects/support/rounds/1/status/"


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log.txt"


def test_the_end_of_a_log_is_whole_lines_of_at_most_four_kilobytes(log):
    log.write_text("".join(f"Zeile {n} über alles\n" for n in range(1000)))
    lines = end_of(log).split("\n")
    assert lines == [f"Zeile {n} über alles" for n in range(1000 - len(lines), 1000)]
    size = len("\n".join(lines).encode()) + 1
    assert TAIL_BYTES - len("Zeile 999 über alles\n".encode()) <= size <= TAIL_BYTES
    log.write_text("short")
    assert end_of(log) == "short"
    log.write_bytes(b"\xbc" * 5000)  # one line, which begins inside of a character
    assert end_of(log) == "\ufffd" * TAIL_BYTES


def test_the_end_of_a_log_has_no_control_characters(log):
    log.write_bytes(
        b" 10%|#\r 55%|##\r100%|###\r\n\x1b[31mred\x1b[0m\x00 \x1b]0;title\x07a\tb\n\xe2\x80\xaeturned\x07\n\n"
    )
    assert end_of(log) == "100%|###\nred a    b\nturned"


def test_a_log_is_read_again_only_once_it_has_grown(log, monkeypatch):
    monkeypatch.setattr("training.run_round.log.READ_EVERY", 0.0)
    texts = []
    tail = LogTail(log, texts.append)
    tail.follow()
    log.write_text("one\n")
    tail.follow()
    tail.follow()
    with log.open("a") as file:
        file.write("two\n")
    tail.follow()
    assert texts == ["one", "one\ntwo"]


def test_the_heartbeat_stores_the_log_where_it_changed_unless_the_claim_is_lost(claim, django_assert_num_queries):
    heartbeat = Heartbeat(claim)
    heartbeat.log_tail = "step 1"
    heartbeat._beat_once()
    assert Round.objects.get(pk=claim.round_id).log_tail == "step 1"
    with django_assert_num_queries(2) as queries:
        heartbeat._beat_once()
    assert not any("log_tail" in query["sql"].split("WHERE")[0] for query in queries if "UPDATE" in query["sql"])
    lifecycle.release(claim)
    lifecycle.claim(claim.round_id, "gpu-2:200")
    heartbeat.log_tail = "step 2"
    heartbeat._beat_once()
    assert heartbeat.is_lost
    assert Round.objects.get(pk=claim.round_id).log_tail == "", "the next worker's round has a log of its own"


@pytest.mark.slow
def test_a_poll_gets_the_log_only_where_it_changed(claim, manager):
    client = Client(headers={"HX-Request": "true"})
    client.force_login(manager)
    page = Client()
    page.force_login(manager)
    assert "has printed nothing yet" in page.get("/projects/support/rounds/1/").content.decode()
    lifecycle.beat(claim, "step 1 <b>of 9</b>")
    first = client.get(STATUS, {"log": "00000000"})
    assert "step 1 &lt;b&gt;of 9&lt;/b&gt;</pre>" in first.content.decode()
    version = first.context["log_version"]
    assert "step 1" not in client.get(STATUS, {"log": version}).content.decode()
    lifecycle.beat(claim, "step 2")
    assert "step 2</pre>" in client.get(STATUS, {"log": version}).content.decode()
    shown = page.get("/projects/support/rounds/1/").content.decode()
    assert "step 2</pre>" in shown and "<details open" not in shown
