"""What the programs say when they are asked for help."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from training.learner.config import CONFIGS, PpoConfig
from training.learner.program import comments, help_text

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("program", CONFIGS)
def test_every_setting_says_what_it_means(program):
    names = {field.name for field in dataclasses.fields(CONFIGS[program])}
    assert set(comments(CONFIGS[program])) == names


def test_help_gives_defaults_limits_and_comments_of_several_lines():
    text = help_text("About.", PpoConfig)
    assert text.startswith("About.\n\nSettings in config.json")
    assert '  "gae_lambda": 0.95\n      a number, at least 0, at most 1\n' in text
    assert (
        '  "critic": "separate"\n      one of "separate", "shared", "reward_model"\n      ppo: a model of its own;'
        in text
    )
    assert "so that a critic costs next to nothing\n" in text
    assert '  "rewards": [{"name": "reward_model"}]\n      a list\n' in text


def test_the_program_itself_is_asked():
    done = subprocess.run(
        [sys.executable, "-m", "training.learner.sample", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("sample: completions of given prompts")
    assert '"top_p": 1.0' in done.stdout
