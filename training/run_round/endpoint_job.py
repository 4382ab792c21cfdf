"""Job of an endpoint: it answers the prompts of the job directory. It runs in the worker, because it needs no torch.

    config.json     endpoint (its name), temperature, top_p, max_completion_tokens, completions_per_prompt
    prompts.jsonl   as for the program `sample`
    answers.jsonl   one line per completion or failure as it arrives: what a resumed round need not ask for again
    samples.jsonl   as `sample` writes it, with model, finish_reason and token counts
    result.json     tokens, cost, failures

The address and the key are read from the database when the job starts, so they are in no file, and a round whose
endpoint was wrong resumes with the right ones.
"""

import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from feedback.errors import AccordError
from feedback.models import Project
from training.endpoints import records
from training.endpoints.client import Client, EndpointFailed, Stopped, Written, opened
from training.learner.runtime.jobdir import JobDirectory
from training.models import Endpoint
from training.run_round.process import ProgramFailed, ProgramStopped

ANSWERS = "answers.jsonl"
FAILURES_IN_A_ROW = 10  # after so many prompts without an answer, the endpoint is down
POLL_SECONDS = 0.2
Row = dict[str, Any]


def run(project: Project, directory: Path, watch: Callable[[], bool]) -> None:
    """Let the endpoint write all completions, then write the result.

    `watch` is called several times a second and returns whether to stop. Raises ProgramStopped after a stop, and
    ProgramFailed if the endpoint refuses, or gives no answer to several prompts in a row.
    """
    begun = time.monotonic()
    job = JobDirectory(directory)
    config = job.config()
    try:
        endpoint = records.named(project, config["endpoint"])
        client = records.client_of(endpoint)
    except AccordError as refusal:
        raise ProgramFailed(refusal.message, "") from refusal
    done = _earlier(directory, config["completions_per_prompt"])
    used = Counter[str]()
    try:
        with opened(client), (directory / ANSWERS).open("a", encoding="utf-8") as file:
            for row in _answers(client, endpoint, job, config, done, watch):
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                file.flush()
                done[row["number"]] = row
                used.update(requests="text" in row)
                used.update({name: row.get(name) or 0 for name in ("prompt_tokens", "completion_tokens")})
    finally:
        if used["requests"]:
            records.add_usage(endpoint, used["requests"], used["prompt_tokens"], used["completion_tokens"])
    rows = [done[number] for number in sorted(done)]
    job.write_rows("samples.jsonl", (_sample(row) for row in rows if "text" in row))
    job.write_result(_result(endpoint, rows, time.monotonic() - begun))


def _earlier(directory: Path, per_prompt: int) -> dict[int, Row]:
    """Return the completions of an earlier attempt by their numbers. What failed is asked for again."""
    file = directory / ANSWERS
    if not file.is_file():
        return {}
    content = file.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]  # the last line of a killed worker may be cut off
    if whole != content:
        file.write_bytes(whole)
    rows = [json.loads(line) for line in whole.decode().split("\n") if line]
    return {row["number"]: row for row in rows if "text" in row}


def _answers(
    client: Client, endpoint: Endpoint, job: JobDirectory, config: Row, done: dict[int, Row], watch: Callable[[], bool]
) -> Iterator[Row]:
    """Yield the rows of the missing completions as they arrive, `concurrency` at once."""
    per_prompt, prompts = config["completions_per_prompt"], list(job.rows("prompts.jsonl"))
    total = len(prompts) * per_prompt
    missing = (number for number in range(total) if number not in done)
    parameters = {name: config[name] for name in ("temperature", "top_p")}
    job.truncate_metrics(len(done))
    running: set[int] = set()
    answers: SimpleQueue[tuple[int, Written | Exception]] = SimpleQueue()
    in_a_row, finished = 0, len(done)
    try:
        while True:
            for number in itertools.islice(missing, endpoint.concurrency - len(running)):
                messages = prompts[number // per_prompt]["messages"]
                running.add(number)
                _start(answers, number, client, (messages, parameters, config["max_completion_tokens"]))
            if not running:
                return
            with suppress(Empty):
                number, outcome = answers.get(timeout=POLL_SECONDS)
                running.remove(number)
                place = {"number": number, "prompt_id": prompts[number // per_prompt]["prompt_id"]}
                row = place | {"index": number % per_prompt} | _outcome(outcome)
                in_a_row = 0 if "text" in row else in_a_row + 1
                yield row
                if in_a_row >= FAILURES_IN_A_ROW:
                    raise ProgramFailed(f"{row['error']} {in_a_row} prompts in a row got no answer.", "")
                finished += 1
                job.append_metrics(finished, total, samples=float(finished), tokens=float(row.get("tokens", 0)))
            if watch():
                raise ProgramStopped
    finally:
        client.close()


def _start(
    answers: "SimpleQueue[tuple[int, Written | Exception]]", number: int, client: Client, request: tuple[Any, ...]
) -> None:
    """Let a thread send a request and put its outcome into the queue.

    The thread is a daemon, because nothing can end the wait for an answer: the worker must be able to end before it.
    """

    def ask() -> None:
        try:
            answers.put((number, client.complete(*request)))
        except Exception as error:  # noqa: BLE001 (the reader of the queue raises it)
            answers.put((number, error))

    Thread(target=ask, daemon=True, name=f"endpoint {number}").start()


def _outcome(outcome: Written | Exception) -> Row:
    """Return the completion, or the sentence that says why there is none. Raise ProgramFailed if none will come."""
    if isinstance(outcome, Stopped):
        raise ProgramStopped
    if isinstance(outcome, EndpointFailed):
        if outcome.is_final:
            raise ProgramFailed(outcome.message, "") from outcome
        return {"error": outcome.message}
    if isinstance(outcome, Exception):
        raise outcome
    return {
        "text": outcome.text,
        "ended": outcome.finish_reason == "stop",
        "tokens": outcome.completion_tokens or 0,
        "prompt_tokens": outcome.prompt_tokens,
        "completion_tokens": outcome.completion_tokens,
        "finish_reason": outcome.finish_reason,
        "model": outcome.model,
        "seconds": round(outcome.seconds, 3),
    }


def _sample(row: Row) -> Row:
    return {name: value for name, value in row.items() if name not in ("number", "seconds", "completion_tokens")}


def _result(endpoint: Endpoint, rows: list[Row], seconds: float) -> Row:
    written = [row for row in rows if "text" in row]
    if not written:
        raise ProgramFailed(rows[0]["error"] if rows else "The endpoint was asked nothing.", "")
    counted = [row for row in written if row["prompt_tokens"] is not None and row["completion_tokens"] is not None]
    prompt_tokens = sum(row["prompt_tokens"] for row in counted)
    completion_tokens = sum(row["completion_tokens"] for row in counted)
    return {
        "program": "endpoint",
        "endpoint": endpoint.name,
        "model": Counter(row["model"] for row in written).most_common(1)[0][0],
        "samples": len(written),
        "failed": len(rows) - len(written),
        "errors": dict(Counter(row["error"] for row in rows if "error" in row).most_common(5)),
        "seconds": seconds,
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "uncounted": len(written) - len(counted),  # completions without `usage`
        "cost": records.cost_of(endpoint, prompt_tokens, completion_tokens),
        "tokens_mean": sum(row["tokens"] for row in written) / len(written),
        "ended_fraction": sum(row["ended"] for row in written) / len(written),
    }
