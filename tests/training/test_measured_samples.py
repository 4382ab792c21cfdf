"""Samples behind the figures of a round: stored, exported, and beside the figures on the pages."""

import json
from dataclasses import replace

import pytest
from django.template.defaultfilters import floatformat

from feedback import imports
from tests.factories import URL, client_of
from tests.training import figures_of_samples, tiny
from training.models import Round
from training.rounds import measured_samples
from training.rounds.lifecycle import ClaimLost
from training.rounds.start import start_round
from training.run_round import run_round

pytestmark = pytest.mark.django_db
ROWS = [{"purpose": "evaluation", "model": "policy", "prompt_id": 7, "index": 0, "reward": 0.5, "log_prob": -3.0}]
PAGE = "/projects/support/rounds/1/"


def job_folder(folder, rows):
    folder.mkdir(exist_ok=True)
    (folder / "measured_samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def lines_of(response):
    return [json.loads(line) for line in b"".join(response.streaming_content).splitlines()]


@pytest.mark.slow
def test_the_samples_of_a_job_are_exported_and_replaced_when_it_ends_again(client, manager, claim, tmp_path):
    api = client_of(manager)
    assert api.get(f"{URL}/rounds/1/measured-samples").status_code == 404
    client.force_login(manager)
    measured_samples.record(claim, "policy", tmp_path)  # a program that measures none
    assert client.get(f"{PAGE}measured-samples/").status_code == 404
    measured_samples.record(claim, "policy", job_folder(tmp_path / "policy", ROWS))
    measured_samples.record(
        claim, "guards", job_folder(tmp_path / "guards", [{"purpose": "guards", "kl_from_base": 0.25}])
    )
    answer = api.get(f"{URL}/rounds/1/measured-samples")
    assert lines_of(answer) == [
        {"job": "policy", **ROWS[0]},
        {"job": "guards", "purpose": "guards", "kl_from_base": 0.25},
    ]
    file = client.get(f"{PAGE}measured-samples/")
    assert file["Content-Disposition"] == 'attachment; filename="support-round-1-measured-samples.jsonl"'
    unchanged = {"headers": {"If-None-Match": answer["ETag"]}}
    assert api.get(f"{URL}/rounds/1/measured-samples", **unchanged).status_code == 304
    measured_samples.record(claim, "policy", job_folder(tmp_path / "policy", ROWS * 2))
    assert len(lines_of(api.get(f"{URL}/rounds/1/measured-samples", **unchanged))) == 3


def test_a_worker_that_lost_the_round_stores_no_samples(claim, tmp_path):
    with pytest.raises(ClaimLost):
        measured_samples.record(replace(claim, attempt=claim.attempt + 1), "policy", job_folder(tmp_path, ROWS))
    assert list(measured_samples.measured_samples(Round.objects.get())) == []


@pytest.mark.full
@pytest.mark.process
@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("forked_programs", "rankings")
def test_kl_and_objective_on_the_pages_are_those_computed_from_the_exported_samples(
    project, tiny_base, manager, client
):
    imports.add_prompts(project, [{"prompt": f"Held out {number}?"} for number in range(32)])
    project.prompts.filter(messages__0__content__startswith="Held out").update(split="held_out")
    started = start_round(
        project,
        manager,
        {
            **tiny.SETTINGS,
            "round": {**tiny.SETTINGS["round"], "guard_prompts": 40},
            "ppo": {**tiny.SETTINGS["ppo"], "eval_prompts": 40, "optimum_prompts": 3, "learning_rate": 0.003},
        },
    )
    run_round.run(started.pk)
    done = Round.objects.get(pk=started.pk)
    assert (done.error, done.status) == ("", "finished")
    lines = lines_of(client_of(manager).get(f"{URL}/rounds/1/measured-samples"))
    beta = done.results["policy"]["kl_coefficient"]
    expected = figures_of_samples.evaluation(lines) | figures_of_samples.objective(lines, beta)
    assert done.results["policy"]["objective_low"] < done.results["policy"]["objective_high"]
    best = figures_of_samples.best_objective(lines, beta)
    assert best["best_objective"] >= expected["objective_low"]
    if done.results["policy"]["best_objective"] is not None:
        expected |= best
    for name, value in expected.items():
        assert done.results["policy"][name] == pytest.approx(value, rel=1e-4, abs=1e-5), name
    names = ("kl_from_base", "kl_from_root")
    divergences = {name: figures_of_samples.divergence(lines, name) for name in names}
    for name, figures in divergences.items():
        assert {f"{name}_error", f"{name}_low"} <= set(figures)
        for key, value in figures.items():
            assert done.results["guards"][key] == pytest.approx(value, rel=1e-6), key

    client.force_login(manager)
    page, guards = (" ".join(client.get(path).content.decode().split()) for path in (PAGE, "/projects/support/guards/"))
    assert f"<dt>KL</dt><dd>{floatformat(expected['kl'], 2)}<small>" in page
    assert f"<dt>Objective</dt><dd>{floatformat(expected['objective'], -3)}<small>" in page
    gain = expected["reward_gain"]
    assert f"<dt>Reward gained</dt><dd>{'+' if gain >= 0 else ''}{floatformat(gain, 2)}<small>95 % interval" in page
    for name, figures in divergences.items():
        value, error = floatformat(figures[name], 3), floatformat(figures[f"{name}_error"], 3)
        assert f"<dd>{value}<small>± {error}, nats" in page
        assert f'>{value} <small class="quiet">± {error}</small></td>' in guards
    assert f'href="{PAGE}measured-samples/"' in page
