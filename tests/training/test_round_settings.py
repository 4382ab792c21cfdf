"""A round's settings: defaults, precedence, and refused values."""

import pytest

from feedback.errors import Invalid
from training.learner.runtime.config import CONFIGS
from training.rounds.recipes import RECIPES
from training.rounds.settings import FILLED_IN, resolve

PROGRAMS = RECIPES["ppo"].programs


def test_empty_settings_mean_the_defaults():
    settings = resolve(seed=7)
    assert set(settings) == {"round", *PROGRAMS}
    for program in PROGRAMS:
        ours = (
            CONFIGS[program].from_json({"model": "m", **({"reward_model": "r"} if program == "ppo" else {})}).to_json()
        )
        changed = {"seed": 7, **RECIPES["ppo"].defaults.get(program, {})}
        changed |= {"completions_per_prompt": 4} if program == "sample" else {}
        expected = {name: value for name, value in {**ours, **changed}.items() if name not in FILLED_IN}
        assert settings[program] == expected


def test_later_sections_count_more_and_a_programs_own_more_than_the_common_ones():
    project = {"common": {"dtype": "bfloat16", "seed": 1}, "ppo": {"steps": 7}}
    start = {"common": {"seed": 2}, "reward": {"seed": 3}, "ppo": {"epochs": 2}}
    settings = resolve(project, start, seed=9)
    assert {settings[program]["dtype"] for program in PROGRAMS} == {"bfloat16"}
    assert [settings[name]["seed"] for name in ("reward", "ppo", "sample", "round")] == [3, 2, 2, 9]
    assert (settings["ppo"]["steps"], settings["ppo"]["epochs"]) == (7, 2)


def test_settings_can_be_given_again_as_they_were_resolved():
    settings = resolve({"ppo": {"steps": 7}, "round": {"prompts": 5}}, seed=3)
    assert resolve(settings, seed=8) == settings


def test_a_prompt_gets_as_many_completions_as_a_comparison_shows():
    assert resolve({"round": {"comparison_size": 6}}, seed=0)["sample"]["completions_per_prompt"] == 6
    own = {"round": {"comparison_size": 6}, "sample": {"completions_per_prompt": 2}}
    assert resolve(own, seed=0)["sample"]["completions_per_prompt"] == 2


@pytest.mark.parametrize(
    ("sections", "sentence"),
    [
        ([], "object of sections"),
        ({"ppo": [1]}, "object of sections"),
        ({"sfx": {}}, 'recipe "ppo" has no section "sfx" of settings: use round, common, '),
        ({"round": {"recipe": "pppo"}}, 'no recipe "pppo": use '),
        ({"round": {"recipe": 3}}, 'no recipe "3": use '),
        ({"ppo": {"stepz": 1}}, "unknown setting 'stepz'"),
        ({"round": {"stepz": 1}}, "unknown setting 'stepz'"),
        ({"round": {"comparison_size": 10}}, "at most 9"),
        ({"round": {"processes": "2"}}, "processes must be a whole number"),
        ({"ppo": {"batch_episodes": 10, "minibatches": 3}}, "multiple of minibatches"),
        ({"ppo": {"rewards": []}}, "at least one term"),
        ({"ppo": {"rewards": 3}}, "rewards must be a list"),
        (
            {"ppo": {"rewards": [{"name": "token_f2"}]}},
            "no reward term 'token_f2'; there are attribute, bleu, exact_match",
        ),
        ({"ppo": {"rewards": [{"name": "length", "tagret": 9}]}}, "length has no setting 'tagret'"),
        ({"ppo": {"rewards": [{"name": "length"}]}}, "length needs the setting target"),
        ({"ppo": {"kl_target": 6.0, "kl_coefficient": 0}}, "kl_target multiplies kl_coefficient"),
        ({"ppo": {"rewards": [{"name": "python", "function": "os:system"}]}}, "in programs run by hand"),
        (
            {"ppo": {"environment": {"name": "python", "make": "os:system"}}},
            "python can only be used in programs run by",
        ),
        ({"ppo": {"environment": {"name": "dialogue"}}}, "must be texts of at most"),
        ({"ppo": {"environment": {"name": "dialogue", "lines": ["a", " "]}}}, "must be texts of at most"),
        ({"ppo": {"environment": {"name": "dialogue", "lines": ["\ud800"]}}}, "half of a surrogate pair"),
        (
            {"ppo": {"environment": {"name": "dialogue", "lines": ["a"], "end_word": "\ud800"}}},
            "half of a surrogate pair",
        ),
        ({"ppo": {"rewards": [{"name": "attribute", "of": "\udfff"}]}}, "half of a surrogate pair"),
        ({"ppo": {"environment": {"name": "dialogue", "lines": [3]}}}, "must be texts of at most"),
        ({"ppo": {"environment": {"name": "dialogue", "lines": ["a"], "turns": 65}}}, "at most 64"),
        ({"ppo": {"environment": {"name": "dialogue", "lines": ["a"], "url": "http://a"}}}, "has no setting 'url'"),
        (
            {"ppo": {"environment": {"name": "dialogue", "user": "endpoint", "url": "http://a", "model": "m"}}},
            "has no setting 'model'",
        ),
        (
            {"ppo": {"environment": {"name": "dialogue", "user": "checkpoint", "model": " "}}},
            "the name of a checkpoint of the project",
        ),
        ({"sample": {"environment": {"name": "dialogue", "lines": ["a"]}}}, 'set "environment" in section "ppo"'),
        *(({section: {name: "/etc"}}, f'sets "{name}" itself') for section in PROGRAMS for name in FILLED_IN),
        ({"common": {"model": "/etc"}}, 'sets "model" itself'),
    ],
)
def test_invalid_settings_are_refused_with_a_sentence(sections, sentence):
    with pytest.raises(Invalid, match=sentence) as refusal:
        resolve(sections, seed=0)
    assert refusal.value.message.endswith(".")


@pytest.mark.parametrize(
    ("chosen", "positions", "prompt", "completion"),
    [
        ({}, None, 512, 256),
        ({}, 32_768, 512, 256),
        ({}, 768, 512, 256),
        ({}, 512, 342, 170),
        ({"max_completion_tokens": 96}, 512, 416, 96),
        ({"max_prompt_tokens": 500}, 512, 500, 12),
        ({"max_prompt_tokens": 500, "max_completion_tokens": 96}, 512, 500, 96),
        ({"max_completion_tokens": 600}, 512, 1, 600),  # somebody chose it: the program says that there is no room
        ({}, 2, 2, 1),
    ],
)
def test_default_lengths_fit_into_the_models_positions(chosen, positions, prompt, completion):
    for program in ("reward", "ppo", "sample"):
        settings = resolve({"common": chosen}, seed=0, positions=positions)[program]
        assert (settings["max_prompt_tokens"], settings["max_completion_tokens"]) == (prompt, completion)


def test_a_setting_is_accepted_by_its_former_name_and_stored_by_its_current_one():
    former = {"ppo": {"missing_end_penalty": 0.25, "rewards": [{"name": "reward_model"}, {"name": "missing_end"}]}}
    ppo = resolve(former, seed=1)["ppo"]
    assert ppo["missing_eos_penalty"] == 0.25
    assert [term["name"] for term in ppo["rewards"]] == ["reward_model", "missing_eos"]
    assert "missing_end_penalty" not in ppo


def test_the_former_name_of_the_extra_ranking_share_is_accepted():
    settings = resolve({"round": {"second_opinions": 0.25}}, {"round": {"extra_ranking_share": 0.5}}, seed=0)
    assert settings["round"]["extra_ranking_share"] == 0.5
    settings = resolve({"round": {"extra_ranking_share": 0.5}}, {"round": {"second_opinions": 0.25}}, seed=0)
    assert settings["round"]["extra_ranking_share"] == 0.25
    assert "second_opinions" not in settings["round"]
    with pytest.raises(Invalid, match="second_opinions is the former name of extra_ranking_share"):
        resolve({"round": {"second_opinions": 0.25, "extra_ranking_share": 0.5}}, seed=0)
