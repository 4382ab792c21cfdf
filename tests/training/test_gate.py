"""The gate: trials end when their votes have decided, and the better checkpoint is promoted if the project wants it."""

import threading

import pytest
from django.db import connection

from feedback.errors import Conflict, Invalid
from feedback.models import Trial
from tests.factories import membership
from tests.training.trial_worlds import WINS_TO_DECIDE, import_second, open_trial, vote
from training import checkpoints, gate, tasks, trials
from training.models import Promotion, Round
from training.rounds import schedule
from training.rounds.start import start_round


@pytest.fixture
def second(project, base, tmp_path):
    return import_second(project, tmp_path)


@pytest.fixture
def trial(project, base, second):
    return open_trial(project, base, second)


@pytest.fixture
def member(annotator, project):
    return membership(annotator, project)


def test_an_undecided_trial_with_comparisons_left_stays_open(project, trial, member):
    assert gate.settle_open_trials() == 0
    vote(member, "second", count=WINS_TO_DECIDE - 1)
    assert gate.settle_open_trials() == 0
    assert trials.open_trial(project) == trial and project.checkpoints.get(is_served=True).source.name == "base"


def test_the_better_checkpoint_waits_for_a_manager_by_default(project, trial, member, base):
    vote(member, "second", count=WINS_TO_DECIDE)
    assert gate.settle_open_trials() == 1
    trial.refresh_from_db()
    assert (trial.decision, str(trial.chosen), trial.ended_by, trial.decision_note) == ("better", "second", None, "")
    assert checkpoints.served(project) == base


@pytest.mark.slow
def test_the_automatic_gate_promotes_the_better_checkpoint_once(project, trial, member, base, second):
    schedule.configure_gate(project, "automatic", 0.5)
    vote(member, "second", count=WINS_TO_DECIDE)
    tasks.settle_trials()
    tasks.settle_trials()
    assert gate.settle(trial) is False
    assert checkpoints.served(project) == second
    promotion = Promotion.objects.get(checkpoint=second)
    assert (promotion.trial, promotion.actor, promotion.replaced) == (trial, None, base)
    assert checkpoints.served_before(project) == base
    assert checkpoints.roll_back(project, None).checkpoint == base


@pytest.mark.slow
def test_a_worse_candidate_is_never_promoted(project, trial, member, base):
    schedule.configure_gate(project, "automatic", 0.5)
    vote(member, "base", count=WINS_TO_DECIDE)
    assert gate.settle(trial)
    trial.refresh_from_db()
    assert (trial.decision, str(trial.chosen)) == ("worse", "base")
    assert checkpoints.served(project) == base


@pytest.mark.slow
def test_a_trial_whose_comparisons_are_all_ranked_ends_undecided(project, base, second, member):
    trial = open_trial(project, base, second, prompts=3)
    assert vote(member, "second", count=2) == 2 and not gate.settle(trial)
    assert vote(member, count=1) == 1 and gate.settle(trial)
    trial.refresh_from_db()
    assert (trial.decision, trial.chosen, trials.standing_of(trial).candidates[0].evidence.ties) == (
        "undecided",
        None,
        1,
    )


@pytest.mark.slow
def test_a_candidate_that_is_not_worth_it_ends_the_trial_as_futile(project, base, second, member):
    # With one half of the votes, a candidate surely wins less than 90 %, and not surely less than one half.
    trial = open_trial(project, base, second, worthwhile_share=0.9)
    for _ in range(5):
        vote(member, "second")
        vote(member, "base")
    assert gate.settle(trial)
    trial.refresh_from_db()
    assert (trial.decision, str(trial.chosen)) == ("futile", "base")


@pytest.mark.slow
def test_the_gate_stays_shut_when_another_checkpoint_is_served_meanwhile(project, trial, member, second, tmp_path):
    schedule.configure_gate(project, "automatic", 0.5)
    third = import_second(project, tmp_path, "third")
    checkpoints.promote(third, None)
    vote(member, "second", count=WINS_TO_DECIDE)
    assert gate.settle(trial)
    trial.refresh_from_db()
    assert trial.decision == "better" and "not the served checkpoint any more" in trial.decision_note
    assert checkpoints.served(project) == third


@pytest.mark.slow
def test_a_fallen_guard_keeps_the_gate_shut_and_asks_a_person_to_confirm(project, trial, member, base, second, manager):
    fallen = {"before": 0.0, "after": 0.4, "difference": 0.4, "error": 0.01, "count": 200}
    made_by = {"base": base, "checkpoint": second, "cutoff": 0, "ranking_count": 0, "status": Round.Status.FINISHED}
    Round.objects.create(project=project, number=1, results={"guards": {"guards": {"cut_off": fallen}}}, **made_by)
    schedule.configure_gate(project, "automatic", 0.5)
    vote(member, "second", count=WINS_TO_DECIDE)
    assert gate.settle(trial)
    trial.refresh_from_db()
    assert (trial.decision, trial.decision_note) == ("better", "Not promoted: guards fell.\ncut_off")
    assert trials.standing_of(trial).note == "Not promoted: guards fell. (cut_off)"
    assert checkpoints.served(project) == base
    with pytest.raises(Conflict, match="confirm the promotion"):
        gate.promote(trial, second, manager)
    assert gate.promote(trial, second, manager, confirmed=True).trial == trial


@pytest.mark.slow
def test_the_clearest_of_several_better_candidates_is_promoted(project, base, second, member, tmp_path):
    schedule.configure_gate(project, "automatic", 0.5)
    third = import_second(project, tmp_path, "third")
    trial = open_trial(project, base, second, third, prompts=40)
    vote(member, "second", count=3)
    vote(member, "third", "second", count=20)
    assert gate.settle(trial)
    trial.refresh_from_db()
    assert (trial.decision, str(trial.chosen)) == ("better", "second")
    assert checkpoints.served(project) == second


def test_a_person_ends_a_trial_with_what_its_votes_say(project, trial, member, manager):
    vote(member, "second", count=2)
    gate.end(trial, manager)
    trial.refresh_from_db()
    assert (trial.decision, trial.ended_by) == ("undecided", manager)
    with pytest.raises(Conflict, match="Trial 1 has ended already"):
        gate.end(trial, manager)
    assert gate.settle_open_trials() == 0


def test_a_promotion_by_hand_names_the_trial_and_ends_it(project, trial, second, manager, base, tmp_path):
    other = import_second(project, tmp_path, "other")
    with pytest.raises(Conflict, match="other is not in trial 1"):
        gate.promote(trial, other, manager)
    assert Trial.objects.get().is_open
    promotion = gate.promote(trial, second, manager)
    assert (promotion.trial, promotion.actor) == (trial, manager)
    assert not Trial.objects.get().is_open and checkpoints.served(project) == second
    with pytest.raises(Conflict, match="second is served already"):
        gate.promote(trial, second, manager)


def test_settings_of_the_gate_are_checked_and_reach_the_next_trial(project, base, second, comparisons):
    for values in (("sometimes", 0.5), ("hand", 0.4), ("hand", 1.0)):
        with pytest.raises(Invalid):
            schedule.configure_gate(project, *values)
    schedule.configure(project, 7)
    schedule.configure_gate(project, "automatic", 0.52)
    schedule.configure(project, 9)
    project.loop.refresh_from_db()
    assert (project.loop.gate, project.loop.worthwhile_share, project.loop.round_every) == ("automatic", 0.52, 9)
    started = start_round(project, None, {"round": {"recipe": "trial", "checkpoints": ["base", "second"]}})
    assert started.settings["round"]["trial_worthwhile_share"] == 0.52


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_two_gates_and_a_click_at_once_end_one_trial_once(project, trial, member, manager, second):
    schedule.configure_gate(project, "automatic", 0.5)
    vote(member, "second", count=WINS_TO_DECIDE)
    ready, outcomes = threading.Barrier(3), []

    def act(action):
        try:
            ready.wait()
            outcomes.append(action())
        except Conflict as refusal:
            outcomes.append(refusal.message)
        finally:
            connection.close()

    actions = [lambda: gate.settle(trial), lambda: gate.settle(trial), lambda: gate.promote(trial, second, manager)]
    threads = [threading.Thread(target=act, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 3 and outcomes.count(True) <= 1
    assert Promotion.objects.filter(checkpoint=second).count() == 1
    assert checkpoints.served(project) == second and not Trial.objects.get().is_open
