"""`manage.py bench`: the programs start, and a name that is not theirs is a sentence. Their figures are no test's."""

import subprocess
import sys

from django.conf import settings


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=settings.BASE_DIR, capture_output=True, text=True, timeout=120)


def test_the_learners_benchmarks_are_those_that_are_asked_for() -> None:
    done = bench("tests.benchmarks.learner", "--only", "nonsense")
    names = "lora_memory, ppo, ppo_recommended, reward_pairs, reward_k4, reward_k9, rloo, sample_b8, sample_b64"
    assert (done.returncode, done.stderr) == (2, f"error: there is no benchmark 'nonsense'; there are {names}.\n")


def test_a_size_that_is_none_is_a_sentence() -> None:
    done = bench("tests.benchmarks.learner", "--only", "lora_memory", "--sizes", "3M")
    assert done.returncode == 2
    assert done.stderr.startswith("error: there is no model of size '3M'; there are ")


def test_the_sites_benchmark_knows_its_parts() -> None:
    done = bench("tests.benchmarks.web", "--only", "nonsense")
    assert done.returncode == 2
    assert "there is no part 'nonsense'; there are speed, crowd, million" in done.stderr
