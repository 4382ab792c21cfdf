"""TRL trains on exports as they are, and `datasets` reads every format from the address with a token.

Both live in the environment that `manage.py bench learner` builds for its peer; without it the tests are skipped.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest

from feedback.export.formats import FORMATS
from feedback.reports import preference_export
from tests.benchmarks.peers import FOLDER
from tests.factories import add_work, rank_next
from tests.training import tiny

PYTHON = FOLDER / "trl-1.16" / "bin" / "python"
pytestmark = [
    pytest.mark.full,
    pytest.mark.process,
    pytest.mark.django_db,
    pytest.mark.skipif(not PYTHON.exists(), reason="the peer trl-1.16 is not installed"),
]
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
TRAIN = """
import json, sys
from datasets import load_dataset
from transformers import AutoTokenizer
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, RewardConfig, RewardTrainer

folder, model = sys.argv[1:]
common = {"max_steps": 1, "per_device_train_batch_size": 2, "report_to": "none", "use_cpu": True, "bf16": False,
          "gradient_checkpointing": False, "save_strategy": "no", "disable_tqdm": True}
tokenizer = AutoTokenizer.from_pretrained(model)
losses = {}
for name, Trainer, Config in (
    ("trl", DPOTrainer, DPOConfig),
    ("trl-implicit", RewardTrainer, RewardConfig),
    ("kto", KTOTrainer, KTOConfig),
):
    for kind, file in (("json", f"{folder}/{name}.jsonl"), ("parquet", f"{folder}/{name}.parquet")):
        rows = load_dataset(kind, data_files=file, split="train", cache_dir=f"{folder}/cache")
        config = Config(output_dir=f"{folder}/out", max_length=64, **common)
        trainer = Trainer(model=model, args=config, train_dataset=rows, processing_class=tokenizer)
        losses[f"{name} {kind}"] = trainer.train().training_loss
print(json.dumps(losses))
"""


@pytest.fixture
def exported(ann, project, tmp_path) -> Path:
    """Files of all three formats, of rankings with and without ties."""
    add_work(project, 6, size=3)
    while rank_next(ann):
        pass
    for name in ("trl", "trl-implicit", "kto"):
        for kind in ("jsonl", "parquet"):
            content = preference_export.export(project, name, split="all", file=kind).content()
            (tmp_path / f"{name}.{kind}").write_bytes(b"".join(content))
    return tmp_path


def run(script: str, *arguments: object, offline: str = "1") -> dict:
    environment = os.environ | {"HF_HUB_OFFLINE": offline, "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    command = [str(PYTHON), "-c", script, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_trl_trains_on_the_files_unmodified(exported, tmp_path):
    model = tiny.make_model(tmp_path / "model")
    path = model / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": TEMPLATE}))
    losses = run(TRAIN, exported, model)
    assert len(losses) == 6
    for name in ("trl", "trl-implicit", "kto"):
        assert losses[f"{name} json"] == pytest.approx(losses[f"{name} parquet"])
        assert losses[f"{name} json"] > 0


READ = """
import json, sys
from datasets import DownloadConfig, load_dataset

address, token, folder, *names = sys.argv[1:]
config = DownloadConfig(use_etag=True, storage_options={"headers": {"Authorization": f"Bearer {token}"}})
sizes = {}
for name in names:
    rows = load_dataset("json", data_files=address + name, split="train", download_config=config, cache_dir=folder)
    sizes[name] = len(rows)
print(json.dumps(sizes))
"""


def has_http_client() -> bool:
    return subprocess.run([str(PYTHON), "-c", "import aiohttp, requests"], capture_output=True).returncode == 0


@pytest.mark.django_db(transaction=True)
def test_datasets_reads_every_format_from_its_address(ann, manager, project, live_server, tmp_path):
    from feedback.actions.tokens import issue_token

    if not has_http_client():
        pytest.skip("reading from an address needs aiohttp and requests in the environment of the peer")
    add_work(project, 3, size=3)
    while rank_next(ann):
        pass
    names = sorted(FORMATS)
    queries = [f"{name}&split=all" for name in names]
    address = f"{live_server.url}/api/v1/projects/{project.slug}/preferences?format="
    token = issue_token(manager, "datasets")[1]
    sizes = run(READ, address, token, tmp_path / "cache", *queries, offline="0")
    lines = {name: len(list(preference_export.export(project, name, split="all").rows)) for name in names}
    assert sizes == {f"{name}&split=all": count for name, count in lines.items()}
