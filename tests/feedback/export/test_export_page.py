"""The export page: contents of each format, code that reads it, and a download that equals the API's."""

import json
from uuid import uuid4

import pytest
from django.utils import translation

from feedback.actions import rankings, reviews
from feedback.export.formats import registry
from feedback.models import Completion, Prompt
from feedback.reports import preference_export
from tests.factories import URL, add_work, client_of, rank_next, rows_of

pytestmark = [pytest.mark.slow, pytest.mark.django_db, pytest.mark.usefixtures("plain_static_files")]
PAGE = "/projects/support/export/"
FILE = f"{PAGE}file/"


@pytest.fixture
def ranked(ann, mona, project):
    """Rankings of 2 and 4 completions with and without ties; one was revised, one was discarded."""
    add_work(project, 12)
    add_work(project, 4, size=4)
    made = []
    while ranking := rank_next(ann):
        made.append(ranking)
    for ranking in made[::3]:  # each third one gets a tie
        ranks = [1, 1, *range(2, ranking.size)]
        rankings.revise_ranking(ann, ranking.pk, ranks, idempotency_key=uuid4(), seconds=1.0)
    Prompt.objects.filter(pk=made[0].comparison.prompt_id).update(split="held_out")
    reviews.discard(mona, made[1].pk, reason="no")


@pytest.fixture
def browser(client, manager):
    client.force_login(manager)
    return client


def test_the_page_counts_the_lines_that_an_export_has(browser, project, ranked):
    cards = browser.get(PAGE).context["cards"]
    assert {card.name for card in cards} == set(registry.names())
    for card in cards:
        for split, count in card.lines.items():
            rows = list(preference_export.export(project, card.name, split=split).rows)
            assert count == len(rows), (card.name, split)
        assert sum(card.lines.values()) > 5


@pytest.mark.parametrize(
    "query",
    ["format=trl", "format=rankings&split=all", "format=table&after=9", "format=trl&split=held_out&weights=equal"],
)
def test_the_download_is_that_of_the_api(browser, manager, ranked, query):
    page, api = browser.get(f"{FILE}?{query}"), client_of(manager).get(f"{URL}/preferences?{query}")
    assert page.status_code == api.status_code == 200
    assert rows_of(page) == rows_of(api)
    names = ("Content-Type", "Content-Disposition", "ETag", "Accord-Cursor", "Cache-Control")
    assert [page[name] for name in names] == [api[name] for name in names]


def test_fields_left_empty_mean_the_defaults(browser, project, ranked):
    rows = rows_of(browser.get(f"{FILE}?format=trl&split=&weights=&after="))
    assert rows == json.loads(json.dumps(list(preference_export.export(project).rows)))


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("format=trl&after=99", "the record ends at 23"),
        ("format=trl&after=-1", "greater than or equal to 0"),
        ("format=csv", "csv is not one of the available choices"),
        ("format=trl&file=csv", "cannot be written as csv"),
        ("", "This field is required"),
    ],
)
def test_an_invalid_choice_is_an_error_on_the_page(browser, ranked, query, sentence):
    answer = browser.get(f"{FILE}?{query}")
    assert answer.status_code == 400
    assert sentence in answer.content.decode()
    assert "Content-Disposition" not in answer.headers


def test_the_page_shows_the_first_rows_of_the_choice(browser, project, ranked):
    until = preference_export.export(project).cursor
    query = f"format=trl&split=all&annotator=ann&until={until}"
    answer = browser.get(f"{PAGE}?{query}")
    rows = rows_of(browser.get(f"{FILE}?{query}"))
    assert [json.loads(text) for text in answer.context["preview"]] == rows[:3]
    assert answer.context["form"].has_filters
    assert browser.get(PAGE).context["preview"] is None


def test_long_texts_are_shortened_and_a_choice_without_rows_says_so(browser, project, ranked):
    Completion.objects.update(text="x" * 1000)
    assert f'"{"x" * 300}…"' in browser.get(f"{PAGE}?format=rankings").context["preview"][0]
    assert "No ranking passes these filters." in browser.get(f"{PAGE}?format=trl&round=7").content.decode()
    refused = browser.get(f"{PAGE}?format=trl&source=nobody")
    assert (refused.status_code, refused.context["preview"]) == (400, None)


def test_an_empty_project_has_a_page_and_an_empty_file(browser, project):
    assert all(set(card.lines.values()) == {0} for card in browser.get(PAGE).context["cards"])
    assert rows_of(browser.get(f"{FILE}?format=trl")) == []


def test_the_code_for_each_format_is_python_that_names_the_downloaded_file(browser, ranked):
    for card in browser.get(PAGE).context["cards"]:
        compile(card.reading, card.name, "exec")
        name = browser.get(f"{FILE}?format={card.name}")["Content-Disposition"].partition("filename=")[2].strip('"')
        assert f'"{name}"' in card.reading
        assert card.command.endswith(f"> {name}")


def test_the_code_for_rankings_reads_them(browser, ranked, tmp_path, monkeypatch):
    card = next(card for card in browser.get(PAGE).context["cards"] if card.name == "rankings")
    monkeypatch.chdir(tmp_path)
    answer = browser.get(f"{FILE}?format=rankings")
    (tmp_path / "support-rankings.jsonl").write_bytes(content := b"".join(answer))
    values: dict = {}
    exec(card.reading, values)
    assert values["rows"] == [json.loads(line) for line in content.splitlines()]


def test_the_page_is_in_the_readers_language(browser, ranked):
    with translation.override("en"):  # the request leaves its language active in this thread
        page = browser.get(PAGE, headers={"Accept-Language": "zh-CN"}).content.decode()
    assert "每行是一个排序" in page
    assert "One line is" not in page


def test_the_description_of_the_api_stays_in_english():
    with translation.override("zh-hans"):
        assert "a ranking with ties" in registry.descriptions()
        assert "a ranking with ties" in registry.markdown_table()
