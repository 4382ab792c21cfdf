"""`manage.py bench`: the programs start, and refuse wrong arguments with a sentence. Their figures are not tested."""

import subprocess
import sys

import pytest
from django.conf import settings
from pytest import approx

from tests.benchmarks.learner.paired import Difference, difference, like_steps
from tests.benchmarks.web.pages import card_in
from tests.factories import add_work


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=settings.BASE_DIR, capture_output=True, text=True, timeout=120)


@pytest.mark.process
def test_an_unknown_learner_benchmark_is_refused_with_the_known_names() -> None:
    done = bench("tests.benchmarks.learner", "--only", "nonsense")
    names = "lora_memory, ppo, ppo_recommended, reward_pairs, reward_k4, reward_k9, rloo, sample_b8, sample_b64"
    assert (done.returncode, done.stderr) == (2, f"error: there is no benchmark 'nonsense'; there are {names}.\n")


@pytest.mark.process
def test_an_unknown_model_size_is_refused_with_the_known_sizes() -> None:
    done = bench("tests.benchmarks.learner", "--only", "lora_memory", "--sizes", "3M")
    assert done.returncode == 2
    assert done.stderr.startswith("error: there is no model of size '3M'; there are ")


@pytest.mark.process
@pytest.mark.parametrize(
    ("program", "argument"),
    [("learner", "--runs=0"), ("learner", "--threads=none"), ("learner.real_rankings", "--orders=0"),
     ("web", "--runs=-1")],
)  # fmt: skip
def test_a_number_of_runs_below_one_is_refused(program, argument) -> None:
    done = bench(f"tests.benchmarks.{program}", argument)
    assert done.returncode == 2
    assert done.stderr.endswith(f"{argument.partition('=')[2]!r} is not a whole number of at least 1\n")


@pytest.mark.process
def test_an_unknown_part_of_the_web_benchmark_is_refused_with_the_known_parts() -> None:
    done = bench("tests.benchmarks.web", "--only", "nonsense")
    assert done.returncode == 2
    assert "there is no part 'nonsense'; there are speed, crowd, million" in done.stderr


@pytest.mark.process
def test_the_benchmark_of_real_rankings_names_a_missing_file() -> None:
    done = bench("tests.benchmarks.learner.real_rankings", "nowhere.jsonl")
    assert done.returncode == 2
    assert done.stderr == "error: there is no file nowhere.jsonl.\n"


def test_held_out_accuracies_are_compared_prompt_by_prompt() -> None:
    """Two orders, four prompts: differences of 1/2, 1/4, 0 and 1/4, with standard deviation sqrt(1/24)."""
    ours, peer = ([1, 1, 0.5, 0.5], [1, 0.5, 0.5, 1]), ([0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5])
    result = difference(ours, peer)
    assert result == approx((0.25, (1 / 24) ** 0.5 / 2))
    assert not result.is_chance
    assert Difference(0.03, 0.016).is_chance and Difference(-0.01, 0.001).is_chance


def test_like_steps_counts_steps_until_the_losses_differ() -> None:
    assert like_steps([0.693, 0.5, 0.4, 0.3], [0.693, 0.5004, 0.402, 0.3]) == 2


def test_the_web_benchmark_reads_the_ranking_page_as_it_is(project, annotator, client, plain_static_files) -> None:
    add_work(project, 1)
    client.force_login(annotator)
    card = card_in(client.get(f"/projects/{project.slug}/rank/").content)
    fields = {"lease": card.lease, "key": card.key, "seconds": "3.2", "rank-0": "1", "rank-1": "2", "want": "0"}
    assert card.size == 2
    assert client.post(f"/projects/{project.slug}/rank/submit/", fields, HTTP_HX_REQUEST="true").status_code == 200
    assert project.rankings.count() == 1
