"""One program as a process: watched, stopped, ended with its worker, and its reason of failure.

What runs here is a few lines of Python in place of a learner's program, each with one bad habit.
"""

import json
import os
import subprocess
import sys

import psutil
import pytest

from tests.training.services import wait_until
from training.run_round import process
from training.run_round.lines import LinesTail

pytestmark = pytest.mark.process

BEGIN = "import json, os, pathlib, signal, sys, time; folder = pathlib.Path(sys.argv[1])\n"
SUCCEED = "(folder / 'result.json').write_text('{}')\n"
STOPPABLE = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\n(folder / 'up').touch()\ntime.sleep(600)\n"
STUBBORN = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n(folder / 'up').touch()\ntime.sleep(600)\n"


@pytest.fixture
def directory(tmp_path):
    made = tmp_path / "job"
    made.mkdir()
    return made


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Puts these lines where the program `ppo` would run."""
    script = tmp_path / "training.learner.py"  # by its name, a leftover is known as ours

    def put(lines):
        script.write_text(BEGIN + lines)
        monkeypatch.setattr(
            process, "command_line", lambda program, directory, processes: [sys.executable, str(script), str(directory)]
        )

    return put


def never():
    return False


def test_a_program_that_succeeds_returns(program, directory):
    program("print('a word')\n" + SUCCEED)
    process.run("ppo", directory, 1, never)
    assert "a word" in (directory / "log.txt").read_text()


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ("sys.stderr.write('error: rankings.jsonl, line 3 is not JSON\\n'); sys.exit(2)", "rankings.jsonl, line 3 is"),
        ("raise RuntimeError('shapes differ')", "RuntimeError: shapes differ"),
        ("sys.exit(3)", "it printed nothing"),
        ("print('done')", "ended without a result"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL (often: the machine ran out of memory)"),
        ("os.abort()", "SIGABRT"),
    ],
)
def test_a_failed_program_gives_its_reason_in_a_sentence(program, directory, lines, sentence):
    program(lines)
    with pytest.raises(process.ProgramFailed) as failure:
        process.run("ppo", directory, 1, never)
    assert str(failure.value).startswith("The ppo program ")
    assert sentence in str(failure.value)


def test_the_reason_of_an_earlier_run_is_not_reported_again(program, directory):
    program("sys.stderr.write('error: the old reason\\n'); sys.exit(2)")
    with pytest.raises(process.ProgramFailed):
        process.run("ppo", directory, 1, never)
    program("sys.exit(3)")
    with pytest.raises(process.ProgramFailed) as failure:
        process.run("ppo", directory, 1, never)
    assert "old reason" not in str(failure.value)
    assert "old reason" in failure.value.log_tail


def test_a_long_log_keeps_its_end(program, directory):
    program("print('\\n'.join(f'line {n}' for n in range(20_000))); sys.exit(1)")
    with pytest.raises(process.ProgramFailed) as failure:
        process.run("ppo", directory, 1, never)
    lines = failure.value.log_tail.splitlines()
    assert (len(lines), lines[-1]) == (process.LOG_TAIL, "line 19999")


def test_a_program_stops_on_request(program, directory):
    program(STOPPABLE)
    with pytest.raises(process.ProgramStopped):
        process.run("ppo", directory, 1, (directory / "up").exists)


def test_a_program_that_does_not_listen_is_killed(program, directory, monkeypatch):
    monkeypatch.setattr(process, "GRACE", 0.5)
    program(STUBBORN)
    with pytest.raises(process.ProgramStopped):
        process.run("ppo", directory, 1, (directory / "up").exists)


SLOW_TO_STOP = (
    "def finish_the_step(*_):\n    time.sleep(0.6)\n    (folder / 'saved').touch()\n    sys.exit(75)\n"
    "signal.signal(signal.SIGTERM, finish_the_step)\n(folder / 'up').touch()\ntime.sleep(600)\n"
)


@pytest.mark.parametrize(("grace", "is_saved"), [(60.0, True), (0.1, False)])
def test_a_program_with_long_steps_has_the_time_to_save_its_state(program, directory, grace, is_saved):
    program(SLOW_TO_STOP)
    with pytest.raises(process.ProgramStopped):
        process.run("ppo", directory, 1, (directory / "up").exists, lambda: grace)
    assert (directory / "saved").exists() == is_saved


def test_a_cancel_leaves_time_for_twice_the_longest_of_the_last_steps(directory):
    assert process.grace_for_step(directory) == process.GRACE
    times = [0.0, 500.0, *(501.0 + n for n in range(7)), 519.0, 520.0]  # the 500 s are eleven lines ago
    lines = [json.dumps({"step": n, "total": 20, "time": time}) + "\n" for n, time in enumerate(times)]
    (directory / "metrics.jsonl").write_text("".join(lines))
    assert process.grace_for_step(directory) == process.GRACE + 2 * 12.0
    with (directory / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 12, "total": 20, "time": 9000.0}) + "\n")
    assert process.grace_for_step(directory) == process.MAX_GRACE


def test_child_processes_of_a_program_end_with_it(program, directory):
    program(
        "import subprocess\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "(folder / 'child').write_text(str(child.pid))\n" + SUCCEED
    )
    process.run("ppo", directory, 1, never)
    child = int((directory / "child").read_text())
    wait_until(lambda: not is_alive(child), "the child is gone")


def test_an_error_of_the_watcher_ends_the_program(program, directory):
    program(STOPPABLE)

    def watch():
        if (directory / "up").exists():
            raise RuntimeError("the database is away")
        return False

    with pytest.raises(RuntimeError):
        process.run("ppo", directory, 1, watch)
    assert process.programs_on(directory) == []


def test_a_program_gets_no_secrets_in_its_environment(program, directory, monkeypatch):
    monkeypatch.setenv("SECRET_KEY", "hidden")
    monkeypatch.setenv("HF_HOME", "/models")
    program("(folder / 'environment').write_text(json.dumps(dict(os.environ)))\n" + SUCCEED)
    process.run("ppo", directory, 1, never)
    environment = json.loads((directory / "environment").read_text())
    assert environment["HF_HOME"] == "/models"
    assert not {"SECRET_KEY", "DATABASE_URL", "CELERY_BROKER_URL"} & set(environment)


def test_a_program_gets_the_key_of_the_simulated_user_in_its_environment_alone(program, directory, settings):
    settings.SIMULATED_USER_KEY = "sk-hidden"
    show = "(folder / 'seen').write_text(json.dumps([os.environ.get('ACCORD_SIMULATED_USER_KEY'), sys.argv]))\n"
    program(f"import sys\n{show}{SUCCEED}")
    process.run("ppo", directory, 1, never)
    key, arguments = json.loads((directory / "seen").read_text())
    assert key == "sk-hidden" and not any(key in argument for argument in arguments)
    assert key not in (directory / "log.txt").read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux only")
def test_a_program_ends_when_its_worker_is_killed(tmp_path):
    """The worker here is a process that starts a program as `process.start` does, and is then killed outright."""
    worker = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import os, subprocess, sys, time\n"
            "program = [sys.executable, '-c', 'import time; time.sleep(600)']\n"
            f"command = [sys.executable, {str(process.DIE_WITH_PARENT)!r}, str(os.getpid()), *program]\n"
            "started = subprocess.Popen(command,"
            " start_new_session=True)\n"
            "print(started.pid, flush=True)\n"
            "time.sleep(600)\n",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    program = int(worker.stdout.readline())
    assert is_alive(program)
    wait_until(lambda: "die_with_parent" not in command_of(program), "the program replaces die_with_parent")
    worker.kill()
    worker.wait()
    wait_until(lambda: not is_alive(program), "the program is gone")


@pytest.mark.full
def test_a_leftover_of_a_dead_worker_is_ended_first(program, directory):
    program(STUBBORN)
    leftover = process.start("ppo", directory, 1)
    wait_until((directory / "up").exists, "the leftover runs")
    program(SUCCEED)
    process.run("ppo", directory, 1, never)
    leftover.wait(10)
    assert not is_alive(leftover.pid)


def test_leftover_processes_of_a_launcher_in_another_session_are_ended_too(program, directory):
    """`accelerate launch` starts its processes so; a launcher that dies leaves them behind."""
    program(
        "import subprocess\n"
        "if len(sys.argv) == 2:\n"
        "    subprocess.Popen([sys.executable, *sys.argv, 'child'], start_new_session=True)\n"
        "    while not (folder / 'up').exists(): time.sleep(0.05)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n" + STUBBORN
    )
    with pytest.raises(process.ProgramFailed):
        process.run("ppo", directory, 1, never)
    assert process.programs_on(directory) == []


def test_other_processes_are_left_alone(program, directory, tmp_path):
    """A program on another directory, and another program on this one."""
    beside = tmp_path / "job2"
    wait = [sys.executable, "-c", "import time; time.sleep(600)"]
    others = [subprocess.Popen([*wait, "training.learner", str(beside)]), subprocess.Popen([*wait, str(directory)])]
    program(SUCCEED)
    process.run("ppo", directory, 1, never)
    assert [other.poll() for other in others] == [None, None]
    for other in others:
        other.kill()
        other.wait()


def test_several_processes_run_under_accelerate(directory):
    one = process.command_line("ppo", directory, 1)
    several = process.command_line("ppo", directory, 4)
    assert one[1:] == ["-m", "training.learner.ppo", str(directory)]
    assert several[1:3] == ["-m", "accelerate.commands.launch"]
    assert several[several.index("--num_processes") + 1] == "4"
    assert several[-3:] == one[1:]


def test_metrics_are_followed_line_by_line_and_from_the_start_after_a_resume(directory):
    file, kept = directory / "metrics.jsonl", []
    tail = LinesTail(file, lambda lines, from_start: kept.append(([line["step"] for line in lines], from_start)))
    tail.read()
    file.write_text('{"step": 1}\n{"step": 2}\n{"st')
    tail.read()
    with file.open("a") as growing:
        growing.write('ep": 3}\n')
    tail.read()
    tail.read()
    rewritten = directory / "metrics.jsonl.new"
    rewritten.write_text('{"step": 1}\n{"step": 2}\n')
    rewritten.replace(file)
    tail.read()
    assert kept == [([1, 2], True), ([3], False), ([1, 2], True)]


def is_alive(number):
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return "zombie" not in status_of(number)


def status_of(number):
    try:
        return psutil.Process(number).status()
    except psutil.NoSuchProcess:
        return "zombie"


def command_of(number):
    return " ".join(psutil.Process(number).cmdline())
