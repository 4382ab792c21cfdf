"""`manage.py test`: the arguments with which it runs in parallel, and the tests that it leaves out."""

import pytest

from config.runtime import testing
from config.runtime.errors import SetupError
from tests.lengths import length


@pytest.mark.parametrize(
    "arguments",
    [[], ["-q", "-x"], ["-m", "slow and not process"], ["-k", "gae or tests"], ["-m", "browser", "--durations", "10"]],
)
def test_without_a_path_all_cores_are_used(arguments):
    assert testing.is_parallel(arguments)


@pytest.mark.parametrize(
    "arguments",
    [["tests/learner", "-k", "gae"], ["-m", "slow", "tests"], ["tests/test_imports.py::test_x"], ["-n0"], ["-n", "2"]],
)
def test_arguments_with_a_path_or_a_number_of_processes_are_not_changed(arguments, monkeypatch):
    monkeypatch.chdir(testing.services.BASE_DIR)
    assert not testing.is_parallel(arguments)


def test_fast_keeps_the_other_arguments_and_stays_parallel():
    arguments = testing.fast_arguments(["-x", "--fast", "-k", "queue"])
    assert arguments == ["-m", testing.FAST, "--reuse-db", "-x", "-k", "queue"]
    assert testing.is_parallel(arguments)


def test_the_option_fast_with_a_marker_expression_is_refused():
    with pytest.raises(SetupError, match="leave out one of --fast and -m"):
        testing.fast_arguments(["--fast", "-m", "browser"])


@pytest.mark.parametrize("arguments", [[], ["-x", "--durations=10"]])
def test_the_test_command_without_arguments_skips_tests_marked_full_except_in_ci(arguments):
    assert testing.chosen(arguments, is_ci=False) == ["-m", "not full", *arguments]
    assert testing.chosen(arguments, is_ci=True) == arguments
    assert testing.chosen([*arguments, "--full"], is_ci=False) == arguments


@pytest.mark.parametrize("arguments", [["tests/config"], ["-m", "full"], ["-k", "migrations"]])
def test_a_path_or_marker_of_the_user_also_runs_tests_marked_full(arguments, monkeypatch):
    monkeypatch.chdir(testing.services.BASE_DIR)
    assert testing.chosen(arguments, is_ci=False) == arguments


@pytest.mark.parametrize(("variable", "expected"), [("1", 500), ("", 100)])
def test_tests_that_simulate_have_their_full_length_where_tests_marked_full_run(variable, expected, monkeypatch):
    monkeypatch.setenv("ACCORD_FULL_TESTS", variable)
    assert length(full=500, short=100) == expected
