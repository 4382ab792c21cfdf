"""Prompts, completions and rankings by the product's own functions; no message leaves the process."""

import json
from uuid import uuid4

import pytest
from celery import current_app

from feedback import intake, judging, people, queue
from feedback.models import Source
from tests.training import tiny
from training import checkpoints, rounds


@pytest.fixture(autouse=True)
def _messages_stay_here(monkeypatch):
    """A broker in this process's memory: tests that want a real one start it themselves."""
    for name, value in {"broker_url": "memory://localhost", "broker_transport_options": {}}.items():
        monkeypatch.setitem(current_app.conf.changes, name, value)


@pytest.fixture(autouse=True)
def _files_stay_here(settings, tmp_path):
    settings.DATA_DIR = tmp_path / "data"


@pytest.fixture(autouse=True)
def _pages_need_no_collected_files(settings):
    plain = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    settings.STORAGES = {**settings.STORAGES, "staticfiles": plain}


def fake_model(folder, **config):
    """Files that look like a model from outside; enough for whatever never loads it."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **config}))
    for name in ("model.safetensors", "tokenizer.json"):
        (folder / name).touch()
    return folder


def random_model(folder, kind="llama", **config):
    """A random model in a folder that loads."""
    from tokenizers import Tokenizer, models
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(["<end>", "a", "b", "c"])}, "a"))
    template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"num_key_value_heads": 1, "vocab_size": 4, "eos_token_id": 0, "pad_token_id": 0, "bos_token_id": 0}
    AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes, **config)).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>", chat_template=template).save_pretrained(folder)
    return folder


@pytest.fixture
def base(project, tmp_path):
    """The served checkpoint."""
    return checkpoints.import_checkpoint(project, str(fake_model(tmp_path / "base")), "base", serve=True)


@pytest.fixture
def comparisons(project):
    """Twenty comparisons of three completions each, by an import."""
    return add_comparisons(project, "import", 20)


def add_comparisons(project, source, count, offset=0):
    prompts = intake.add_prompts(project, [{"prompt": f"Where is parcel {n}?"} for n in range(offset, offset + count)])
    found = intake.get_source(project, source, Source.Kind.IMPORT)
    rows = [
        {"prompt_id": pk, "text": f"{text} {source}"} for pk in prompts.prompt_ids for text in ("Soon.", "No.", "?")
    ]
    ids = intake.add_completions(project, found, rows)
    return intake.add_comparisons(project, [ids[n : n + 3] for n in range(0, len(ids), 3)]).created


def rank(project, annotator, count):
    """The annotator ranks the next comparisons, the first shown best."""
    membership = people.membership_of(annotator, project.slug)
    for _ in range(count):
        lease = queue.lease_next(membership)
        judging.record(membership, lease.id, [1, 2, 2], idempotency_key=uuid4(), seconds=3.0)


@pytest.fixture
def rankings(project, comparisons, annotator):
    rank(project, annotator, 6)


@pytest.fixture
def waiting(project, base, rankings, manager):
    """A round that waits for a worker."""
    return rounds.start(project, manager)


@pytest.fixture
def claim(waiting):
    """That round, claimed."""
    return rounds.claim(waiting.pk, "gpu-1:100")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    return tiny.make_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def tiny_base(project, tiny_model):
    """A served checkpoint that can really be run."""
    return checkpoints.import_checkpoint(project, str(tiny_model), "tiny", serve=True)
