"""Import of prompts, completions and comparisons, and export of preferences, over HTTP."""

import json

import pytest

from feedback import imports
from feedback.models import Comparison, Import, Prompt, Source
from tests.factories import URL, lines, rank_next, rows_of

pytestmark = pytest.mark.django_db

JSON_LINES = "application/x-ndjson"


def send(client, path, body, content_type=JSON_LINES):
    return client.post(f"{URL}/{path}", body, content_type=content_type)


def test_prompts_are_imported_as_json_lines(as_manager, project):
    body = lines({"prompt": "a", "external_id": "1"}, {"messages": [{"role": "user", "content": "b"}]})
    response = send(as_manager, "prompts", body)
    assert response.status_code == 201
    assert response.json() == {
        "prompt_ids": list(Prompt.objects.order_by("pk").values_list("pk", flat=True)),
        "created": 2,
        "changed": 0,
        "completion_ids": [[], []],
        "comparison_ids": [None, None],
        "comparisons": 0,
        "compared_before": 0,
        "import_id": Import.objects.get().pk,
    }


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/jsonl", "text/plain", "application/x-www-form-urlencoded"]
)
def test_the_content_type_does_not_matter(as_manager, project, content_type):
    assert send(as_manager, "prompts", lines({"prompt": "a"}), content_type).json()["created"] == 1


def test_prompts_with_completions_become_comparisons(as_manager, project):
    body = lines({"prompt": "a", "completions": ["x", "y"]}, {"prompt": "b"})
    assert send(as_manager, "prompts?compare=1", body).json()["comparisons"] == 1
    assert Comparison.objects.get().texts() == ["x", "y"]


def test_sending_the_file_twice_adds_it_once(as_manager, project):
    body = lines({"prompt": "a", "external_id": "1"})
    first, second = send(as_manager, "prompts", body).json(), send(as_manager, "prompts", body).json()
    assert (first["created"], second["created"]) == (1, 0)
    assert first["prompt_ids"] == second["prompt_ids"]


def test_an_empty_body_is_refused(as_manager, project):
    answer = send(as_manager, "prompts", b"")
    assert answer.status_code == 400 and "There are no rows" in answer.json()["message"]


def test_a_byte_order_mark_and_windows_line_ends_are_accepted(as_manager, project):
    body = b"\xef\xbb\xbf" + lines({"prompt": "a"}, {"prompt": "b"}).replace(b"\n", b"\r\n")
    assert send(as_manager, "prompts", body).json()["created"] == 2


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (b"{", "The text is not JSON"),
        (b"\xff\xfe", "The text is not UTF-8"),
        (b"", "The line is empty"),
        (b'{"prompt": NaN}', "NaN"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"prompt": ' + b"9" * 5000 + b"}", "number with too many digits"),
        (b'{"prompt": "\\u0000"}', "NUL"),
        (b'{"prompt": "\\ud800"}', "surrogate"),
        (b'{"prompt": 3}', "must be a text"),
        (b'"prompt"', "must be an object"),
    ],
)
def test_a_bad_line_is_reported_by_number_and_nothing_is_stored(as_manager, project, line, sentence):
    response = send(as_manager, "prompts", b'{"prompt": "good"}\n' + line + b'\n{"prompt": "good too"}\n')
    assert response.status_code == 400
    assert sentence in response.json()["message"]
    assert response.json()["errors"][0]["line"] == 2
    assert not Prompt.objects.exists()


def test_every_bad_line_is_reported(as_manager, project):
    response = send(as_manager, "prompts", b'{\n{"prompt": "good"}\n{"prompt": ""}\n{"x": 1}\n')
    assert [error["line"] for error in response.json()["errors"]] == [1, 3, 4]


def test_a_body_over_the_limit_is_refused(as_manager, project, settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 2 * 1024 * 1024
    response = send(as_manager, "prompts", lines(*({"prompt": f"{n} " + "x" * 1000} for n in range(3000))))
    assert response.status_code == 413
    assert "2 MiB" in response.json()["message"]
    assert not Prompt.objects.exists()


def test_completions_are_imported_under_one_source(as_manager, project):
    send(as_manager, "prompts", lines({"prompt": "a", "external_id": "1"}))
    response = send(as_manager, "completions?source=old+model", lines({"external_id": "1", "text": "x"}))
    assert response.status_code == 201
    source = Source.objects.get()
    assert (source.name, source.kind) == ("old model", "import")
    assert response.json()["completion_ids"] == [source.completions.get().pk]


def test_a_refused_file_leaves_no_source_behind(as_manager, project):
    assert send(as_manager, "completions?source=x", lines({"external_id": "1", "text": "x"})).status_code == 400
    assert not Source.objects.exists()


def test_completions_need_a_source(as_manager, project):
    response = send(as_manager, "completions", lines({"external_id": "1", "text": "x"}))
    assert response.status_code == 400
    assert "source" in response.json()["message"]


def test_comparisons_are_made_of_completions(as_manager, project):
    (ids,) = imports.add_prompts(project, [{"prompt": "a", "completions": ["x", "y", "y "]}]).completion_ids
    body = lines({"completion_ids": ids}, {"completion_ids": ids[1:]})
    response = send(as_manager, "comparisons?wanted_rankings=3&priority=2", body)
    assert response.status_code == 201
    comparison = Comparison.objects.get()
    assert response.json() == {"comparison_ids": [comparison.pk, None], "import_id": Import.objects.get().pk}
    assert (comparison.wanted_rankings, comparison.priority, comparison.size) == (3, 2, 2)


@pytest.mark.parametrize("row", [{}, {"completion_ids": "1"}, {"completion_ids": [1, "2"]}, {"ids": [1, 2]}, [1, 2]])
def test_comparisons_that_cannot_be_made_make_nothing(as_manager, project, row):
    response = send(as_manager, "comparisons", lines(row))
    # A row without ids has nothing to compare, as a group of one has.
    assert response.status_code == 400 or response.json() == {"comparison_ids": [None], "import_id": None}
    assert not Comparison.objects.exists()


@pytest.mark.parametrize("query", ["wanted_rankings=0", "wanted_rankings=x", "priority=99999"])
def test_comparisons_with_a_bad_query_are_400(as_manager, project, query):
    assert send(as_manager, f"comparisons?{query}", b"").status_code == 400


def test_preferences_are_exported_for_trl(as_manager, ann, work):
    work(1, size=3)
    rank_next(ann)
    response = as_manager.get(f"{URL}/preferences?split=all")
    assert response["Content-Type"] == JSON_LINES
    assert response["Accord-Cursor"] == "1"
    rows = rows_of(response)
    assert len(rows) == 3
    assert set(rows[0]) >= {"prompt", "chosen", "rejected"}


@pytest.mark.parametrize("accepted", [JSON_LINES, "text/html", "application/json"])
def test_the_accept_header_of_a_client_is_ignored(as_manager, accepted):
    for path in (f"{URL}/preferences", URL):
        assert as_manager.get(path, headers={"accept": accepted}).status_code == 200


def test_whole_rankings_can_be_exported(as_manager, ann, work):
    work(1, size=3)
    rank_next(ann, [2, 1, 1])
    (row,) = rows_of(as_manager.get(f"{URL}/preferences?format=rankings"))
    assert sorted(row["ranks"]) == [1, 1, 2]
    assert len(row["completions"]) == 3


def test_a_reader_continues_from_the_cursor(as_manager, ann, work):
    work(4)
    for _ in range(3):
        rank_next(ann)
    first = as_manager.get(f"{URL}/preferences?format=rankings")
    rank_next(ann)
    second = as_manager.get(f"{URL}/preferences?format=rankings&after={first['Accord-Cursor']}")
    assert [len(rows_of(response)) for response in (first, second)] == [3, 1]
    third = as_manager.get(f"{URL}/preferences?format=rankings&after={second['Accord-Cursor']}")
    assert rows_of(third) == []
    assert third["Accord-Cursor"] == "4"


def test_an_export_can_be_limited_to_one_split(as_manager, ann, work):
    work(10)
    while rank_next(ann):
        pass
    rows = rows_of(as_manager.get(f"{URL}/preferences?format=rankings&split=held_out"))
    assert {row["split"] for row in rows} <= {"held_out"}


@pytest.mark.parametrize("query", ["format=csv", "after=x", "after=-1", f"after={2**64}", "split=test"])
def test_a_bad_query_is_400(as_manager, project, query):
    response = as_manager.get(f"{URL}/preferences?{query}")
    assert response.status_code == 400
    assert response.json()["message"]


def test_an_empty_project_is_an_empty_file(as_manager, project):
    assert rows_of(as_manager.get(f"{URL}/preferences")) == []


def test_demonstrations_are_exported(as_manager, ann, work):
    (comparison,) = work(1)
    imports.add_demonstration(ann, comparison.prompt, "like this")
    (row,) = rows_of(as_manager.get(f"{URL}/demonstrations"))
    assert row["completion"] == "like this"
    json.dumps(row)
