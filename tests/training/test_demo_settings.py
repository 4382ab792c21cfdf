"""Settings of the demo's rounds: every recipe that has some accepts them beside those of the project."""

import pytest

from training.demo.settings import OF_RECIPES, ROUND
from training.demo.simulate import recipes_to_simulate
from training.rounds.settings import changed, resolve


def test_recipes_with_settings_can_be_simulated():
    assert {"dpo", "q", "best_of_n"} <= set(OF_RECIPES) <= set(recipes_to_simulate())


@pytest.mark.parametrize("recipe", OF_RECIPES)
def test_a_round_of_the_simulation_has_the_settings_of_its_recipe(recipe):
    settings = resolve(ROUND, changed(OF_RECIPES[recipe], {"round": {"recipe": recipe}}), seed=1)
    for section, chosen in OF_RECIPES[recipe].items():
        assert chosen.items() <= settings[section].items()
    assert settings[recipe]["max_completion_tokens"] == ROUND["common"]["max_completion_tokens"]
