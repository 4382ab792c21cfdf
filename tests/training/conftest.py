"""Prompts, completions and rankings by the product's own functions; no message leaves the process."""

import pytest

from tests.factories import FAST, add_comparisons, fake_model, rank
from tests.training import tiny
from tests.training.services import keep_messages_here
from training import checkpoints
from training.rounds import lifecycle
from training.rounds.start import start_round
from training.run_round import probe_model, process


@pytest.fixture(autouse=True)
def _messages_stay_here(monkeypatch):
    """Tests that want a real broker start it themselves."""
    keep_messages_here(monkeypatch)


@pytest.fixture(autouse=True)
def _files_stay_here(settings, tmp_path):
    settings.DATA_DIR = tmp_path / "data"


@pytest.fixture
def base(project, tmp_path):
    """The served checkpoint."""
    return checkpoints.import_checkpoint(project, str(fake_model(tmp_path / "base")), "base", serve=True, verdict=FAST)


@pytest.fixture
def comparisons(project):
    """Twenty comparisons of three completions each, by an import."""
    return add_comparisons(project, "import", 20)


@pytest.fixture
def rankings(project, comparisons, annotator):
    rank(project, annotator, 6)


@pytest.fixture
def waiting(project, base, rankings, manager):
    """A round that waits for a worker."""
    return start_round(project, manager)


@pytest.fixture
def claim(waiting):
    """The claim on the waiting round."""
    return lifecycle.claim(waiting.pk, "gpu-1:100")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    return tiny.make_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def tiny_base(project, tiny_model):
    """A served checkpoint that can really be run."""
    return checkpoints.import_checkpoint(project, str(tiny_model), "tiny", serve=True, verdict=FAST)


@pytest.fixture
def forked_programs(monkeypatch):
    """Rounds that this process runs start their programs by a fork, without six seconds of imports each."""
    from tests.training import forked  # imports torch

    monkeypatch.setattr(process, "start", forked.start)
    monkeypatch.setattr(probe_model, "start", forked.start_check)
