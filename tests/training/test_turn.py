"""A round's programs run for real, on a model of a few thousand parameters."""

import json

import pytest

from feedback.models import Comparison, Completion
from tests.training import tiny
from tests.training.conftest import rank
from training import checkpoints, rounds
from training.launch import jobs, turn
from training.models import Checkpoint, Metric, Round

pytestmark = [pytest.mark.services, pytest.mark.django_db(transaction=True)]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    return tiny.make_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def tiny_base(project, tiny_model):
    return checkpoints.import_checkpoint(project, str(tiny_model), "tiny", serve=True)


def test_a_round_turns_the_loop_once(project, tiny_base, rankings, manager):
    started = rounds.start(project, manager, tiny.SETTINGS)
    turn.run(started.pk)

    done = Round.objects.get(pk=started.pk)
    assert (done.error, done.log_tail) == ("", "")
    assert (done.status, done.stage) == ("finished", "comparisons")
    assert set(done.results) == {"reward", "policy", "samples", "baseline"}
    assert (done.checkpoint.kind, done.checkpoint.parent, done.checkpoint.is_served) == ("round", tiny_base, False)
    assert done.checkpoint.source.name == "round-0001"
