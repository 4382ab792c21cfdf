"""Trials by API: start one from imported completions, follow the evidence, end it."""

import pytest

from feedback.models import Comparison, Project, Ranking
from feedback.quality.trial_evidence import ALPHA, confidence_sequence
from tests.factories import URL, lines, rank_by_position

pytestmark = [pytest.mark.slow, pytest.mark.django_db]

TRIALS = f"{URL}/trials"
BODY = {"sources": ["model-a", "model-b"], "share": 100}


@pytest.fixture
def imported(as_manager):
    """Import answers of two models to five prompts, without comparisons of the project's own."""
    rows = [
        {
            "prompt": f"question {n}",
            "completions": [{"text": f"{name} {n}", "source": name} for name in ("model-a", "model-b")],
        }
        for n in range(5)
    ]
    body = lines(*rows)
    answer = as_manager.post(f"{URL}/prompts?compare=false", body, content_type="application/x-ndjson")
    assert answer.status_code == 201
    return answer.json()["completion_ids"]


def test_two_imported_models_are_compared_without_a_round(as_manager, imported, ann):
    started = as_manager.post(TRIALS, BODY | {"worthwhile_share": 0.55}, format="json")
    assert started.status_code == 201
    assert started.json()["comparisons"] == started.json()["left"] == 5
    for ranks in ([2, 1], [2, 1], [1, 2], [1, 1]):
        rank_by_position(ann, ranks)
    trial = as_manager.get(f"{TRIALS}/1").json()
    (pair,) = trial.pop("pairs")
    low, high = confidence_sequence(2, 1, ALPHA)
    assert pair == {
        "candidate": "model-b", "other": "model-a", "wins": 2, "losses": 1, "ties": 1, "identical": 0,
        "win_share": pytest.approx(2 / 3), "low": pytest.approx(low), "high": pytest.approx(high),
        "win_rate": 0.625, "decision": "open", "decided_after": None,
    }  # fmt: skip
    assert {name: trial[name] for name in trial if not name.endswith("_at")} == {
        "number": 1, "status": "open", "sources": ["model-a", "model-b"], "share": 100, "may_train": True,
        "worthwhile_share": 0.55, "identical": 0, "partly_identical": 0, "decision": "", "chosen": None,
        "decision_note": "", "started_by": "mona", "ended_by": None, "comparisons": 5, "left": 1, "votes": 4,
    }  # fmt: skip


def test_a_trial_is_ended_once_and_stays_on_record(as_manager, imported, ann):
    as_manager.post(TRIALS, BODY, format="json")
    rank_by_position(ann, [2, 1])
    end = {"decision": "better", "chosen": "model-b", "note": "Enough."}
    ended = as_manager.post(f"{TRIALS}/1/end", end, format="json")
    assert ended.status_code == 200
    names = ("status", "decision", "chosen", "decision_note", "ended_by", "comparisons", "votes")
    expected = ["ended", "better", "model-b", "Enough.", "mona", 1, 1]
    assert [ended.json()[name] for name in names] == expected
    assert as_manager.post(f"{TRIALS}/1/end", end, format="json").status_code == 409
    (listed,) = as_manager.get(TRIALS).json()
    assert listed == {name: ended.json()[name] for name in listed}
    assert Ranking.objects.count() == 1


def test_named_completions_and_a_limit_of_prompts_are_obeyed(as_manager, imported):
    ids = [pk for pair in imported[:3] for pk in pair]
    body = BODY | {"completion_ids": ids, "most_prompts": 2, "may_train": False}
    assert as_manager.post(TRIALS, body, format="json").json()["comparisons"] == 2
    used = set(Comparison.objects.values_list("items__completion", flat=True))
    assert len(used) == 4 and used < set(ids)


def test_a_request_that_is_sent_again_starts_one_trial(as_manager, imported):
    answers = [as_manager.post(TRIALS, BODY, format="json", HTTP_IDEMPOTENCY_KEY="once") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json() == answers[1].json()
    assert as_manager.post(TRIALS, BODY, format="json").status_code == 409


def test_a_trial_that_cannot_start_is_refused_with_a_sentence(as_manager, imported):
    for changed in (
        {"sources": ["model-a"]},
        {"sources": ["model-a", "model-a"]},
        {"sources": ["model-a", "nobody"]},
        {"share": 0},
        {"worthwhile_share": 1.0},
        {"most_prompts": 0},
        {"completion_ids": [987654321]},
        {"shares": 5},
    ):
        answer = as_manager.post(TRIALS, BODY | changed, format="json")
        assert (answer.status_code, answer.json()["message"][-1]) == (400, "."), changed
    assert not Comparison.objects.exists()


def test_a_decision_or_source_that_does_not_exist_ends_nothing(as_manager, imported):
    as_manager.post(TRIALS, BODY, format="json")
    for body in ({"decision": "open"}, {"decision": "better", "chosen": "nobody"}, {}):
        assert as_manager.post(f"{TRIALS}/1/end", body, format="json").status_code == 400
    assert as_manager.get(f"{TRIALS}/1").json()["status"] == "open"


def test_without_trials_the_list_is_empty_and_a_number_is_not_found(as_manager, project):
    assert as_manager.get(TRIALS).json() == []
    assert as_manager.get(f"{TRIALS}/1").status_code == 404
    assert as_manager.post(f"{TRIALS}/1/end", {"decision": "better"}, format="json").status_code == 404


def test_neither_annotators_nor_settings_show_a_trial(as_manager, as_annotator, imported):
    as_manager.post(TRIALS, BODY, format="json")
    assert Project.objects.get().trial_percent == 100
    assert "trial" not in as_annotator.get(URL).content.decode() + as_manager.get(URL).content.decode()
    assert "trial" not in as_annotator.post(f"{URL}/leases", {}, format="json").content.decode()
    changed = as_manager.patch(URL, {"trial_percent": 0}, format="json")
    assert changed.status_code == 400
