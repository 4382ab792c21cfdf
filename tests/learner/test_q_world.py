"""q in a world that can be enumerated: values against dynamic programming, the policy against the best one."""

import json
from collections import Counter

import pytest
import scipy

from tests.learner.worlds.letters import (
    best_policy,
    completions,
    log_probs,
    objective,
    policy_folder,
    reward_of,
)
from tests.learner.worlds.logged import logged_tokens, q_job, reward_of_state, row, tree_of
from training.learner import q, sft
from training.learner.models.loading import load_policy
from training.learner.models.packing import Episodes, pack_episodes

BETA, EXPECTILE, PROMPTS, LOGGED = 0.5, 0.9, (2, 3), 2000
SETTINGS = {"kl_coefficient": BETA, "expectile": EXPECTILE, "target_decay": 0.9, "max_gradient_norm": 10.0,
            "learning_rate": 0.005}  # fmt: skip


def dynamic_programming(counts):
    """Return Q of every beginning of the logged completions: the reward at its end, else the expectile of its next Q.

    counts: how often each beginning was logged.
    """
    values = {}
    for state in sorted(counts, key=len, reverse=True):
        following = [(values[other], counts[other]) for other in counts if other[:-1] == state]
        end = reward_of_state(state)
        if end is None:
            tokens, weights = zip(*following, strict=True)
            end = scipy.stats.expectile(tokens, EXPECTILE, weights=weights)
        values[state] = end
    return values


@pytest.fixture
def kept(monkeypatch):
    """The networks of the next run, after its values were learned."""
    kept = []
    token_advantages = q.token_advantages
    monkeypatch.setattr(q, "token_advantages", lambda *given: kept.append(given[0]) or token_advantages(*given))
    return kept


def learned_q(context, prompt, written):
    """Return Q of the target network for every beginning of these completions."""
    outputs = context.target.read(pack_episodes(Episodes([[prompt]] * len(written), written)))
    flat = context.target.action_values(outputs, outputs.tokens).amin(0).tolist()
    states = [tuple(tokens[: length + 1]) for tokens in written for length in range(len(tokens))]
    return dict(zip(states, flat, strict=True))


@pytest.mark.full
@pytest.mark.slow
def test_q_is_that_of_dynamic_programming(tmp_path, kept):
    """Every completion of a prompt was logged once."""
    written = completions()
    job = q_job(tmp_path / "job", [row(1, tokens) for tokens in written], **SETTINGS, value_epochs=300,
                policy_epochs=1, batch_completions=85, value_learning_rate=0.015)  # fmt: skip
    q.main(job)
    exact, found = dynamic_programming(tree_of(written)), learned_q(kept[0], 1, written)
    assert len(exact) == 105 and set(found) == set(exact)
    errors = {state: abs(found[state] - value) for state, value in exact.items()}
    assert max(errors.values()) < 0.05, sorted(errors.items(), key=lambda item: -item[1])[:5]


def attained(model, reference):
    """Return (J − J_ref) / (J* − J_ref) by enumeration, with J = E[reward] − β·KL, the means over the prompts."""
    sums = [0.0, 0.0, 0.0]
    for prompt in PROMPTS:
        of_reference = log_probs(reference, [prompt])
        policies = (log_probs(model, [prompt]), of_reference, best_policy(of_reference, BETA))
        sums = [total + objective(one, of_reference, BETA) for total, one in zip(sums, policies, strict=True)]
    reached, start, best = sums
    return (reached - start) / (best - start)


def imitated(folder, rows):
    """Return the policy that imitates these rows until it has learned them."""
    folder.mkdir()
    (folder / "demonstrations.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    settings = {"model": str(folder.parent / "policy"), "max_completion_tokens": 3, "learning_rate": 0.005,
                "epochs": 60, "batch_tokens": 400}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(settings))
    sft.main(folder)
    return load_policy(str(folder / "model"))[0]


@pytest.mark.full
@pytest.mark.slow
def test_the_policy_from_logged_samples_is_nearly_the_best_and_beats_imitation_of_the_best(tmp_path):
    written = {prompt: logged_tokens(policy_folder(tmp_path / "policy"), prompt, LOGGED) for prompt in PROMPTS}
    rows = [row(prompt, tokens) for prompt in PROMPTS for tokens in written[prompt]]
    job = q_job(tmp_path / "job", rows, **SETTINGS, value_epochs=120, policy_epochs=60, batch_completions=84,
                value_learning_rate=0.01, state_value="soft")  # fmt: skip
    q.main(job)
    reference = load_policy(str(tmp_path / "policy"))[0]
    reached = attained(load_policy(str(job / "model"))[0], reference)
    assert 0.9 <= reached <= 1
    for share in (0.5, 0.25, 0.1):
        best = []
        for prompt in PROMPTS:
            ordered = sorted(written[prompt], key=reward_of, reverse=True)[: round(share * LOGGED)]
            best += [row(prompt, list(tokens), weight=n) for tokens, n in Counter(map(tuple, ordered)).items()]
        assert attained(imitated(tmp_path / f"best {share}", best), reference) < reached - 0.1
