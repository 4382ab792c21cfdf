"""Endpoints that write completions of rounds, with real tiny weights behind the protocol."""

import ipaddress
import json

import pytest

from feedback.models import Comparison, Completion
from tests.training import tiny
from tests.training.stand_in import MODEL, stand_in
from training.endpoints import records
from training.endpoints.client import Client
from training.models import Endpoint, Round
from training.rounds.start import start_sampling
from training.run_round import endpoint_job, run_round
from training.run_round.process import ProgramFailed, ProgramStopped

KEY = "sk-hidden-0123456789"
ASK = {"completions_per_prompt": 2, "temperature": 0.8, "top_p": 1.0, "max_completion_tokens": 6, "endpoint": "x"}


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory):
    return tiny.make_chat_model(tmp_path_factory.mktemp("models") / "chat")


@pytest.fixture(scope="module")
def server(chat_model):
    with stand_in(chat_model) as state:
        yield state


@pytest.fixture
def endpoint(project, settings, server, monkeypatch):
    """The record of an endpoint with real weights, whose waits take no time."""
    server.faults.clear()
    server.asked.clear()
    server.most_at_once = 0
    settings.ENDPOINT_NETWORKS = [ipaddress.ip_network("127.0.0.0/8")]
    monkeypatch.setattr(Client, "_pause", lambda self, seconds: None)
    prices = {"prompt_price": 3, "completion_price": 15}
    values = {"name": "x", "url": server.url, "model": MODEL, "key": KEY, "concurrency": 3, "retries": 2, **prices}
    return records.create(project, values, None)


@pytest.fixture
def directory(tmp_path):
    """A job directory with five prompts."""
    (tmp_path / "config.json").write_text(json.dumps(ASK))
    rows = [{"prompt_id": n, "messages": [{"role": "user", "content": f"Hi {n}"}]} for n in range(5)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def never():
    return False


def samples_in(directory):
    return [json.loads(line) for line in (directory / "samples.jsonl").read_text().split("\n")[:-1]]


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_an_endpoint_answers_all_prompts_through_failures_that_pass(project, endpoint, server, directory):
    server.faults = [429, 500, "broken JSON", "cut off", (429, {"Retry-After": "1"})]
    endpoint_job.run(project, directory, never)
    samples = samples_in(directory)
    assert [(row["prompt_id"], row["index"]) for row in samples] == [(n, i) for n in range(5) for i in range(2)]
    assert all(row["text"] and row["model"] == "tiny-chat-v1" for row in samples)
    assert {row["finish_reason"] for row in samples} <= {"stop", "length"}
    assert all(row["ended"] == (row["finish_reason"] == "stop") for row in samples)
    assert server.asked[0]["temperature"] == 0.8 and server.asked[0]["max_tokens"] == 6
    assert 1 < server.most_at_once <= 3
    result = json.loads((directory / "result.json").read_text())
    tokens = sum(row["tokens"] for row in samples), sum(row["prompt_tokens"] for row in samples)
    assert (result["samples"], result["failed"], result["uncounted"]) == (10, 0, 0)
    assert (result["completion_tokens"], result["prompt_tokens"]) == tokens
    assert result["cost"] == pytest.approx((15 * tokens[0] + 3 * tokens[1]) / 1e6)
    endpoint.refresh_from_db()
    assert (endpoint.requests, endpoint.completion_tokens, endpoint.prompt_tokens) == (10, *tokens)
    assert KEY not in "".join(file.read_text() for file in directory.iterdir())


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_a_prompt_without_an_answer_is_counted_and_the_others_are_written(project, endpoint, server, directory):
    Endpoint.objects.update(concurrency=1, retries=0)
    server.faults = [None, 400, "empty"]
    endpoint_job.run(project, directory, never)
    result = json.loads((directory / "result.json").read_text())
    assert (result["samples"], result["failed"]) == (8, 2)
    assert any("400" in sentence for sentence in result["errors"]) and len(samples_in(directory)) == 8
    assert KEY not in (directory / "result.json").read_text()


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_a_refused_key_ends_the_job_which_resumes_without_asking_again(project, endpoint, server, directory):
    Endpoint.objects.update(concurrency=1)
    server.faults = [None, None, None, 401]
    with pytest.raises(ProgramFailed, match="refuses the key"):
        endpoint_job.run(project, directory, never)
    assert not (directory / "result.json").exists() and len(server.asked) == 4
    with (directory / "answers.jsonl").open("a") as file:
        file.write('{"number": 3, "te')  # a worker that was killed while it wrote
    endpoint_job.run(project, directory, never)
    assert len(server.asked) == 4 + 7 and len(samples_in(directory)) == 10
    assert Endpoint.objects.get().requests == 10


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_a_stopped_job_ends_while_a_request_waits_for_its_answer(project, endpoint, server, directory):
    server.gate.clear()
    server.faults = ["slow"] * 20
    with pytest.raises(ProgramStopped):
        endpoint_job.run(project, directory, lambda: len(server.asked) == 3)
    assert not (directory / "result.json").exists()
    server.gate.set()


@pytest.mark.full
@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_an_endpoint_that_is_down_fails_the_job_with_its_reason(project, endpoint, server, directory):
    Endpoint.objects.update(retries=0)
    server.faults = [503] * 20
    with pytest.raises(ProgramFailed, match=r"status 503.* 10 prompts in a row"):
        endpoint_job.run(project, directory, never)


@pytest.mark.full
@pytest.mark.process
@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("forked_programs")
def test_a_round_compares_the_served_checkpoint_with_an_endpoint(project, tiny_base, comparisons, endpoint, server):
    server.faults = [500, 400]
    before = set(Comparison.objects.values_list("pk", flat=True))
    mixture = {"new": 1, "endpoint:x": {"count": 2, "temperature": 0.5}}
    changes = {"round": {"prompts": 6, "comparison_size": 3, "sources": mixture}, "common": tiny.SETTINGS["common"]}
    started = start_sampling(project, None, changes)
    run_round.run(started.pk)
    done = Round.objects.get(pk=started.pk)
    assert (done.status, done.error) == ("finished", "")
    assert done.results["source_1"]["failed"] == 1 and done.results["source_1"]["cost"] > 0
    assert done.metrics.filter(job="source_1").count() >= 11
    completion = Completion.objects.filter(source=endpoint.source).first()
    assert completion.source.name == "endpoint:x" and completion.source.kind == "endpoint"
    kept = {name: completion.sampling[name] for name in ("temperature", "top_p", "max_completion_tokens", "round")}
    assert kept == {"temperature": 0.5, "top_p": 1.0, "max_completion_tokens": 8, "round": 0}
    assert completion.sampling["model"] == "tiny-chat-v1" and completion.sampling["finish_reason"]
    new = Comparison.objects.exclude(pk__in=before)
    assert 4 <= new.count() <= 6
    for comparison in new:
        kinds = sorted(item.completion.source.kind for item in comparison.items.all())
        assert kinds.count("checkpoint") <= 1 and kinds.count("endpoint") <= 2
