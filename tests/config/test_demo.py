"""`manage.py demo` when it is asked for what cannot be had: one sentence, before anything slow."""

from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from config.management.commands.demo import refusals_in_a_sentence
from feedback.errors import Conflict
from training.demo.seed import RoundFailed
from training.run_round.process import ProgramFailed


@pytest.fixture(autouse=True)
def _nothing_is_prepared(monkeypatch, settings, tmp_path):
    settings.DATA_DIR = tmp_path
    monkeypatch.setattr("config.runtime.site.prepare", lambda report: None)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rounds": 3}, "--rounds says how to simulate"),
        ({"json": "out.json"}, "--json says how to simulate"),
        ({"simulate": True, "labels": 0}, "--labels is 0"),
        ({"simulate": True, "json": Path("/nowhere/out.json")}, "not a folder"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, words):
    with pytest.raises(CommandError, match=words):
        call_command("demo", **options)


def test_a_model_that_is_not_there_is_refused(db):
    with pytest.raises(CommandError, match=r"^There is no folder /no/such on this machine\.$"):
        call_command("demo", model="/no/such")


@pytest.mark.parametrize("refusal", [Conflict("Taken."), RoundFailed("Taken."), ProgramFailed("Taken.", "")])
def test_whatever_the_loop_refuses_is_said_in_its_own_words(refusal):
    with pytest.raises(CommandError, match=r"^Taken\.$"), refusals_in_a_sentence():
        raise refusal


def test_a_program_that_failed_shows_the_end_of_its_log():
    with pytest.raises(CommandError, match="no luck\nKilled"), refusals_in_a_sentence():
        raise ProgramFailed("no luck", "Killed")
