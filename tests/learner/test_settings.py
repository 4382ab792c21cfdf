"""The programs' settings: every field can be read back, and invalid values are refused with a sentence."""

from typing import Annotated

import pytest

from training.learner import estimators, reward_terms
from training.learner.reward_terms import check_terms
from training.learner.runtime.config import CONFIGS, PpoConfig, QConfig, RewardConfig, SftConfig
from training.learner.runtime.config.best_of_n import BestOfNConfig
from training.learner.runtime.jobdir import BadInput

# A program whose reward has the reward model by default cannot do without one.
LEAST = {
    kind: {"model": "folder"} | ({"reward_model": "scorer"} if kind in (BestOfNConfig, PpoConfig, QConfig) else {})
    for kind in CONFIGS.values()
}


@pytest.mark.parametrize("kind", LEAST)
def test_settings_can_be_written_and_read_back(kind):
    settings = kind.from_json(LEAST[kind] | {"seed": 5})
    assert settings.seed == 5
    assert kind.from_json(settings.to_json()) == settings
    assert CONFIGS[kind.program] is kind


@pytest.mark.parametrize("kind", LEAST)
def test_an_unknown_setting_is_named(kind):
    with pytest.raises(BadInput, match="unknown setting 'learningrate'"):
        kind.from_json(LEAST[kind] | {"learningrate": 1})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"steps": 2.5}, "steps must be a whole number"),
        ({"steps": True}, "steps must be a whole number"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"seed": 2**63}, "seed must be at most"),
        ({"learning_rate": "1e-4"}, "learning_rate must be a number"),
        ({"learning_rate": -1e-4}, "learning_rate must be at least 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be finite"),
        ({"gamma": 1.5}, "gamma must be at most 1"),
        ({"dtype": "float16"}, "dtype must be one of float32, bfloat16"),
        ({"whiten_rewards": 1}, "whiten_rewards must be true or false"),
        ({"model": ""}, "set model"),
        ({"batch_episodes": 10, "minibatches": 4}, r"batch_episodes \(10\) must be a multiple of minibatches \(4\)"),
        ({"dual_clip": 0.5}, "dual_clip must be above 1"),
        ({"reward_model": ""}, "set reward_model when, and only when"),
        ({"rewards": []}, "at least one term"),
        (
            {"rewards": [{"name": "reward_modell"}]},
            "there is no reward term 'reward_modell'; there are attribute, bleu",
        ),
        ({"rewards": [{"name": "python", "function": 3}]}, "function of the reward term python must be text"),
        ({"rewards": [{"name": "length", "target": True}]}, "target of the reward term length must be a number"),
        ({"rewards": ["length"]}, "must be an object with a name"),
        ({"rewards": [{"name": "reward_model", "weight": "2"}]}, "weight of the reward term reward_model"),
    ],
)
def test_invalid_settings_are_refused(change, sentence):
    with pytest.raises(BadInput, match=sentence):
        PpoConfig.from_json(LEAST[PpoConfig] | change)


def test_a_whole_number_is_accepted_for_a_fraction():
    assert PpoConfig.from_json(LEAST[PpoConfig] | {"kl_coefficient": 0}).kl_coefficient == 0.0


def test_sft_starts_from_a_model_or_from_an_architecture_not_both():
    SftConfig.from_json({"architecture": {"model_type": "llama"}})
    for wrong in ({}, {"model": "a", "architecture": {"model_type": "llama"}}):
        with pytest.raises(BadInput, match="either model"):
            SftConfig.from_json(wrong)
    with pytest.raises(BadInput, match="model_type"):
        SftConfig.from_json({"architecture": {"hidden_size": 8}})


def test_defaults_are_not_shared_between_settings():
    one, other = (PpoConfig(model="a", reward_model="b") for _ in range(2))
    assert one.rewards == other.rewards and one.rewards is not other.rewards


def test_a_kl_target_without_a_coefficient_to_adapt_is_refused():
    with pytest.raises(BadInput, match="set kl_coefficient above 0"):
        PpoConfig.from_json(LEAST[PpoConfig] | {"kl_coefficient": 0, "kl_target": 1.0})


@pytest.mark.parametrize(("steps", "evaluations"), [(4, 4), (10, 10), (60, 10), (101, 9), (1000, 10)])
@pytest.mark.parametrize("kind", [SftConfig, RewardConfig, PpoConfig])
def test_a_run_evaluates_on_held_out_data_about_ten_times(kind, steps, evaluations):
    settings = kind(**LEAST[kind])
    assert sum(settings.is_evaluated_after(step, steps) for step in range(1, steps + 1)) == evaluations
    asked = RewardConfig(model="m", eval_every=7)
    assert [step for step in range(1, 30) if asked.is_evaluated_after(step, 30)] == [7, 14, 21, 28]


@pytest.mark.parametrize(
    ("options", "prompts"),
    [
        ({"steps": 100}, 64),
        ({"steps": 20}, 32),
        ({"steps": 4, "batch_episodes": 8}, 2),
        ({"steps": 4, "batch_episodes": 2}, 1),
        ({"steps": 4, "batch_episodes": 8, "eval_every": 1}, 64),
        ({"steps": 100, "eval_prompts": 5}, 5),
    ],
)
def test_a_short_run_of_ppo_is_evaluated_on_fewer_prompts_unless_eval_every_is_set(options, prompts):
    assert PpoConfig(**LEAST[PpoConfig], **options).curve_prompts() == prompts


def test_a_setting_and_a_reward_term_are_accepted_by_their_former_names():
    former = {"model": "m", "rewards": [{"name": "missing_end"}], "missing_end_penalty": 0.5}
    settings = PpoConfig.from_json(former)
    assert (settings.missing_eos_penalty, settings.rewards) == (0.5, [{"name": "missing_eos"}])
    with pytest.raises(BadInput, match="missing_end_penalty is the former name of missing_eos_penalty"):
        PpoConfig.from_json(former | {"missing_eos_penalty": 1.0})


def test_a_new_estimator_and_a_new_reward_term_need_no_other_list(monkeypatch):
    monkeypatch.setattr(estimators, "ALGORITHMS", dict(estimators.ALGORITHMS))
    monkeypatch.setattr(reward_terms, "TERMS", dict(reward_terms.TERMS))

    @reward_terms.term
    def shouting(context, above: Annotated[int, {"low": 0}] = 3):
        return lambda answers: [float(sum(map(str.isupper, answer.text)) > above) for answer in answers]

    check_terms([{"name": "shouting", "above": 2}], "")
    with pytest.raises(BadInput, match="above of the reward term shouting must be at least 0, not -1"):
        check_terms([{"name": "shouting", "above": -1}], "")
    with pytest.raises(BadInput, match="the reward term length needs the setting target"):
        check_terms([{"name": "length"}], "")

    estimators.estimator("centred", "reward minus half", min_group_size=3)(
        lambda rewards, size, baseline: rewards - 0.5
    )
    assert estimators.ALGORITHMS["centred"].min_group_size == 3
