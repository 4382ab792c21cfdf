"""The ten commands of docs/data-and-api.md, run as they are written, by curl against a server."""

import json
import re
import subprocess
from pathlib import Path

import pyarrow.parquet
import pytest

from feedback.actions import tokens
from feedback.models import Prompt
from training.models import Round

GUIDE = Path(__file__).parents[2] / "docs" / "data-and-api.md"
PROMPTS = [{"prompt": "Where is it?", "completions": ["On its way.", "No idea."]}, {"prompt": "Cancel my order."}]
PAIRS = [{"prompt": f"Question {number}?", "chosen": "Yes.", "rejected": "No."} for number in range(3)]
ADDRESS = "http://127.0.0.1:8000"


def commands() -> str:
    """Return the blocks of the setting and of the ten commands."""
    blocks = re.findall(r"```bash\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    return "\n".join(blocks[:2])


def json_lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_the_ten_commands_do_what_they_say(live_server, project, base, rankings, manager, tmp_path):
    script = commands()
    assert re.findall(r"^# (\d+)\.", script, re.MULTILINE) == [str(number) for number in range(1, 11)]
    Prompt.objects.filter(pk=Prompt.objects.order_by("pk").first().pk).update(split="held_out")
    (tmp_path / "prompts.jsonl").write_text(json_lines(PROMPTS))
    (tmp_path / "pairs.jsonl").write_text(json_lines(PAIRS))

    _token, key = tokens.issue_token(manager, "laptop")
    environment = {"TOKEN": key, "PATH": "/usr/bin:/bin"}
    script = "set -euo pipefail\n" + script.replace(ADDRESS, live_server.url).replace("\ncurl ", "\necho; curl ")
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

    answers = [json.loads(line) for line in done.stdout.splitlines() if line]
    uploaded, imported, figures, trust, ratings, started, state, curves = answers
    assert (uploaded["created"], uploaded["comparisons"]) == (2, 1)
    assert (imported["state"], imported["done"], imported["map"]) == ("finished", 1.0, "trl")
    assert imported["counts"]["rankings"] == 3
    assert {person["username"]: person["done"]["total"] for person in figures}["ann"] == 6
    assert "two people" in trust["sentence"]
    assert [row["source"] for row in ratings["ratings"]] == ["import"]
    assert (started["recipe"], started["ranking_count"]) == ("dpo", 9)
    assert Round.objects.get().number == state["number"] == 1
    assert curves == {"curves": [], "is_whole": True, "after": 0, "ended": False}

    pairs = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    held_out = pyarrow.parquet.read_table(tmp_path / "held_out.parquet").to_pylist()
    assert {row["split"] for row in pairs} == {"train"} and {row["split"] for row in held_out} == {"held_out"}
    assert (tmp_path / "later.jsonl").read_text() == ""
