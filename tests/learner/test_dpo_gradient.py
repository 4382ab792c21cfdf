"""dpo: its gradient against a naive implementation, on single texts and on dialogues."""

import itertools

import pytest
import torch

from tests.learner.worlds.letters import policy_folder
from tests.learner.worlds.spoken import DIALOGUE, OTHER, OTHER_TOKENS, TOKENS, dialogue_ranking
from tests.learner.worlds.words import ranking_rows, reward_job
from training.learner.models.loading import load_policy
from training.learner.models.oom_retry import MicroBatches
from training.learner.policy.direct_preferences import DirectContext, ReferenceLogProbs, accumulate_gradients
from training.learner.preferences.ranking_data import read_rankings
from training.learner.preferences.ranking_loss import tie_parameter
from training.learner.runtime.config.dpo import DpoConfig
from training.learner.runtime.jobdir import JobDirectory
from training.learner.runtime.processes import Processes

pytestmark = pytest.mark.slow

LOSSES = {
    "dpo": {"label_smoothing": 0.1, "margin": 0.2},
    "dpo, Rao-Kupper": {"tie_model": "rao_kupper", "tie_share": 0.2},
    "dpo, half wins": {"tie_model": "bradley_terry"},
    "ipo": {"loss": "ipo", "label_smoothing": 0.1},
    "simpo": {"loss": "simpo", "beta": 2.0, "simpo_margin": 0.3, "tie_model": "none"},
    "whole rankings": {"loss": "plackett_luce"},
}


def written_in(completion, written):
    """Return the places of the policy's tokens: those of a dialogue in `written`, else all."""
    return list((written or {}).get(completion, range(len(completion))))


def naive_losses(model, reference, data, settings, tie, written=None):
    """Return the mean loss by a plain forward pass of each completion alone, and its formula written out."""
    for network in (model, reference):
        network.set_attn_implementation("eager")

    def log_prob(network, prompt, completion, written):
        logits = network(torch.tensor([[*prompt, *completion]])).logits[0, len(prompt) - 1 : -1]
        return logits.log_softmax(-1)[range(len(completion)), list(completion)][written].sum()

    total, weights = 0.0, 0.0
    nu = 2 * tie.logit.exp()
    for comparison in data.train:
        prompt = comparison.group.prompt
        answers = [(y, written_in(y, written)) for y in comparison.group.completions]
        if settings.loss == "simpo":
            scores = [settings.beta * log_prob(model, prompt, *y) / len(y[1]) for y in answers]
        else:
            scores = [settings.beta * (log_prob(model, prompt, *y) - log_prob(reference, prompt, *y).detach())
                      for y in answers]  # fmt: skip
        for ranking in comparison.rankings:
            s = [scores[place] for place in ranking.places]
            margin = settings.margin * (ranking.strength or 0) + (settings.loss == "simpo") * settings.simpo_margin
            if settings.loss == "plackett_luce":
                loss = -naive_order(s, ranking.ranks, nu).log() / (len(s) - 1)
            else:
                pairs = [naive_pair(s[i], s[j], ranking.ranks[i], ranking.ranks[j], margin, settings, nu, tie)
                         for i, j in itertools.combinations(range(len(s)), 2)]  # fmt: skip
                counted = [one for one in pairs if one is not None]
                loss = sum(counted) / max(len(counted), 1)
            total, weights = total + ranking.weight * loss, weights + ranking.weight
    return total / weights


def naive_pair(a, b, rank_a, rank_b, margin, settings, nu, tie):
    if rank_a > rank_b:
        a, b = b, a
    if settings.loss == "ipo":
        h, target, e = (a - b) / settings.beta, 1 / (2 * settings.beta), settings.label_smoothing
        return h**2 if rank_a == rank_b else (1 - e) * (h - target) ** 2 + e * (h + target) ** 2
    if rank_a == rank_b:
        if settings.tie_model == "none":
            return None
        if settings.tie_model == "bradley_terry":
            return -(torch.sigmoid(a - b).log() + torch.sigmoid(b - a).log()) / 2
        if settings.tie_model == "davidson":
            middle = nu * ((a + b) / 2).exp()
            return -(middle / (a.exp() + b.exp() + middle)).log()
        theta = (1 + tie.logit.sigmoid()) / (1 - tie.logit.sigmoid())
        wins = a.exp() / (a.exp() + theta * b.exp()) * b.exp() / (b.exp() + theta * a.exp())
        return -((theta**2 - 1) * wins).log()

    def win(x, y):
        if settings.tie_model == "davidson":
            return (x.exp() / (x.exp() + y.exp() + nu * ((x + y) / 2).exp())).log()
        if settings.tie_model == "rao_kupper":
            theta = (1 + tie.logit.sigmoid()) / (1 - tie.logit.sigmoid())
            return (x.exp() / (x.exp() + theta * y.exp())).log()
        return torch.sigmoid(x - y).log()

    e, a = settings.label_smoothing, a - margin
    return -(1 - e) * win(a, b) - e * win(b, a)


def naive_order(scores, ranks, nu):
    """Return the probability of a weak order under Davidson–Luce, over all subsets."""
    left, result = set(range(len(ranks))), torch.tensor(1.0)
    for rank in sorted(set(ranks)):

        def strength(chosen):
            return nu ** (len(chosen) - 1) * (sum(scores[i] for i in chosen) / len(chosen)).exp()

        chosen = {i for i in left if ranks[i] == rank}
        subsets = [s for n in range(1, len(left) + 1) for s in itertools.combinations(sorted(left), n)]
        result = result * strength(chosen) / sum(strength(subset) for subset in subsets)
        left -= chosen
    return result


@pytest.mark.parametrize("changes", LOSSES.values(), ids=LOSSES)
def test_its_gradient_is_that_of_a_naive_implementation(tmp_path, changes):
    rows = ranking_rows(5, completions=4)
    rows += [rows[0] | {"annotator": "b", "ranks": [2, 1, 1, 3], "weight": 0.5, "strength": 2}]
    check_gradient(tmp_path, reward_job(tmp_path / "job", rows), changes)


@pytest.mark.parametrize("changes", LOSSES.values(), ids=LOSSES)
def test_its_gradient_on_dialogues_is_that_of_all_turns_of_the_policy(tmp_path, changes):
    policy_folder(tmp_path / "policy")
    rows = [
        dialogue_ranking(DIALOGUE, OTHER, "b", "c d"),
        dialogue_ranking(OTHER, DIALOGUE, "b", "c d", ranks=[2, 1, 1, 3], annotator="b", weight=0.5, strength=2),
        dialogue_ranking("a", DIALOGUE, prompt_id=2, messages=[{"role": "user", "content": "c"}]),
    ]
    written = {TOKENS: [0, 1, 2, 4, 5], OTHER_TOKENS: [0, 1, 3, 4]}
    check_gradient(tmp_path, reward_job(tmp_path / "job", rows), changes, written)


def check_gradient(tmp_path, job, changes, written=None):
    settings = DpoConfig(model=str(tmp_path / "policy"), **changes)
    (policy, tokenizer), (reference, _) = load_policy(settings.model), load_policy(settings.model)
    with torch.no_grad():  # a policy that differs from the reference
        for p in policy.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    data = read_rankings(tokenizer, JobDirectory(job).rows("rankings.jsonl"), settings)
    tie = tie_parameter([ranking for one in data.train for ranking in one.rankings], settings)
    context = DirectContext(settings, Processes(), policy, reference, tie, MicroBatches(300))
    known = ReferenceLogProbs(data.train)
    if settings.needs_reference:
        known.compute(context, [one.group for one in data.train])
    metrics = accumulate_gradients(context, data.train, known)
    found = [p.grad.clone() for p in policy.parameters()]
    tie_found = None if tie.logit.grad is None else tie.logit.grad.clone()
    context.clear_gradients()
    expected = naive_losses(policy, reference, data, settings, tie, written)
    expected.backward()
    assert metrics["loss"] == pytest.approx(expected.item(), rel=1e-4)
    for p, gradient in zip(policy.parameters(), found, strict=True):
        torch.testing.assert_close(gradient, p.grad, rtol=1e-3, atol=1e-4 * float(p.grad.abs().max()) + 1e-7)
    if tie_found is not None and tie.logit.grad is not None:
        torch.testing.assert_close(tie_found, tie.logit.grad, rtol=1e-3, atol=1e-5)
