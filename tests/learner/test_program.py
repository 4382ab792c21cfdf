"""The `--help` texts of the programs."""

import dataclasses
import importlib
import sys

import pytest

from training.learner.runtime.config import CONFIGS, PpoConfig
from training.learner.runtime.program import help_text, run_program


@pytest.mark.parametrize("program", CONFIGS)
def test_every_setting_has_a_help_text(program):
    for field in dataclasses.fields(CONFIGS[program]):
        assert field.metadata["help"].endswith("."), field.name


def test_help_gives_defaults_limits_and_meanings():
    text = help_text("About.", PpoConfig)
    assert text.startswith("About.\n\nSettings in config.json")
    assert '  "gae_lambda": 0.95\n      a number, at least 0, at most 1\n' in text
    assert '  "critic": "separate"\n      one of "separate", "shared", "reward_model"\n      ppo: separate:' in text
    assert "frozen trunk, which costs almost nothing.\n" in text
    assert '  "rewards": [{"name": "reward_model"}]\n      a list\n' in text


@pytest.mark.parametrize("name", CONFIGS)
def test_help_lists_the_settings_of_each_program(name, monkeypatch, capsys):
    program = importlib.import_module(f"training.learner.{name}")
    monkeypatch.setattr(sys, "argv", [program.__file__, "--help"])
    with pytest.raises(SystemExit) as ended:
        run_program(program.main, CONFIGS[name])
    output = capsys.readouterr()
    assert (ended.value.code, output.err) == (0, "")
    assert output.out.startswith(f"{name}: ")
    assert '"micro_batch_tokens": 4096' in output.out
