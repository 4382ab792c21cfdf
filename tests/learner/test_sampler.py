"""The sampler: the right distribution, its log-probs, and the same text in any batch."""

import collections
import json
import threading

import pytest
import torch

from tests.learner.worlds.letters import KINDS, damaged_policy, ppo_job, tiny_model
from training.learner import sample as program
from training.learner.models.loading import computing_in
from training.learner.models.packing import Episodes
from training.learner.models.token_outputs import score_tokens
from training.learner.runtime.jobdir import BadInput, TrainingFailed
from training.learner.sampling import sampler
from training.learner.sampling.fused_weights import gather_weights
from training.learner.sampling.sampler import SamplingParams, nucleus, sample, sample_tokens, uniform_numbers

PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13, 0, 14], [8], [20, 21, 22, 23, 24, 25, 26, 27, 28]]
NO_END: frozenset[int] = frozenset()


def scored_again(model, written, prompts, temperature):
    with torch.no_grad():
        episodes = Episodes(prompts, [completion.tokens for completion in written])
        return score_tokens(model, episodes, temperature).log_probs


@pytest.mark.parametrize("kind", KINDS)
def test_log_probabilities_agree_with_the_training_pass(kind):
    model = tiny_model(kind)
    params = SamplingParams(9, frozenset([1, 2, 3, 4, 5, 6, 7, 8]), temperature=1.3)
    written = sample(model, PROMPTS, range(5), params, batch=3)
    own = torch.tensor([value for completion in written for value in completion.log_probs])
    torch.testing.assert_close(own, scored_again(model, written, PROMPTS, 1.3), atol=1e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_in_bfloat16_log_probabilities_are_close_to_those_of_the_training_pass(kind):
    model = tiny_model(kind)
    with computing_in("bfloat16"):
        written = sample(model, PROMPTS * 4, range(20), SamplingParams(9, NO_END), batch=8)
        again = scored_again(model, written, PROMPTS * 4, 1.0)
    own = torch.tensor([value for completion in written for value in completion.log_probs])
    assert 0 < (own - again).abs().mean() < 0.02 and (own - again).mean().abs() < 0.005


@pytest.mark.slow
def test_the_same_seed_gives_the_same_text_in_any_batch():
    model = tiny_model()
    params = SamplingParams(12, frozenset([1, 2, 3, 4]), seed=3)
    together = sample(model, PROMPTS, range(5), params, batch=5)
    for size in (1, 2, 3):
        assert [c.tokens for c in sample(model, PROMPTS, range(5), params, size)] == [c.tokens for c in together]
    backwards = sample(model, PROMPTS[::-1], range(4, -1, -1), params, batch=5)
    assert [c.tokens for c in backwards[::-1]] == [c.tokens for c in together]
    other = sample(model, PROMPTS, range(5), params._replace(seed=4), batch=5)
    assert [c.tokens for c in other] != [c.tokens for c in together]


def test_equal_prompts_get_completions_of_their_own():
    model = tiny_model()
    written = sample(model, [[8]] * 6, range(6), SamplingParams(6, NO_END), batch=6)
    assert len({tuple(completion.tokens) for completion in written}) > 1
    alone = sample(model, [[8]], [4], SamplingParams(6, NO_END), batch=1)
    assert alone[0].tokens == written[4].tokens


def test_a_completion_stops_at_its_end_token_and_holds_it():
    model = tiny_model()
    ends = frozenset(range(0, 64, 3))
    written = sample(model, PROMPTS * 4, range(20), SamplingParams(8, ends), batch=20)
    for completion in written:
        last, before = completion.tokens[-1], completion.tokens[:-1]
        assert not ends & set(before)
        assert completion.finished == (last in ends)
        assert completion.finished or len(completion.tokens) == 8
        assert len(completion.log_probs) == len(completion.tokens)
    assert len({len(completion.tokens) for completion in written}) > 2


def test_a_completion_stops_unfinished_at_a_token_that_is_no_text():
    model = tiny_model()
    ends, others = frozenset(range(0, 64, 6)), frozenset(range(3, 64, 6))
    params = SamplingParams(8, ends, cut_tokens=others)
    written = sample(model, PROMPTS * 4, range(20), params, batch=20)
    for completion in written:
        assert not (ends | others) & set(completion.tokens[:-1])
        assert completion.finished == (completion.tokens[-1] in ends)
    assert {True, False} == {c.finished for c in written if len(c.tokens) < 8}
    own = torch.tensor([value for completion in written for value in completion.log_probs])
    torch.testing.assert_close(own, scored_again(model, written, PROMPTS * 4, 1.0), atol=1e-4, rtol=0)


@pytest.mark.slow
def test_tokens_are_drawn_as_often_as_their_probability_says():
    logits = torch.tensor([[2.0, 0.0, 1.0, -30.0, 0.5]])
    count = 40_000
    uniforms = uniform_numbers(0, range(count), 1)[:, 0]
    for temperature in (1.0, 0.5):
        tokens, log_probs = sample_tokens(logits.expand(count, -1), uniforms, SamplingParams(1, NO_END, temperature))
        exact = (logits[0] / temperature).softmax(-1)
        seen = torch.bincount(tokens, minlength=5) / count
        # five standard deviations of a count
        assert ((seen - exact).abs() <= 5 * (exact * (1 - exact) / count).sqrt() + 1e-9).all()
        torch.testing.assert_close(log_probs.exp(), exact[tokens], atol=1e-6, rtol=1e-5)


def test_top_p_keeps_the_smallest_set_that_holds_it():
    log_probs = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log()
    kept = nucleus(log_probs, 0.65).exp()
    torch.testing.assert_close(kept, torch.tensor([[4 / 7, 3 / 7, 0, 0]]))
    assert nucleus(log_probs, 0.01).exp().tolist() == [[1, 0, 0, 0]]


def test_under_top_p_log_probabilities_are_those_of_the_tokens_left():
    logits = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log()
    uniforms = uniform_numbers(1, range(500), 1)[:, 0]
    tokens, log_probs = sample_tokens(logits.expand(500, -1), uniforms, SamplingParams(1, NO_END, top_p=0.65))
    assert set(tokens.tolist()) == {0, 1}
    expected = torch.tensor([4 / 7, 3 / 7])
    torch.testing.assert_close(log_probs.exp(), expected[tokens])


def test_temperature_zero_takes_the_likeliest_token():
    model = tiny_model()
    one, other = (sample(model, PROMPTS, range(5), SamplingParams(5, NO_END, 0.0, seed=s), 5) for s in (1, 2))
    assert [c.tokens for c in one] == [c.tokens for c in other]
    assert one[0].log_probs == [0.0] * 5


def test_extreme_uniform_numbers_never_draw_a_token_of_probability_zero():
    logits = torch.tensor([[float("-inf"), 1.0, float("-inf"), 0.0, float("-inf")]]).expand(2, -1)
    tokens, _ = sample_tokens(logits, torch.tensor([0.0, 1 - 2**-32], dtype=torch.float64), SamplingParams(1, NO_END))
    assert tokens.tolist() == [1, 3]


@pytest.mark.parametrize("how", [{}, {"temperature": 0.0}, {"top_p": 0.9}, {"temperature": 0.5}])
@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
def test_non_finite_logits_give_tokens_with_a_non_finite_log_probability(how, odd):
    logits = torch.zeros(2, 7)
    logits[0, 3] = odd
    tokens, log_probs = sample_tokens(
        logits, torch.tensor([0.5, 0.999], dtype=torch.float64), SamplingParams(1, NO_END, **how)
    )
    assert tokens.min() >= 0 and tokens.max() < 7
    assert log_probs[0].isnan() and log_probs[1].isfinite()


@pytest.mark.parametrize("changes", [{}, {"temperature": 0.0}])
def test_samples_of_a_policy_with_nan_weights_are_not_written(tmp_path, changes):
    folder = damaged_policy(tmp_path / "policy")
    job = ppo_job(tmp_path / "job")
    (job / "config.json").write_text(json.dumps({"model": str(folder), "max_completion_tokens": 3} | changes))
    with pytest.raises(TrainingFailed, match="the policy's log-probability is nan at step 1"):
        program.main(job)
    assert not (job / "samples.jsonl").exists()


def test_uniform_numbers_depend_on_the_row_alone_and_are_evenly_distributed():
    uniforms = uniform_numbers(7, range(2000), 4)
    assert torch.equal(uniform_numbers(7, [1234], 4)[0], uniforms[1234])
    assert uniforms.min() >= 0 and uniforms.max() < 1
    deciles = collections.Counter((uniforms.flatten() * 10).long().tolist())
    assert all(abs(deciles[d] - 800) < 5 * (8000 * 0.09) ** 0.5 for d in range(10))


def test_a_completion_that_could_outgrow_the_model_is_refused():
    with pytest.raises(BadInput, match="room for 128"):
        sample(tiny_model(), [[1] * 100], [0], SamplingParams(29, NO_END), 1)


@pytest.fixture
def six_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(6)
    yield
    assert torch.get_num_threads() == 6  # whatever happened
    torch.set_num_threads(before)


def test_a_batch_uses_as_many_threads_as_it_has_work_for(monkeypatch, six_threads):
    policy = tiny_model("llama")
    weights = gather_weights(policy)
    matrices = sum(p.numel() for p in policy.parameters() if p.ndim == 2) - policy.model.embed_tokens.weight.numel()
    assert weights.multiplications == matrices
    monkeypatch.setattr(sampler, "MIN_PER_PART", 2 * matrices)
    monkeypatch.setattr(sampler, "MIN_PER_THREAD", 3 * matrices)
    monkeypatch.setattr(sampler, "MIN_ROWS_PER_PART", 1)
    cpu = torch.device("cpu")
    expected = {1: (1, 1), 3: (1, 1), 4: (2, 1), 6: (3, 1), 8: (4, 1), 12: (6, 1), 99: (6, 1)}
    assert {rows: tuple(sampler.threads_for(weights, rows, cpu)) for rows in expected} == expected
    monkeypatch.setattr(sampler, "MIN_PER_PART", matrices // 9)
    assert sampler.threads_for(weights, 2, cpu) == (2, 1)  # no more parts than rows
    monkeypatch.setattr(sampler, "MIN_PER_THREAD", matrices // 2)
    assert sampler.threads_for(weights, 2, cpu) == (2, 2)  # and large rows share what is left
    monkeypatch.setattr(sampler, "MIN_ROWS_PER_PART", 2)
    assert sampler.threads_for(weights, 5, cpu) == (2, 3) and sampler.threads_for(weights, 1, cpu).parts == 1
    assert sampler.threads_for(None, 99, cpu) == (1, 6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["llama", "gemma"])
def test_rows_divided_between_threads_are_written_as_by_one(monkeypatch, six_threads, kind):
    policy, prompts = tiny_model(kind), [[5, 6, 7], [8], [9, 10, 11, 12], [8], [20, 21], [3], [4, 4]] * 2
    params = SamplingParams(20, frozenset([0, 1, 2, 3]), seed=5)
    together = sample(policy, prompts, range(14), params, 7)
    monkeypatch.setattr(sampler, "MIN_PER_PART", 1)
    monkeypatch.setattr(sampler, "MIN_ROWS_PER_PART", 1)
    seen, write = [], sampler.write
    monkeypatch.setattr(
        sampler, "write", lambda *of: (seen.append((threading.get_ident(), torch.get_num_threads())), write(*of))[1]
    )
    divided = sample(policy, prompts, range(14), params, 7)
    assert len(seen) == 6 + 6 and {threads for _, threads in seen} == {1}
    assert len({thread for thread, _ in seen}) > 1
    assert [completion.tokens for completion in divided] == [completion.tokens for completion in together]
    found, expected = (torch.tensor([p for c in written for p in c.log_probs]) for written in (divided, together))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_an_error_in_a_thread_is_raised(monkeypatch, six_threads):
    monkeypatch.setattr(sampler, "MIN_PER_PART", 1)
    monkeypatch.setattr(sampler, "MIN_ROWS_PER_PART", 1)
    monkeypatch.setattr(sampler, "sample_tokens", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        sample(tiny_model(), [[1], [2]], range(2), SamplingParams(3, NO_END), 2)


def test_rows_are_divided_evenly_and_in_order():
    assert sampler.divided(range(10, 17), 3) == [range(10, 12), range(12, 14), range(14, 17)]
