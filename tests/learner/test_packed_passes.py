"""A row's log-probs and values are the same alone, packed with others, or padded."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from tests.learner.worlds.letters import KINDS, letters_tokenizer, tiny_model
from training.learner.models.loading import load_critic
from training.learner.models.packed_attention import ATTENTION, forward_packed
from training.learner.models.packing import Episodes, by_episode, pack_sequences, within_budget
from training.learner.models.token_outputs import critic_values, score_tokens

EPISODES = Episodes([[5, 6, 7], [8], [9, 10, 11, 12, 13, 0, 14]], [[1, 2, 3, 0], [4, 5, 6, 7, 8, 9], [0]])


def plain_log_probs(model, prompt, completion, padding=0, temperature=1.0):
    """Return log-probs by transformers' own eager attention, left-padded by so many pad tokens, masked by length."""
    model.set_attn_implementation("eager")
    tokens = torch.tensor([[0] * padding + [*prompt, *completion]])
    mask = torch.tensor([[0] * padding + [1] * (len(prompt) + len(completion))])
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        logits = model(tokens, attention_mask=mask, position_ids=positions).logits[0] / temperature
    model.set_attn_implementation(ATTENTION)
    decided = logits[padding + len(prompt) - 1 : -1].log_softmax(-1)
    return decided[range(len(completion)), completion]


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_log_probs_are_the_same_alone_packed_and_left_padded(kind):
    model = tiny_model(kind)
    together = score_tokens(model, EPISODES).log_probs.split([4, 6, 1])
    for i, (prompt, completion) in enumerate(zip(EPISODES.prompts, EPISODES.completions, strict=True)):
        alone = score_tokens(model, EPISODES.select([i])).log_probs
        torch.testing.assert_close(together[i], alone, atol=1e-5, rtol=0)
        for padding in (0, 1, 5):
            plain = plain_log_probs(model, prompt, completion, padding)
            torch.testing.assert_close(together[i], plain, atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_end_token_may_be_the_pad_token_and_stand_in_the_prompt():
    model = tiny_model()
    assert model.config.pad_token_id == model.config.eos_token_id == 0 and 0 in EPISODES.prompts[2]
    counted = score_tokens(model, EPISODES).log_probs
    assert len(counted) == 4 + 6 + 1  # the end tokens, and nothing after them
    torch.testing.assert_close(counted[3], score_tokens(model, EPISODES.select([0])).log_probs[3], atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_temperature_divides_the_logits():
    model = tiny_model()
    scored = score_tokens(model, EPISODES.select([1]), temperature=0.7)
    plain = plain_log_probs(model, EPISODES.prompts[1], EPISODES.completions[1], temperature=0.7)
    torch.testing.assert_close(scored.log_probs, plain, atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_entropy_is_that_of_the_distribution():
    model = tiny_model()
    scored = score_tokens(model, EPISODES, temperature=2.0, with_entropy=True)
    batch = pack_sequences(EPISODES.sequences())
    logits = forward_packed(model, batch).logits[0, 2:6] / 2.0
    expected = torch.distributions.Categorical(logits=logits).entropy()
    torch.testing.assert_close(scored.entropy[:4], expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_values_are_read_at_the_token_before_each_decision(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    letters_tokenizer().save_pretrained(tmp_path)
    critic = load_critic(str(tmp_path))
    assert critic_values(critic, EPISODES).abs().max() == 0  # from a policy's folder the head is new
    critic.score.weight.normal_()
    values = critic_values(critic, EPISODES).split([4, 6, 1])
    for i, sequence in enumerate(EPISODES.sequences()):
        hidden = forward_packed(critic.base_model, pack_sequences([sequence])).last_hidden_state[0]
        first = len(EPISODES.prompts[i]) - 1
        torch.testing.assert_close(values[i], critic.score(hidden)[first:-1, 0], atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_critic_from_a_reward_model_starts_at_its_normalised_scores(tmp_path):
    model = AutoModelForSequenceClassification.from_config(tiny_model().config, attn_implementation="eager")
    model.config.update({"reward_shift": 0.3, "reward_scale": 2.0, "num_labels": 1})
    model.score = torch.nn.Linear(32, 1, bias=False)
    model.save_pretrained(tmp_path)
    expected = (model.score(model.model(torch.tensor([[5, 6, 7, 1]])).last_hidden_state[0, 2:4]) - 0.3) / 2.0
    values = critic_values(load_critic(str(tmp_path)), Episodes([[5, 6, 7]], [[1, 2]]))
    torch.testing.assert_close(values, expected[:, 0], atol=1e-5, rtol=0)


@torch.no_grad()
def test_passes_within_a_budget_of_tokens_come_back_in_order():
    model = tiny_model()
    rows, _ = by_episode(lambda part: score_tokens(model, part), EPISODES, within_budget(EPISODES, 8))
    assert [len(row) for row in rows] == [4, 6, 1]
    torch.testing.assert_close(torch.cat(rows), score_tokens(model, EPISODES).log_probs, atol=1e-5, rtol=0)
