"""A round whose reward model has scored the project's rankings, as the program reward writes it."""

import json
import random
from itertools import combinations
from pathlib import Path

from feedback.export import ranking_record
from feedback.models import Project
from training.reward_reports.record import record
from training.rounds.lifecycle import Claim, store_result


def write_job(folder: Path, rows: list[dict], surprise: dict[int, float] | None = None, seed: int = 0) -> Path:
    """Write rankings.jsonl and scored_rankings.jsonl. surprise: by ranking id; otherwise drawn at random."""
    draw = random.Random(seed)
    scored = []
    for number, row in enumerate(rows, 1):
        value = draw.gauss(0, 1) if surprise is None else surprise.get(row["ranking_id"], -1.0)
        line = {"row": number, "split": row["split"], "surprise": value}
        if row["split"] == "held_out":
            scores = [draw.gauss(-rank / 2, 1) for rank in row["ranks"]]
            pairs = list(combinations(scores, 2))
            line |= {"scores": scores, "log_odds": [one - other for one, other in pairs], "ties": [0.1] * len(pairs)}
        scored.append(line)
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in (("rankings", rows), ("scored_rankings", scored)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def report_round(claim: Claim, project: Project, folder: Path, surprise: dict[int, float] | None = None) -> list[dict]:
    """Store the report of the claimed round on all rankings of the project, and return their rows."""
    rows = list(ranking_record.rankings(project))
    best = {"best_possible_accuracy": 0.86, "fitted_temperature": 1.4, "held_out_accuracy": 0.7}
    store_result(claim, "reward", best)
    record(claim, write_job(folder, rows, surprise))
    return rows
