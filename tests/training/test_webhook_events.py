"""The events of rounds, trials and promotions, in the outbox of the project's webhooks; and who audited acts name."""

import pytest
from django.utils import timezone

from feedback.models import AuditEntry, Webhook, WebhookDelivery
from feedback.webhooks import EVENTS
from feedback.webhooks.delivery import update_events
from tests.factories import membership
from tests.training.trial_worlds import WINS_TO_DECIDE, import_second, open_trial, vote
from training import checkpoints, gate
from training.models import Round
from training.rounds import lifecycle, results, schedule


@pytest.fixture
def webhook(project):
    made = Webhook.objects.create(project=project, name="builds", url="https://example.org/", events=[*EVENTS])
    update_events(project)
    return made


def events(event):
    return [row.data for row in WebhookDelivery.objects.filter(event=event).order_by("pk")]


def test_a_round_has_an_event_at_its_start_and_its_end(webhook, waiting):
    claim = lifecycle.claim(waiting.pk, "gpu-1:100")
    about = {"project": "support", "round": 1, "recipe": "ppo", "attempt": 1}
    assert events("round.started") == [about]
    lifecycle.finish(claim, results.Outcome("/models/new", "", [], []))
    assert events("round.finished") == [about | {"checkpoint": "round-0001"}]
    assert set(WebhookDelivery.objects.filter(event__startswith="round").values_list("object", flat=True)) == {
        "round:1"
    }


@pytest.mark.slow
def test_a_round_that_fails_or_whose_worker_is_lost_has_one_event(webhook, waiting):
    claim = lifecycle.claim(waiting.pk, "gpu-1:100")
    lifecycle.fail(claim, "It broke.")
    lifecycle.fail(claim, "It broke again.")  # by a worker that has lost its claim
    lifecycle.resume(Round.objects.get())
    lifecycle.claim(waiting.pk, "gpu-1:100")
    Round.objects.update(heartbeat_at=timezone.now() - 2 * lifecycle.LOST_AFTER)
    assert (lifecycle.sweep_lost(), lifecycle.sweep_lost()) == (1, 0)
    first, second = events("round.failed")
    assert (first["error"], first["attempt"], second["attempt"]) == ("It broke.", 1, 2)
    assert "heartbeat stopped" in second["error"]


@pytest.mark.slow
def test_a_decided_trial_and_the_gates_promotion_have_events_and_entries(project, webhook, base, tmp_path, annotator):
    trial = open_trial(project, base, import_second(project, tmp_path))
    schedule.configure_gate(project, "automatic", 0.5)
    vote(membership(annotator, project), "second", count=WINS_TO_DECIDE)
    gate.settle_open_trials()
    assert events("trial.decided") == [
        {"project": "support", "trial": trial.number, "decision": "better", "chosen": "second"}
    ]
    promoted = {"project": "support", "checkpoint": "second", "replaced": "base", "rolled_back": False}
    assert events("checkpoint.promoted")[-1] == promoted
    ended, promotion = (
        AuditEntry.objects.get(act="trial.end"),
        AuditEntry.objects.filter(act="checkpoint.promote").last(),
    )
    assert {(entry.actor_name, entry.via) for entry in (ended, promotion)} == {("gate", "worker")}
    assert (promotion.before, promotion.after) == ({"served": "base"}, {"served": "second", "trial": trial.number})


def test_an_automatic_round_is_an_act_of_the_schedule(project, base, rankings):
    schedule.configure(project, 1)
    schedule.start_due()
    entry = AuditEntry.objects.get(act="round.start")
    assert (entry.actor_name, entry.actor, entry.object_name) == ("schedule", None, "round 1")


def test_a_roll_back_by_hand_names_the_person(project, base, tmp_path, manager):
    checkpoints.promote(import_second(project, tmp_path), manager)
    checkpoints.roll_back(project, manager)
    entry = AuditEntry.objects.get(act="checkpoint.roll_back")
    assert (entry.actor, entry.before, entry.after) == (manager, {"served": "second"}, {"served": "base"})
