"""The reward term attribute: the right head, normalised as scores are, and refused where there is none."""

import pytest
import torch

from tests.learner.worlds.words import words_folder
from training.learner.models.attribute_heads import AttributeHeads
from training.learner.models.loading import load_tokenizer
from training.learner.models.packing import PromptGroup
from training.learner.models.reward_model import (
    attribute_predictions,
    load_reward_model,
    new_reward_model,
    save_reward_model,
)
from training.learner.reward_terms import Answer, check_terms
from training.learner.rewards import attribute_scores
from training.learner.rewards.reward_function import reward_function, sample_scorer
from training.learner.runtime.config import PpoConfig, SampleConfig
from training.learner.runtime.jobdir import BadInput
from training.learner.text.messages import encode_completion, encode_prompt

MESSAGES = [{"role": "user", "content": "wait parcel"}]


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    """The folder of a reward model with heads of two attributes."""
    folder = tmp_path_factory.mktemp("models")
    words_folder(folder / "policy")
    model = new_reward_model(str(folder / "policy"), heads=1, seed=0)
    model.attributes = AttributeHeads(("honest", "kind"), 32)
    generator = torch.Generator().manual_seed(1)
    for part in (model.head.weight, model.attributes.weight, model.attributes.bias, model.attributes.shift):
        part.data.copy_(torch.randn(part.shape, generator=generator))
    model.attributes.scale.copy_(torch.tensor([2.0, 0.5]))
    save_reward_model(model, load_tokenizer(str(folder / "policy")), folder / "scorer")
    return str(folder / "scorer")


def answers_of(tokenizer, *texts):
    prompt = encode_prompt(tokenizer, MESSAGES, 50)
    return [
        Answer({"messages": MESSAGES}, prompt, encode_completion(tokenizer, text), text, finished=True)
        for text in texts
    ]  # fmt: skip


def attribute(of, weight=1.0):
    return {"name": "attribute", "of": of, "weight": weight}


def test_it_is_the_heads_normalised_prediction_for_the_text_that_people_see(scorer):
    model, tokenizer = load_reward_model(scorer)
    answers = answers_of(tokenizer, "thanks", "no bye", "parcel")
    settings = PpoConfig(model="m", reward_model=scorer, rewards=[attribute("kind", 2.0), attribute("honest", -1.0)])
    group = PromptGroup(tuple(answers[0].prompt), tuple(tuple(answer.completion) for answer in answers))
    raw = attribute_predictions(model, [group])
    honest, kind = ((raw[:, i] - model.attributes.shift[i]) / model.attributes.scale[i] for i in (0, 1))
    expected = 2 * kind - honest
    torch.testing.assert_close(reward_function(settings, tokenizer)(answers), expected)
    again = [Answer(a.row, a.prompt, [7, 8], a.text, finished=True) for a in answers]  # other tokens, the same text
    torch.testing.assert_close(reward_function(settings, tokenizer, (model, tokenizer))(again), expected)


def test_attributes_of_the_same_answers_share_a_forward_pass(scorer, monkeypatch):
    tokenizer = load_tokenizer(scorer)
    passes = []
    counted = lambda *given: passes.append(1) or attribute_predictions(*given)  # noqa: E731
    monkeypatch.setattr(attribute_scores, "attribute_predictions", counted)
    reward = reward_function(
        PpoConfig(model="m", reward_model=scorer, rewards=[attribute("kind"), attribute("honest")]), tokenizer
    )
    first = reward(answers_of(tokenizer, "thanks", "no"))
    assert len(passes) == 1
    assert not torch.equal(reward(answers_of(tokenizer, "bye", "no")), first)
    assert len(passes) == 2


def test_samples_are_scored_by_it_too(scorer):
    tokenizer = load_tokenizer(scorer)
    answers = answers_of(tokenizer, "thanks", "no")
    rewards = [attribute("honest", 0.5)]
    scores = sample_scorer(SampleConfig(model="m", reward_model=scorer, rewards=rewards), tokenizer)(answers)
    ppo = reward_function(PpoConfig(model="m", reward_model=scorer, rewards=rewards), tokenizer)(answers)
    assert scores == pytest.approx(ppo.tolist())


def test_an_attribute_that_the_reward_model_lacks_is_refused_before_anything_is_sampled(scorer, tmp_path):
    tokenizer = load_tokenizer(scorer)
    with pytest.raises(BadInput, match="no attribute 'funny'; it has honest, kind"):
        reward_function(PpoConfig(model="m", reward_model=scorer, rewards=[attribute("funny")]), tokenizer)
    model, _ = load_reward_model(scorer)
    model.attributes = None
    with pytest.raises(BadInput, match="no attribute 'kind': it was trained without ratings"):
        settings = PpoConfig(model="m", reward_model=scorer, rewards=[attribute("kind")])
        reward_function(settings, tokenizer, (model, tokenizer))


@pytest.mark.parametrize(
    ("term", "reward_model", "sentence"),
    [
        (attribute("kind"), "", "set reward_model when, and only when"),
        ({"name": "attribute"}, "m", "the reward term attribute needs the setting of"),
        ({"name": "attribute", "of": 3}, "m", "of of the reward term attribute must be text"),
    ],
)
def test_its_settings_are_checked(term, reward_model, sentence):
    with pytest.raises(BadInput, match=sentence):
        check_terms([term], reward_model)


def test_the_heads_are_loaded_as_they_were_saved_and_frozen(scorer):
    heads = load_reward_model(scorer)[0].attributes
    assert heads.names == ("honest", "kind") and heads.scale.tolist() == [2.0, 0.5]
    assert not heads.weight.requires_grad
