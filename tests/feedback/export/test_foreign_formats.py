"""Formats of other tools: lines written by hand for two rankings, and what a reader by cursor gets."""

from uuid import uuid4

import pytest

from feedback.actions import ranking_undo, rankings
from feedback.export.formats import FORMATS
from feedback.export.reader import Reader
from feedback.reports import preference_export
from tests.factories import URL, client_of, rank_next, rows_of

SYSTEM, ASK = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a prime."}
TRANSCRIPT = "\n\nSystem: Be brief.\n\nHuman: Name a prime.\n\nAssistant: "
IDENTITY = {
    "ranking_id": 7,
    "revision": 1,
    "comparison_id": 5,
    "prompt_id": 3,
    "split": "train",
    "annotator": "annotator-9",
}
CREATED = "2026-11-29T00:00:00.000000+00:00"
UNIX = 1795910400.0  # the same moment: 20,786 days of 86,400 s after 1970
PAIR_COLUMNS = {
    **IDENTITY,
    "external_id": "q1",
    "strength": 0,
    "trial": 0,
    "weight": 0.5,
    "chosen_source": "round-1",
    "rejected_source": "base",
    "created_at": CREATED,
}


def answer(text):
    return [{"role": "assistant", "content": text}]


@pytest.fixture
def ranking():
    """Three completions: the second is best, the others are tied. They were shown in the order third, first, second."""
    return {
        **IDENTITY,
        "sequence": 11,
        "messages": [SYSTEM, ASK],
        "completions": ["4", "7", ""],
        "completion_ids": [21, 22, 23],
        "sources": ["base", "round-1", "base"],
        "ranks": [2, 1, 2],
        "display_order": [2, 0, 1],
        "weight": 0.5,
        "reliability": None,
        "strength": None,
        "flags": [],
        "ratings": {},
        "spans": [],
        "seconds": 12.5,
        "reason": "sampled",
        "trial": None,
        "external_id": "q1",
        "references": [],
        "metadata": {"language": "English"},
        "sampling": [{}, {}, {}],
        "comment": "",
        "created_at": CREATED,
    }


def lines_of(name, *rankings, after=0):
    return list(FORMATS[name].convert(iter(rankings), Reader(after)))


def conversational(worse):
    return {"prompt": [SYSTEM, ASK], "chosen": answer("7"), "rejected": answer(worse)}


def implicit(worse):
    return {"chosen": [SYSTEM, ASK, *answer("7")], "rejected": [SYSTEM, ASK, *answer(worse)]}


def standard(worse):
    return {"prompt": TRANSCRIPT, "chosen": "7", "rejected": worse}


def transcripts(worse):
    return {"chosen": f"{TRANSCRIPT}7", "rejected": f"{TRANSCRIPT}{worse}"}


@pytest.mark.parametrize(
    ("name", "pair"),
    [("trl", conversational), ("trl-implicit", implicit), ("trl-standard", standard), ("hh", transcripts)],
)
def test_pairs_are_written_in_the_form_of_each_tool(ranking, name, pair):
    assert lines_of(name, ranking) == [pair("4") | PAIR_COLUMNS, pair("") | PAIR_COLUMNS]


def test_the_prompt_of_one_message_is_its_text(ranking):
    assert lines_of("trl-standard", ranking | {"messages": [ASK]})[0]["prompt"] == "Name a prime."


def test_openai_gets_its_fields_only(ranking):
    first, second = lines_of("openai-dpo", ranking)
    assert first == {
        "input": {"messages": [SYSTEM, ASK], "tools": [], "parallel_tool_calls": True},
        "preferred_output": answer("7"),
        "non_preferred_output": answer("4"),
    }
    assert second["non_preferred_output"] == answer("")


def test_kto_labels_the_best_and_the_worst(ranking):
    rows = lines_of("kto", ranking | {"ranks": [2, 1, 3]})
    assert [(row["completion"], row["label"], row["source"]) for row in rows] == [
        (answer("7"), True, "round-1"),
        (answer(""), False, "base"),
    ]
    assert lines_of("kto", ranking | {"ranks": [1, 1, 1]}) == []


def test_a_battle_names_the_source_shown_first_a(ranking):
    rows = lines_of("arena", ranking)
    assert [(row["model_a"], row["model_b"], row["winner"]) for row in rows] == [
        ("base", "base", "tie"),
        ("base", "round-1", "model_b"),
        ("base", "round-1", "model_b"),
    ]
    assert rows[0]["conversation_a"] == [SYSTEM, ASK, *answer("")]
    assert rows[0]["conversation_b"] == [SYSTEM, ASK, *answer("4")]
    assert {name: rows[0][name] for name in ("question_id", "judge", "turn", "anony", "language", "tstamp")} == {
        "question_id": "q1",
        "judge": "annotator-9",
        "turn": 1,
        "anony": True,
        "language": "English",
        "tstamp": UNIX,
    }
    bad = lines_of("arena", ranking | {"flags": ["all bad"], "ranks": [1, 1, 1]})
    assert {row["winner"] for row in bad} == {"tie (bothbad)"}


def test_argilla_gets_a_record_with_one_persons_ranking(ranking):
    (record,) = lines_of("argilla", ranking | {"ranks": [2, 1, 3]})
    assert record["responses"] == {
        "preference": [{"value": ["response-2", "response-1", "response-3"], "user_id": "annotator-9"}]
    }
    assert record["fields"]["response-2"] == "7"
    assert lines_of("argilla", ranking) == []


def test_label_studio_gets_a_task_with_buckets_that_hold_ties(ranking):
    (task,) = lines_of("label-studio", ranking)
    assert [(item["id"], item["body"]) for item in task["data"]["items"]] == [("1", "4"), ("2", "7"), ("3", "")]
    (result,) = task["annotations"][0]["result"]
    assert result["value"] == {"ranker": {"rank-1": ["2"], "rank-2": ["1", "3"]}}
    assert task["annotations"][0]["lead_time"] == 12.5


def test_a_dialogue_is_written_as_messages_and_as_a_transcript(ranking):
    turns = [*answer("Which one?"), {"role": "user", "content": "Any."}, *answer("7")]
    dialogue = ranking | {"turns": [None, turns, None], "completions": ["4", "…", ""], "ranks": [2, 1, 3]}
    assert lines_of("trl-standard", dialogue)[0]["chosen"] == "Which one?\n\nHuman: Any.\n\nAssistant: 7"
    assert lines_of("trl-implicit", dialogue)[0]["chosen"] == [SYSTEM, ASK, *turns]
    assert lines_of("hh", dialogue)[0]["chosen"] == f"{TRANSCRIPT}Which one?\n\nHuman: Any.\n\nAssistant: 7"


@pytest.mark.parametrize("name", ["trl", "trl-implicit", "trl-standard", "kto", "hh"])
def test_a_revision_that_ties_all_retracts_the_lines_of_the_earlier_one(ranking, name):
    tied = ranking | {"ranks": [1, 1, 1], "revision": 2}
    assert lines_of(name, tied) == []
    assert lines_of(name, tied, after=11) == [
        {**{field: tied[field] for field in (*IDENTITY, "sequence")}, "retracted": "tied"}
    ]


@pytest.mark.slow
@pytest.mark.django_db
def test_every_format_has_as_many_lines_as_the_page_says(ann, manager, project, work):
    work(6, size=3)
    while rank_next(ann):
        pass
    counts = preference_export.count_lines(project)
    api = client_of(manager)
    for name in FORMATS:
        rows = rows_of(api.get(f"{URL}/preferences?format={name}&split=all"))
        assert len(rows) == sum(counts[name].values()) > 0, name


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["openai-dpo", "argilla", "label-studio"])
def test_a_format_without_a_place_for_retractions_has_no_cursor(ann, manager, project, work, name):
    work(1)
    rank_next(ann)
    api = client_of(manager)
    cursor = api.get(f"{URL}/preferences?format=rankings")["Accord-Cursor"]
    refused = api.get(f"{URL}/preferences?format={name}&after={cursor}")
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid")
    assert "from the beginning" in refused.json()["message"]


@pytest.mark.slow
@pytest.mark.django_db
def test_an_export_until_a_cursor_is_the_same_after_later_rankings_and_revisions(ann, cole, manager, project, work):
    work(4, size=3)
    first = rank_next(ann)
    rank_next(ann)
    api = client_of(manager)
    cursor = int(api.get(f"{URL}/preferences")["Accord-Cursor"])

    def files():
        queries = [f"format={name}&split=all&until={cursor}" for name in FORMATS]
        return [b"".join(api.get(f"{URL}/preferences?{query}").streaming_content) for query in queries]

    before = files()
    rankings.revise_ranking(ann, first.pk, [3, 2, 1], idempotency_key=uuid4(), seconds=1.0)
    rank_next(cole)
    ranking_undo.undo_last(ann)
    assert files() == before
    now = api.get(f"{URL}/preferences?format=rankings&split=all")
    assert int(now["Accord-Cursor"]) > cursor
    assert b"".join(now.streaming_content) not in before


@pytest.mark.django_db
@pytest.mark.parametrize(("query", "said"), [("until=2", "record ends at 1"), ("after=1&until=0", "beyond")])
def test_a_cursor_out_of_order_is_refused(ann, manager, project, work, query, said):
    work(1)
    rank_next(ann)
    refused = client_of(manager).get(f"{URL}/preferences?{query}")
    assert refused.status_code == 400
    assert said in refused.json()["message"]
