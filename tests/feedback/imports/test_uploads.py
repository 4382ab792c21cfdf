"""Import page and API: the first rows before anything is stored, another map, steps of the worker, stop and report."""

import csv
import io
import json

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from feedback import imports
from feedback.errors import Conflict, Invalid, TooLarge
from feedback.imports import uploads
from feedback.imports.maps import find
from feedback.models import Import, Prompt, Ranking
from tests.factories import URL, client_of, lines

pytestmark = [pytest.mark.slow, pytest.mark.django_db]

PAGE = "/projects/support/imports/"
PAIRS = [{"prompt": f"{number}?", "chosen": "yes", "rejected": "no"} for number in range(3)]


@pytest.fixture(autouse=True)
def _own_folder(settings, tmp_path):
    settings.DATA_DIR = tmp_path


@pytest.fixture
def browser(client, manager, plain_static_files):
    client.force_login(manager)
    return client


def upload(browser, content, name="pairs.jsonl"):
    return browser.post(PAGE, {"file": SimpleUploadedFile(name, content)}, follow=True)


@pytest.fixture
def draft(project):
    def add(content, **fields):
        return uploads.add_upload(project, "pairs.jsonl", [content], how="page", actor=None, **fields)

    return add


def test_the_first_rows_are_shown_as_mapped_and_nothing_is_stored(browser, project):
    page = upload(browser, lines(*PAIRS)).content.decode()
    assert "TRL: preferences" in page
    assert "rank 1" in page and "rank 2" in page
    assert not Prompt.objects.exists()
    record = Import.objects.get()
    page = browser.post(f"{PAGE}{record.pk}/start/", {"compare": "on"}, follow=True).content.decode()
    assert "What it made" in page
    assert Ranking.objects.count() == 3
    assert list(uploads.folder().iterdir()) == []
    report = json.loads(browser.get(f"{PAGE}{record.pk}/report/").content)
    assert (report["rows"], report["imported"], report["map"]) == (3, 3, "trl")
    assert browser.post(f"/projects/support/imports/{record.pk}/undo/").status_code == 302
    assert not Ranking.objects.exists()


def test_another_map_or_other_columns_may_be_chosen(browser, project):
    page = upload(browser, lines({"q": "Why?", "good": "a", "bad": "b"})).content.decode()
    assert "The format was not recognised" in page
    record = Import.objects.get()
    page = browser.post(f"{PAGE}{record.pk}/map/", {"map": "shp"}, follow=True).content.decode()
    assert "The row has no &quot;history&quot;." in page
    own = 'name = "own"\ntitle = "Own"\n[prompt]\ntext = "q"\n[completions]\ncolumns = ["good", "bad"]\n'
    page = browser.post(f"{PAGE}{record.pk}/map/", {"own": "1", "columns": own + "["}, follow=True).content.decode()
    assert "The map is not TOML" in page
    own += "[judgement]\nfirst_is_best = true\n"
    browser.post(f"{PAGE}{record.pk}/map/", {"own": "1", "columns": own})
    browser.post(f"{PAGE}{record.pk}/start/", {})
    assert Ranking.objects.get().ranks == [1, 2]


def test_a_file_that_cannot_be_read_is_refused_and_leaves_nothing(browser, project):
    assert "neither JSON nor CSV" in upload(browser, b"words").content.decode()
    assert not Import.objects.exists()
    assert list(uploads.folder().iterdir()) == []


def test_a_large_file_waits_for_the_worker_which_goes_on_where_it_was(draft, monkeypatch):
    monkeypatch.setattr(uploads, "SMALL", 1)
    monkeypatch.setattr(uploads, "STEP_SECONDS", 0.0)
    monkeypatch.setattr("feedback.imports.loading.BATCH_SIZE", 2)
    record = uploads.start(draft(lines(*PAIRS)))
    assert (record.state, Ranking.objects.count()) == ("waiting", 0)
    assert uploads.run_waiting()
    assert Ranking.objects.count() == 2
    while uploads.run_waiting():
        pass
    record.refresh_from_db()
    assert (record.state, record.report["rows"], record.report["imported"]) == ("finished", 3, 3)
    assert Ranking.objects.count() == 3
    assert not uploads.run_waiting()


def test_a_stopped_import_keeps_what_it_has_stored(draft, project, monkeypatch):
    monkeypatch.setattr(uploads, "SMALL", 1)
    monkeypatch.setattr(uploads, "STEP_SECONDS", 0.0)
    monkeypatch.setattr("feedback.imports.loading.BATCH_SIZE", 2)
    record = uploads.start(draft(lines(*PAIRS)))
    uploads.run_waiting()
    with pytest.raises(Conflict, match="is running"):
        imports.undo_import(record, None)
    uploads.stop(record)
    assert not uploads.run_waiting()
    record.refresh_from_db()
    assert (record.state, record.report["stopped"], Ranking.objects.count()) == ("failed", "It was stopped.", 2)
    assert imports.undo_import(record, None).removed["rankings"] == 2


def test_an_import_may_end_at_its_first_bad_row_with_what_came_before(draft, browser):
    bad = {"prompt": "x", "chosen": "=1", "rejected": 2}
    record = uploads.start(draft(lines(*PAIRS[:2], bad, PAIRS[2])), stop_at_error=True)
    assert (record.state, record.report["rows"], record.report["imported"]) == ("failed", 3, 2)
    assert record.report["stopped"].startswith("It stopped at line 3, as you asked: ")
    assert (Ranking.objects.count(), record.counts["rankings"]) == (2, 2)
    again = uploads.start(draft(lines(*PAIRS)), stop_at_error=True)
    assert (again.state, again.report["imported"], again.report["unchanged"]) == ("finished", 1, 2)


def test_the_rows_that_were_left_out_can_be_downloaded(draft, browser):
    record = uploads.start(draft(lines(*PAIRS, {"prompt": "x", "chosen": {"=1": 2}, "rejected": "b"}, {})))
    report = f"{PAGE}{record.pk}/report/"
    listed = [json.loads(line) for line in browser.get(f"{report}?rows=jsonl").content.splitlines()]
    assert [(error["line"], error["field"]) for error in listed] == [(4, "chosen"), (5, "chosen")]
    table = list(csv.DictReader(io.StringIO(browser.get(f"{report}?rows=csv").content.decode())))
    assert [row["reason"] for row in table] == [error["reason"] for error in listed]
    Import.objects.filter(pk=record.pk).update(
        report=record.report | {"errors": [{"line": 1, "field": "", "value": "=HYPERLINK(1)", "reason": "r"}]}
    )
    assert browser.get(f"{report}?rows=csv").content.decode().splitlines()[1] == "1,,'=HYPERLINK(1),r"


def test_an_import_starts_once_and_only_with_a_map(draft):
    record = draft(lines({"q": 1}))
    with pytest.raises(Invalid, match="Choose a map first"):
        uploads.start(record)
    uploads.choose_map(record, find("trl"))
    record.refresh_from_db()
    uploads.start(record)
    with pytest.raises(Conflict, match="started already"):
        uploads.choose_map(record, find("trl"))


def test_a_large_strict_import_is_refused(draft, monkeypatch):
    monkeypatch.setattr(uploads, "SMALL", 1)
    with pytest.raises(TooLarge):
        uploads.start(draft(lines(*PAIRS)), strict=True)


def test_a_file_is_imported_by_the_api_with_its_report(project, manager):
    api = client_of(manager)
    body = lines(*PAIRS, {"prompt": "x", "chosen": 1, "rejected": "b"})
    answer = api.post(f"{URL}/imports?name=pairs.jsonl", body, content_type="application/octet-stream")
    assert answer.status_code == 201, answer.content
    made = answer.json()
    assert (made["state"], made["map"], made["counts"]["rankings"]) == ("finished", "trl", 3)
    assert (made["report"]["imported"], made["report"]["errors"][0]["field"]) == (3, "chosen")
    assert api.get(f"{URL}/imports/{made['id']}").json() == made
    assert api.delete(f"{URL}/imports/{made['id']}").json()["removed"]["rankings"] == 3


@pytest.mark.parametrize(
    ("query", "body", "reason"),
    [
        ("", b"", "empty"),
        ("", b'{"a": 1}\n', "not recognised"),
        ("?map=shq", b"{}", "shq"),
        ("?strict=true", b"{}", ""),
    ],
)
def test_a_file_that_the_api_cannot_import_is_400_and_leaves_nothing(project, manager, query, body, reason):
    answer = client_of(manager).post(f"{URL}/imports{query}", body, content_type="text/plain")
    assert answer.status_code == 400
    assert reason in answer.content.decode()
    assert not Import.objects.exists()
