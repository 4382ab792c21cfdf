"""Damaged rows of every format are refused with a sentence, and never an error of the program."""

import json
import random

import pytest

from feedback.imports import Target
from feedback.imports.batches import write_batch
from feedback.imports.maps import find
from feedback.imports.stream import Unit, _unit
from feedback.models import Import, Prompt
from tests.feedback.imports.test_maps import ROWS

ODD = [None, True, -1, 1e308, 2**70, "", "\x00", "\ud800", [], {}, [[]], [{}], [None], "[", '{"a":', float("inf")]


def damaged(value, chance):
    """Return a copy of a JSON value in which one part is missing, doubled or something else."""
    draw = chance.random()
    if isinstance(value, dict | list) and value and draw > 0.2:
        copy = value.copy()
        key = chance.choice(list(value)) if isinstance(value, dict) else chance.randrange(len(value))
        if draw < 0.4:
            del copy[key]
        elif draw < 0.5 and isinstance(value, list):
            copy += value
        else:
            copy[key] = damaged(value[key], chance)
        return copy
    return chance.choice(ODD)


def damaged_units(name, count, seed=1):
    """The first rows of a format, damaged, as its map reads them."""
    chance = random.Random(f"{name}:{seed}")
    rows = [damaged(json.loads(json.dumps(ROWS[name][0])), chance) for _ in range(count)]
    return [_unit(line, row, find(name)) for line, row in enumerate(rows, start=1)]


@pytest.mark.parametrize("name", ROWS)
def test_a_damaged_row_has_an_error_with_a_reason_or_can_be_used(name):
    units = damaged_units(name, 25)
    assert all(unit.rows or unit.error.reason for unit in units)
    assert any(unit.error for unit in units)


def test_a_pair_without_its_answers_is_refused():
    assert _unit(1, [], find("webgpt")).error.reason == "The row does not have the form of WebGPT comparisons."


@pytest.mark.full
@pytest.mark.django_db
def test_the_database_can_store_whatever_a_map_lets_pass(project):
    for name in ROWS:
        record = Import.objects.create(project=project, how="command")
        units: list[Unit] = damaged_units(name, 60, seed=2)
        outcome = write_batch(Target(project, record, find(name)), units)
        assert outcome.imported + outcome.unchanged + len(outcome.errors) == len(units)
    assert Prompt.objects.exists()
