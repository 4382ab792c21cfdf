"""Real runs of a round's programs, on a model of a few thousand parameters."""

from pathlib import Path

import pytest
from django.conf import settings

from feedback.models import Comparison
from tests.training import tiny
from training import guard_texts, reports
from training.learner.reward_terms import make_metric
from training.models import Round
from training.rounds.estimates import peak_memory, took
from training.rounds.start import start_round, start_sampling
from training.run_round import run_round

pytestmark = [
    pytest.mark.process,
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("forked_programs"),
]


def test_a_round_turns_the_loop_once(project, tiny_base, rankings, manager):
    before = Comparison.objects.count()
    guard_texts.add(project, ["A letter, which is long enough.", "Another one."], manager)
    guarded = {**tiny.SETTINGS, "round": {**tiny.SETTINGS["round"], "guard_prompts": 3}}
    started = start_round(project, manager, guarded)
    run_round.run(started.pk)

    done = Round.objects.get(pk=started.pk)
    assert (done.error, done.log_tail) == ("", "")
    assert (done.status, done.stage) == ("finished", "comparisons")
    programs = {"reward", "policy", "samples", "baseline", "guards"}
    assert set(done.results) == {"snapshot", "durations", "comparisons", *programs}
    assert set(done.results["durations"]) == programs and took(done) > done.results["policy"]["seconds"]
    assert peak_memory(done)[0] > 0.05
    assert done.results["guards"]["kl_from_base"] == done.results["guards"]["kl_from_root"] > 0
    assert (done.results["guards"]["prompts"], done.results["guards"]["guard_texts"]) == (2, 2)
    assert (done.results["snapshot"]["rankings"], done.results["snapshot"]["flagged_rankings"]) == (6, 0)
    report, reward = done.reward_report, done.results["reward"]
    accuracy = report.figures["accuracy"]
    assert (accuracy and accuracy["value"]) == pytest.approx(reward["held_out_accuracy"])
    assert report.scored_rankings == reward["surprise_rankings"] > 0
    assert set(done.metrics.values_list("job", flat=True)) >= {"reward", "policy"}
    assert list(done.metrics.filter(job="policy").values_list("step", flat=True)) == [1, 2]

    made = done.checkpoint
    assert (made.kind, made.parent, made.is_served) == ("round", tiny_base, False)
    assert made.source.name == "round-0001"
    assert 6 <= made.source.completions.count() <= 18  # of six prompts, three each; the same text counts once
    assert {row["round"] for row in made.source.completions.values_list("sampling", flat=True)} == {1}
    assert tiny_base.source.completions.count() == 2  # the base beside it, on two of the prompts
    assert before < Comparison.objects.count() <= before + 6
    model, reward_model = (bytes_in(path) for path in (made.path, made.reward_model_path))
    assert made.file_sizes == {"model": model, "reward_model": reward_model, "critic": 0, "other": 0, "shared": 0}
    assert min(model, reward_model) > 1000


def bytes_in(folder: str) -> int:
    return sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())


@pytest.mark.full
def test_a_round_rewarded_by_a_metric_alone_runs_without_rankings_and_is_scored_by_it(
    project, tiny_base, comparisons, manager, client
):
    project.prompts.update(references=["Soon."])
    metric = {**tiny.SETTINGS, "ppo": {**tiny.SETTINGS["ppo"], "rewards": [{"name": "similarity", "weight": 2}]}}
    started = start_round(project, manager, metric)
    run_round.run(started.pk)
    done = Round.objects.get(pk=started.pk)
    assert (done.error, done.status) == ("", "finished")
    assert set(done.results) == {"durations", "comparisons", "policy", "samples", "baseline"}
    assert done.results["policy"]["evaluated_on"] == "held_out"
    assert not (settings.DATA_DIR / "rounds" / "support" / "0001" / "reward").exists()
    assert done.checkpoint.reward_model_path == ""
    measure = make_metric("similarity")
    written = [*done.checkpoint.source.completions.all(), *tiny_base.source.completions.all()]
    assert written
    for completion in written:
        assert completion.sampling["score"] == pytest.approx(2 * measure(completion.text, ["Soon."]), abs=1e-5)

    client.force_login(manager)
    page = client.get("/projects/support/rounds/1/").content.decode()
    assert "rewarded by similarity alone: it does not use rankings" in page and "Reward model" not in page
    samples = client.get("/projects/support/rounds/1/samples/").content.decode()
    assert "the rewards of the round (similarity)" in samples and "reward model" not in samples
    stages = [stage.name for stage in reports.stages_of(done)]
    assert stages == ["snapshot", "policy", "samples", "comparisons"]


def test_a_program_that_refuses_its_input_leaves_its_sentence(project, tiny_base, comparisons):
    settings = {**tiny.SETTINGS, "common": {"max_prompt_tokens": 2, "overlong_prompts": "refuse"}}
    started = start_sampling(project, None, settings)
    run_round.run(started.pk)
    failed = Round.objects.get(pk=started.pk)
    assert (failed.status, failed.stage) == ("failed", "samples")
    assert "more than max_prompt_tokens" in failed.error
    assert failed.error.startswith("The sample program failed: ")
    assert "error: " in failed.log_tail
