"""The whole simulation in miniature: HTTP, a real worker, the real programs, a tiny model."""

import json
import signal
from dataclasses import replace

import pytest

from feedback.actions.tokens import issue_token
from feedback.models import ApiToken, Ranking, User
from tests.training import tiny
from tests.training.services import using_broker, worker
from training import checkpoints
from training.demo import gold, projects, seed, simulate
from training.demo.projects import DIALOGUE, SUPPORT
from training.demo.settings import DIALOGUE_ENVIRONMENT
from training.demo.simulate import Cycle, SimulationFailed
from training.models import Round
from training.rounds.start import start_sampling

pytestmark = [pytest.mark.process, pytest.mark.django_db(transaction=True)]

FIGURES = {
    "cycle", "recipe", "labels", "annotator_agreement", "reward_accuracy", "reward_accuracy_noiseless", "kl",
    "kl_from_root", "gold_utility",
    "gold_win_rate_vs_base", "gold_win_rate_low", "gold_win_rate_high", "gold_win_rate_vs_served", "trial_win_rate",
    "trial_low", "trial_high", "trial_votes", "trial_decision", "trial_expected_win_rate", "held_out_prompts",
    "round_seconds", "seconds",
}  # fmt: skip


@pytest.fixture
def demo(monkeypatch, tmp_path, forked_programs):
    """The demo project with so few prompts and so small a model that a cycle is soon over."""
    own = {**tiny.SETTINGS, "round": {**tiny.SETTINGS["round"], "prompts": 12, "extra_ranking_share": 0.5}}
    monkeypatch.setattr(projects, "PROMPTS", 40)
    monkeypatch.setattr(projects, "DIALOGUE_PROMPTS", 40)
    of_dialogues = own | {"ppo": own["ppo"] | {"environment": DIALOGUE_ENVIRONMENT}}
    small = replace(SUPPORT, round_of_other_models=own), replace(DIALOGUE, round_of_other_models=of_dialogues)
    monkeypatch.setattr(seed, "PROJECTS", {demo.slug: demo for demo in small})
    monkeypatch.setattr(gold, "MAX_PROMPTS", 4)
    seed.prepare(model=str(tiny.make_model(tmp_path / "own")), report=lambda sentence: None)
    return seed.Project.objects.get(slug=SUPPORT.slug)


@pytest.fixture
def gpu_worker(demo, tmp_path):
    with using_broker("pgmq://"), worker("pgmq://", "gpu", tmp_path / "gpu.log", is_forked=True) as started:
        yield started


def test_a_cycle_runs_the_loop_once_and_reports_its_figures(demo, gpu_worker, live_server, tmp_path):
    sentences: list[str] = []

    def report(sentence):
        sentences.append(sentence)
        if "started before" in sentence:
            gpu_worker.process.send_signal(signal.SIGCONT)

    gpu_worker.process.send_signal(signal.SIGSTOP)  # or this round could end before the simulation begins
    start_sampling(demo, None, {"round": {"prompts": 2}})  # which it waits for
    # The learning rate is high, so that the trial has different texts to compare.
    changes = {"ppo": {"steps": 3, "learning_rate": 0.05}, "round": {"shown_prompts": 1}}
    cycles = simulate.run(live_server.url, 1, 16, tmp_path / "out.json", report, changes=changes)

    assert [(cycle.cycle, cycle.labels) for cycle in cycles] == [(1, 16)]
    assert Ranking.objects.filter(project=demo, is_live=True, comparison__trial__isnull=True).count() == 16
    trial = demo.trials.get()
    tried = [str(row.source) for row in trial.trial_sources.all()]
    assert tried == [str(demo.rounds.get(learns=True).base), trained_checkpoints(demo)[-1]]
    assert (trial.may_train, trial.share, trial.is_open) == (False, 100, False)
    assert set(trial.comparisons.values_list("prompt__split", flat=True)) <= {"held_out"}
    round_ = demo.rounds.get(learns=True)
    assert (round_.status, round_.settings["ppo"]["steps"]) == ("finished", 3)
    assert (round_.settings["round"]["prompts"], round_.settings["round"]["shown_prompts"]) == (12, 1)
    assert round(abs((round_.finished_at - round_.started_at).total_seconds() - cycles[0].round_seconds), 1) <= 0.1
    assert checkpoints.served(demo).source.name == trained_checkpoints(demo)[-1]
    written = json.loads((tmp_path / "out.json").read_text())
    assert [set(row) for row in written] == [FIGURES]
    for row in written:
        assert 0 <= row["gold_win_rate_low"] <= row["gold_win_rate_vs_base"] <= row["gold_win_rate_high"] <= 1
        assert row["reward_accuracy_noiseless"] is None or 0 <= row["reward_accuracy_noiseless"] <= 1
        assert row["held_out_prompts"] == 4
        assert row["trial_decision"] == trial.decision and 0 <= row["gold_win_rate_vs_served"] <= 1
        if row["trial_votes"]:
            assert 0 <= row["trial_low"] <= row["trial_win_rate"] <= row["trial_high"] <= 1
            assert 0 < row["trial_expected_win_rate"] < 1
    assert any(sentence.startswith("cycle 1: recipe ppo, labels 16") for sentence in sentences)
    assert not ApiToken.objects.exists()
    assert "started before" in sentences[0]


@pytest.mark.full
def test_a_cycle_of_dialogues_ranks_whole_dialogues_and_measures_new_ones(demo, gpu_worker, live_server):
    project = seed.Project.objects.get(slug=DIALOGUE.slug)
    (cycle,) = simulate.run(live_server.url, 1, 12, None, lambda sentence: None, slug=DIALOGUE.slug)
    rankings = Ranking.objects.filter(project=project, is_live=True, comparison__trial__isnull=True)
    assert cycle.labels == rankings.count() == 12
    assert cycle.held_out_prompts == 4
    assert (cycle.trial_decision == "identical") == (not project.trials.exists())
    assert Round.objects.get(project=project, learns=True).settings["ppo"]["environment"] == DIALOGUE_ENVIRONMENT


def trained_checkpoints(project):
    """The names of the checkpoints that rounds made, in order."""
    return [str(round_.checkpoint) for round_ in project.rounds.filter(learns=True).order_by("number")]


@pytest.mark.full
def test_a_round_that_fails_ends_the_simulation_with_its_own_sentence(demo, gpu_worker, live_server, monkeypatch):
    served = checkpoints.served(demo)
    served.path += "-gone"
    served.save()
    with pytest.raises(SimulationFailed, match="Round 1 is failed"):
        simulate.run(live_server.url, 1, 4, None, lambda sentence: None)
    assert Round.objects.get(project=demo, number=1).error
    assert not ApiToken.objects.exists()


def test_leftover_tokens_of_a_killed_simulation_are_deleted_and_no_others(demo):
    manager = User.objects.get(username="max")
    issue_token(manager, simulate.TOKEN_NAME)
    own, _ = issue_token(manager, "my notebook")
    with simulate.keys(demo):
        assert ApiToken.objects.filter(user=manager).count() == 2
    assert list(ApiToken.objects.all()) == [own]


def test_the_line_that_is_printed_holds_every_figure():
    figures = {
        "cycle": 1, "recipe": "ppo", "labels": 600, "annotator_agreement": 0.7512, "reward_accuracy": 0.7712,
        "reward_accuracy_noiseless": 0.8812, "kl": 1.234, "kl_from_root": 2.345, "gold_utility": 3.456,
        "gold_win_rate_vs_base": 0.7834, "gold_win_rate_low": 0.7634, "gold_win_rate_high": 0.8034,
        "gold_win_rate_vs_served": 0.6234, "trial_win_rate": 0.6134, "trial_low": 0.5434, "trial_high": 0.6834,
        "trial_votes": 142, "trial_decision": "better", "trial_expected_win_rate": 0.6034, "held_out_prompts": 320,
        "round_seconds": 97.4, "seconds": 171.6,
    }  # fmt: skip
    line = simulate.sentence(Cycle(**figures))
    for part in (
        "cycle 1",
        "recipe ppo",
        "kl_from_root 2.3",
        "labels 600",
        "75.1%",
        "77.1%",
        "88.1%",
        "1.23",
        "3.46",
        "78.3%",
        "76.3%",
        "80.3%",
        "320",
        "gold_win_rate_vs_served 62.3%",
        "trial_win_rate 61.3% (54.3% to 68.3%, 142 votes: better), trial_expected_win_rate 60.3%",
        "round_seconds 97, seconds 172",
    ):
        assert part in line, part
    unknown = dict.fromkeys(["annotator_agreement", "reward_accuracy", "reward_accuracy_noiseless"])
    without = simulate.sentence(Cycle(**figures | unknown | {"kl": None, "kl_from_root": None}))
    assert "annotator_agreement –, reward_accuracy –" in without and "kl –, kl_from_root –" in without
    undecided = dict.fromkeys(["trial_win_rate", "trial_low", "trial_high", "trial_expected_win_rate"])
    assert "trial_win_rate – (– to –, 0 votes: " in simulate.sentence(Cycle(**figures | undecided | {"trial_votes": 0}))


def test_recipes_that_do_not_learn_from_rankings_are_not_simulated():
    simulated = simulate.recipes_to_simulate()
    assert "ppo" in simulated and not {"sft", "metric"} & set(simulated)
