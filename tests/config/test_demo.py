"""`manage.py demo` refuses wrong options with one sentence, before anything slow."""

from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from config.management.commands.demo import errors_as_command_errors
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
        ({"rounds": 3}, "--rounds is an option of the simulation"),
        ({"json": "out.json"}, "--json is an option of the simulation"),
        ({"project": "support-dialogues"}, "--project is an option of the simulation"),
        (
            {"simulate": True, "project": "else"},
            '--project is "else": projects of the demo are support, ',
        ),
        (
            {"simulate": True, "project": "support-dialogues", "recipe": "dpo"},
            'of "support-dialogues" are ppo',
        ),
        ({"recipe": "ppo"}, "--recipe is an option of the simulation"),
        ({"simulate": True, "recipe": "sft"}, '--recipe is "sft": recipes that learn from rankings of "support" are '),
        ({"simulate": True, "labels": 0}, "--labels is 0"),
        ({"round_settings": "{}"}, "--round-settings is an option of the simulation"),
        ({"simulate": True, "round_settings": "{"}, "--round-settings is not JSON: "),
        ({"simulate": True, "round_settings": '{"ppo": {"speed": 1}}'}, "unknown setting 'speed'"),
        ({"simulate": True, "round_settings": '{"ppo": 1}'}, "must be an object of sections"),
        ({"simulate": True, "round_settings": '{"round": {"recipe": "sft"}}'}, "choose the recipe with --recipe"),
        ({"simulate": True, "json": Path("/nowhere/out.json")}, "not a folder"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(options, words):
    with pytest.raises(CommandError, match=words):
        call_command("demo", **options)


@pytest.mark.slow
def test_a_missing_model_is_refused(db):
    with pytest.raises(CommandError, match=r"^There is no folder /no/such on this machine\.$"):
        call_command("demo", model="/no/such")


@pytest.mark.parametrize("error", [Conflict("Taken."), RoundFailed("Taken."), ProgramFailed("Taken.", "")])
def test_errors_of_the_loop_keep_their_message(error):
    with pytest.raises(CommandError, match=r"^Taken\.$"), errors_as_command_errors():
        raise error


def test_a_program_that_failed_shows_the_end_of_its_log():
    with pytest.raises(CommandError, match="no luck\nKilled"), errors_as_command_errors():
        raise ProgramFailed("no luck", "Killed")
