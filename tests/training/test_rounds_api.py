"""Rounds and checkpoints over HTTP."""

import json

import pytest
from rest_framework.test import APIClient

from feedback.actions.tokens import issue_token
from tests.factories import FAST, fake_model
from training import checkpoints
from training.models import Round
from training.rounds import lifecycle

pytestmark = pytest.mark.slow

URL = "/api/v1/projects/support"


def client_of(user):
    client = APIClient()
    if user is not None:
        client.credentials(HTTP_AUTHORIZATION=f"Bearer {issue_token(user, 'test')[1]}")
    return client


@pytest.fixture
def api(manager):
    return client_of(manager)


@pytest.fixture
def second(project, base, tmp_path):
    return checkpoints.import_checkpoint(project, str(fake_model(tmp_path / "second")), "second", verdict=FAST)


def test_a_round_is_started_watched_and_cancelled(api, project, base, rankings, manager):
    answer = api.post(f"{URL}/rounds", {"settings": {"ppo": {"steps": 3}}}, format="json")
    assert answer.status_code == 201
    assert (answer.data["number"], answer.data["status"], answer.data["base"]) == (1, "waiting", "base")
    assert answer.data["started_by"] == manager.username

    claim = lifecycle.claim(Round.objects.get().pk, "gpu-1:100")
    lifecycle.set_stage(claim, "policy")
    lines = [{"step": step, "total": 3, "time": 10.0 * step, "kl": 0.5} for step in (1, 2)]
    lifecycle.record_metrics(claim, "policy", lines, from_start=True)
    watched = api.get(f"{URL}/rounds/1").data
    assert (watched["status"], watched["stage"], watched["settings"]["ppo"]["steps"]) == ("running", "policy", 3)
    assert watched["progress"] == {"step": 2, "total": 3, "percent": pytest.approx(66.67, abs=0.01), "seconds_left": 10}
    assert [(line["job"], line["step"], line["values"]) for line in watched["metrics"]] == [
        ("policy", 1, {"kl": 0.5}),
        ("policy", 2, {"kl": 0.5}),
    ]
    later = api.get(f"{URL}/rounds/1", {"after": watched["metrics"][0]["id"]}).data
    assert [line["step"] for line in later["metrics"]] == [2]

    assert api.post(f"{URL}/rounds/1/cancel").data["cancel_requested_at"]
    lifecycle.cancel(claim)
    assert api.get(f"{URL}/rounds").data[0]["status"] == "cancelled"
    assert api.post(f"{URL}/rounds/1/resume").data["status"] == "waiting"


def test_a_checkpoint_writes_completions_in_a_round_without_training(api, base, second, comparisons):
    answer = api.post(f"{URL}/rounds", {"learns": False, "checkpoint": second.pk}, format="json")
    assert (answer.status_code, answer.data["number"], answer.data["base"]) == (201, 0, "second")


def test_checkpoints_are_promoted_and_rolled_back(api, base, second):
    assert [(each["name"], each["is_served"]) for each in api.get(f"{URL}/checkpoints").data] == [
        ("second", False),
        ("base", True),
    ]
    promoted = api.post(f"{URL}/checkpoints/{second.pk}/promote", {}, format="json")
    assert (promoted.status_code, promoted.data["checkpoint"], promoted.data["replaced"]) == (200, "second", "base")
    again = api.post(f"{URL}/checkpoints/{second.pk}/promote", {}, format="json")
    assert (again.status_code, again.data["message"]) == (409, "second is served already.")
    back = api.post(f"{URL}/checkpoints/roll-back")
    assert (back.data["checkpoint"], back.data["is_roll_back"]) == ("base", True)
    assert api.post(f"{URL}/checkpoints/roll-back").status_code == 409


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        ({"settings": {"ppo": {"stepz": 3}}}, 400, "'stepz'"),
        ({"settings": {"ppo": {"steps": 0}}}, 400, "steps must be at least 1"),
        ({"settings": {"ppo": {"model": "/etc"}}}, 400, 'sets "model" itself'),
        ({"settings": {"other": {}}}, 400, 'no section "other"'),
        ({"settings": 3}, 400, ""),
        ({"learns": "perhaps"}, 400, ""),
        ([1], 400, ""),
        ({"learns": False, "checkpoint": 10**6}, 404, "no such checkpoint"),
    ],
)
def test_rounds_that_cannot_start_are_refused(api, base, rankings, body, status, sentence):
    answer = api.post(f"{URL}/rounds", body, format="json")
    assert answer.status_code == status
    assert sentence in str(answer.data)
    assert not Round.objects.exists()


def test_the_error_of_a_start_without_rankings_says_what_to_do(api, base, comparisons):
    answer = api.post(f"{URL}/rounds", {}, format="json")
    assert (answer.status_code, answer.data["code"]) == (400, "invalid")
    assert "rank some comparisons first" in answer.data["message"]


def test_a_second_start_conflicts(api, waiting):
    answer = api.post(f"{URL}/rounds", {}, format="json")
    assert (answer.status_code, answer.data["code"]) == (409, "conflict")


@pytest.mark.parametrize("after", ["x", "-1", str(2**70)])
def test_an_invalid_cursor_is_refused(api, waiting, after):
    assert api.get(f"{URL}/rounds/1", {"after": after}).status_code == 400


def test_the_loop_is_configured(api, project):
    assert api.get(f"{URL}/loop").data == {"round_every": None, "settings": {}, "gate": "hand", "worthwhile_share": 0.5}
    body = {"round_every": 500, "settings": {"ppo": {"steps": 7}}, "gate": "automatic", "worthwhile_share": 0.52}
    assert api.put(f"{URL}/loop", body, format="json").data == body
    assert api.get(f"{URL}/loop").data == body
    for wrong in ({"round_every": 0}, {"round_every": 5, "settings": {"ppo": {"x": 1}}}, {}, {"round_every": "often"}):
        refused = api.put(f"{URL}/loop", wrong, format="json")
        assert (refused.status_code, bool(refused.data["message"])) == (400, True)
    assert api.get(f"{URL}/loop").data == body


CALLS = [
    ("get", "loop"),
    ("get", "machines"),
    ("put", "loop"),
    ("get", "rounds"),
    ("post", "rounds"),
    ("get", "rounds/settings"),
    ("get", "rounds/plan"),
    ("get", "rounds/1"),
    ("get", "rounds/1/curves"),
    ("get", "rounds/1/measured-samples"),
    ("get", "rounds/1/reward-model"),
    ("get", "review/surprising"),
    ("post", "review/surprising/1/keep"),
    ("post", "rounds/1/cancel"),
    ("post", "rounds/1/resume"),
    ("get", "ratings/rounds"),
    ("get", "checkpoints"),
    ("post", "checkpoints"),
    ("get", "checkpoints/1"),
    ("get", "data/completions/1"),
    ("post", "checkpoints/1/check"),
    ("post", "checkpoints/roll-back"),
    ("post", "checkpoints/1/promote"),
    ("post", "checkpoints/1/retire"),
    ("post", "checkpoints/1/restore"),
    ("delete", "checkpoints/1/files"),
    ("get", "checkpoints/1/beside/2"),
    ("get", "endpoints/1/models"),
    ("post", "endpoints/1/call"),
    ("get", "guard-texts"),
    ("post", "guard-texts"),
    ("delete", "guard-texts"),
]


def test_only_managers_may_use_rounds_and_checkpoints(waiting, annotator, stranger):
    clients = {404: client_of(stranger), 403: client_of(annotator), 401: client_of(None)}
    for verb, path in CALLS:
        for status, client in clients.items():
            answer = getattr(client, verb)(f"{URL}/{path}", {}, format="json")
            assert (path, answer.status_code) == (path, status)
        assert Round.objects.get().status == "waiting", path


def test_the_wrong_verb_is_refused(api, waiting):
    for verb, path in CALLS:
        if path == "guard-texts":
            other = "put"
        else:
            other = "delete" if path in ("rounds", "loop", "checkpoints") else "post" if verb == "get" else "get"
        assert (path, getattr(api, other)(f"{URL}/{path}").status_code) == (path, 405)


def test_a_plan_is_what_a_start_with_the_same_settings_does(api, project, base, rankings):
    settings = {"round": {"recipe": "dpo", "prompts": 7}, "dpo": {"epochs": 2}}
    plan = api.get(f"{URL}/rounds/plan", {"settings": json.dumps(settings)}).data
    assert (plan["refusal"], plan["recipe"], plan["base"]) == ("", "dpo", "base")
    assert plan["rankings"]["rankings"] + sum(left["rankings"] for left in plan["rankings"]["left_out"]) == 6
    assert plan["estimate"]["by_stage"] == {"policy": None, "samples": None, "guards": None}
    assert not Round.objects.exists()
    started = api.post(f"{URL}/rounds", {"settings": settings}, format="json").data
    detail = api.get(f"{URL}/rounds/{started['number']}").data
    assert detail["settings"] == plan["settings"] and detail["estimate"] == plan["estimate"]
    assert detail["seconds"] is None
    refused = api.get(f"{URL}/rounds/plan", {"settings": '{"ppo": {"steps": 0}}'}).data
    assert "steps must be at least 1" in refused["refusal"] and refused["settings"] is None
    for bad in ("{", "[]", '{"ppo": 3}', '{"sfx": {}}'):
        assert api.get(f"{URL}/rounds/plan", {"settings": bad}).status_code == 400, bad


@pytest.mark.full
def test_the_settings_of_a_recipe_are_listed_with_the_projects_defaults(api, project, base):
    api.put(f"{URL}/loop", {"round_every": None, "settings": {"ppo": {"steps": 7}}}, format="json")
    listed = {f"{row['section']}.{row['name']}": row for row in api.get(f"{URL}/rounds/settings").data}
    steps = listed["ppo.steps"]
    assert (steps["label"], steps["default"], steps["kind"], steps["limits"]) == (
        "Policy steps", 7, "a whole number", {"low": 1}
    )  # fmt: skip
    assert listed["common.seed"]["default"] is None and "ppo.seed" not in listed
    sft = {row["section"] for row in api.get(f"{URL}/rounds/settings", {"recipe": "sft"}).data}
    assert sft == {"round", "sft", "sample", "guards", "common"}
    assert api.get(f"{URL}/rounds/settings", {"recipe": "none"}).status_code == 400


@pytest.mark.parametrize("path", ["rounds/9", "checkpoints/999999/promote"])
def test_unknown_rounds_and_checkpoints_are_404(api, waiting, path):
    answer = api.post(f"{URL}/{path}", {}, format="json") if "promote" in path else api.get(f"{URL}/{path}")
    assert (answer.status_code, answer.data["code"]) == (404, "not_found")


def test_another_projects_checkpoint_is_not_found(api, base, stranger, tmp_path):
    from feedback.models import Project

    other = Project.objects.get(slug="other")
    theirs = checkpoints.import_checkpoint(other, str(fake_model(tmp_path / "theirs")), "theirs", verdict=FAST)
    assert api.post(f"{URL}/checkpoints/{theirs.pk}/promote", {}, format="json").status_code == 404
