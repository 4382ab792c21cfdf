"""Settings are declared once: labels, sentences, defaults and limits, for the form, the API and the documentation."""

import dataclasses
import json

import pytest

from config.settings import BASE_DIR
from training.learner.runtime.config import CONFIGS
from training.learner.runtime.fields import default_of
from training.learner.runtime.program import limits_in_words
from training.rounds import declared
from training.rounds.recipes import RECIPES
from training.rounds.settings import FILLED_IN, RoundSettings, resolve

BY_HAND = {"architecture", "vocabulary_size"}  # a round always has a model
PAGE = BASE_DIR / "docs" / "settings.md"


class Recorder(dict):
    """Settings of the section "round" that remember which of them were read."""

    def __init__(self, values):
        super().__init__(values)
        self.names = set()

    def __getitem__(self, name):
        self.names.add(name)
        return super().__getitem__(name)

    def get(self, name, default=None):
        self.names.add(name)
        return super().get(name, default)


def test_every_setting_that_a_person_may_set_has_a_label_and_a_sentence():
    for kind in (RoundSettings, *CONFIGS.values()):
        for field in dataclasses.fields(kind):
            is_shown = field.name not in {*FILLED_IN, *BY_HAND}
            assert bool(field.metadata["label"]) == is_shown, (kind, field.name)
            assert field.metadata["help"].endswith((".", "…")), (kind, field.name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name if name == "dpo" else pytest.param(name, marks=pytest.mark.full) for name in RECIPES]
)
def test_a_recipe_shows_all_settings_that_it_reads_and_none_that_it_refuses(name):
    recipe, settings = RECIPES[name], resolve({"round": {"recipe": name}}, seed=0)
    groups = declared.groups_of(recipe, settings)
    listed = {(one.section, one.name) for one in declared.all_of(groups)}
    recorder = Recorder(settings["round"])
    recipe.jobs({**settings, "round": recorder}, declared.MANY)
    assert {("round", read) for read in recorder.names} <= listed
    for section, setting in listed - {("common", setting) for setting in declared.SHARED}:
        if setting != "checkpoints":
            resolve({"round": {"recipe": name}, section: {setting: settings[section][setting]}}, seed=0)
    unlisted = {
        (program, setting)
        for program in recipe.programs
        for setting in settings[program]
        if setting not in declared.SHARED and setting not in BY_HAND and (program, setting) not in listed
    }
    jobs = recipe.jobs(settings, declared.MANY)
    for program, setting in unlisted:
        of_program = [job for job in jobs if job.program == program]
        is_filled = all(setting in job.settings for job in of_program)
        assert is_filled or setting in ("rewards", "environment"), (program, setting)


def test_no_setting_of_the_round_is_for_no_recipe():
    listed = {
        one.name
        for recipe in RECIPES.values()
        for one in declared.all_of(declared.groups_of(recipe, resolve({"round": {"recipe": recipe.name}}, seed=0)))
        if one.section == "round"
    }
    assert listed == {field.name for field in dataclasses.fields(RoundSettings)} - {"recipe"}


def test_settings_that_programs_differ_in_are_shown_with_each_of_them():
    settings = resolve({"reward": {"max_completion_tokens": 99}}, seed=0)
    keys = {one.key for one in declared.all_of(declared.groups_of(RECIPES["ppo"], settings))}
    assert "common-max_completion_tokens" not in keys and "common-dtype" in keys
    assert {"reward-max_completion_tokens", "sample-max_completion_tokens"} <= keys


def table() -> str:
    """Return the tables of docs/settings.md."""
    lines = []
    for section in ("round", "common", *CONFIGS):
        kind = RoundSettings if section == "round" else CONFIGS.get(section, CONFIGS["sample"])
        defaults = {field.name: field for field in dataclasses.fields(kind)}
        lines += [f"## Section `{section}`", "", "| setting | default | meaning |", "|---|---|---|"]
        for one in declared.declared_in(section):
            if section not in ("round", "common") and one.name in declared.SHARED:
                continue
            default = json.dumps(default_of(defaults[one.name]), ensure_ascii=False)
            meaning = f"**{one.label}**. {one.help} {limits_in_words(one.kind_name, one.limits).capitalize()}."
            lines.append(f"| `{one.name}` | `{default}` | {meaning.replace('|', chr(92) + '|')} |")
        lines.append("")
    return "\n".join(lines)


def test_the_page_of_the_settings_is_as_they_are_declared():
    text = PAGE.read_text("utf-8")
    expected = table()
    assert text[text.index("## Section") :].rstrip() == expected.rstrip(), f"write this into {PAGE.name}:\n{expected}"
