"""`manage.py bench`: the programs start, and refuse wrong arguments with a sentence. Their figures are not tested."""

import importlib
import inspect
import sys
from collections.abc import Callable

import pytest
from pytest import approx

from tests.benchmarks.learner.paired import Difference, difference, equal_steps
from tests.benchmarks.web.pages import card_in
from tests.factories import add_work


@pytest.fixture
def bench(monkeypatch, capsys) -> Callable[..., tuple[int, str]]:
    """Run a benchmark's main function here; return the exit status and what it printed as errors."""

    def run(program: str, *arguments: str) -> tuple[int, str]:
        monkeypatch.setenv("BENCH_DTYPE", "")  # the program sets it, and this restores it
        monkeypatch.setattr(sys, "argv", [program, *arguments])
        main = importlib.import_module(f"tests.benchmarks.{program}").main
        try:
            status = main(list(arguments)) if inspect.signature(main).parameters else main()
        except SystemExit as end:
            status = end.code
        return status, capsys.readouterr().err

    return run


def test_the_benchmark_of_imports_refuses_a_file_without_rows(bench) -> None:
    status, errors = bench("imports", "--rows", "0")
    assert status == 2 and "'0' is not a whole number of at least 1" in errors


def test_an_unknown_learner_benchmark_is_refused_with_the_known_names(bench) -> None:
    names = (
        "dpo_pairs, dpo_k4, lora_memory, ppo, ppo_recommended, "
        "reward_pairs, reward_k4, reward_k9, rloo, sample_b8, sample_b64"
    )
    refusal = f"error: there is no benchmark 'nonsense'; there are {names}.\n"
    assert bench("learner.__main__", "--only", "nonsense") == (2, refusal)


def test_an_unknown_model_size_is_refused_with_the_known_sizes(bench) -> None:
    status, error = bench("learner.__main__", "--only", "lora_memory", "--sizes", "3M")
    assert status == 2
    assert error.startswith("error: there is no model of size '3M'; there are ")


@pytest.mark.parametrize(
    ("program", "argument"),
    [("learner.__main__", "--runs=0"), ("learner.__main__", "--threads=none"),
     ("learner.real_rankings", "--orders=0"), ("web.__main__", "--runs=-1")],
)  # fmt: skip
def test_a_number_of_runs_below_one_is_refused(bench, program, argument) -> None:
    status, error = bench(program, argument)
    assert status == 2
    assert error.endswith(f"{argument.partition('=')[2]!r} is not a whole number of at least 1\n")


def test_an_unknown_part_of_the_web_benchmark_is_refused_with_the_known_parts(bench) -> None:
    status, error = bench("web.__main__", "--only", "nonsense")
    assert status == 2
    assert "there is no part 'nonsense'; there are speed, crowd, million, routing" in error


def test_the_benchmark_of_real_rankings_names_a_missing_file(bench) -> None:
    status, error = bench("learner.real_rankings", "nowhere.jsonl")
    assert status == 2
    assert error == "error: there is no file nowhere.jsonl.\n"


def test_held_out_accuracies_are_compared_prompt_by_prompt() -> None:
    """Two orders, four prompts: differences of 1/2, 1/4, 0 and 1/4, with standard deviation sqrt(1/24)."""
    ours, peer = ([1, 1, 0.5, 0.5], [1, 0.5, 0.5, 1]), ([0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5])
    result = difference(ours, peer)
    assert result == approx((0.25, (1 / 24) ** 0.5 / 2))
    assert not result.is_chance
    assert Difference(0.03, 0.016).is_chance and Difference(-0.01, 0.001).is_chance


def test_equal_steps_counts_steps_until_the_losses_differ() -> None:
    assert equal_steps([0.693, 0.5, 0.4, 0.3], [0.693, 0.5004, 0.402, 0.3]) == 2


@pytest.mark.slow
def test_the_web_benchmark_parses_the_current_ranking_page(project, annotator, client, plain_static_files) -> None:
    add_work(project, 1)
    client.force_login(annotator)
    card = card_in(client.get(f"/projects/{project.slug}/rank/").content)
    fields = {"lease": card.lease, "key": card.key, "seconds": "3.2", "rank-0": "1", "rank-1": "2", "want": "0"}
    assert card.size == 2
    assert client.post(f"/projects/{project.slug}/rank/submit/", fields, HTTP_HX_REQUEST="true").status_code == 200
    assert project.rankings.count() == 1
