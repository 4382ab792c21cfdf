"""kto: its passes against a plain computation with transformers, the learned policy, and refused input."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.learner.worlds.labelled import expected_labels, kto_job, label_rows
from tests.learner.worlds.letters import (
    best_policy,
    completions,
    log_probs,
    objective,
    policy_folder,
    reward_of,
)
from tests.learner.worlds.spoken import (
    DIALOGUE,
    LETTERS_PROMPT,
    LONG,
    OTHER,
    OTHER_SPANS,
    OTHER_TOKENS,
    SPANS,
    TOKENS,
    dialogue_ranking,
)
from tests.learner.worlds.words import ranking_rows
from training.learner import kto
from training.learner.policy import kto_updates
from training.learner.preferences.kto_loss import LabelWeights
from training.learner.preferences.labels import LabelledCompletion, read_labels
from training.learner.runtime.config.kto import KtoConfig
from training.learner.runtime.jobdir import BadInput, JobDirectory
from training.learner.runtime.processes import Processes
from training.learner.sampling.sampler import fewest_positions

pytestmark = pytest.mark.slow

BATCH = [
    LabelledCompletion((1,), (2, 0), 1.0, 0.0),
    LabelledCompletion((1,), (3, 4, 0), 0.0, 2.0),
    LabelledCompletion((2, 3), (1, 0), 0.5, 1.0),
    LabelledCompletion((4,), (0,), 1.0, 0.0),
]


# The same prompts and weights, with dialogues; WRITTEN are the places of the policy's tokens.
SPOKEN = [
    LabelledCompletion((1,), TOKENS, 1.0, 0.0, SPANS),
    LabelledCompletion((1,), (3, 4, 0), 0.0, 2.0),
    LabelledCompletion((2, 3), OTHER_TOKENS, 0.5, 1.0, OTHER_SPANS),
    LabelledCompletion((4,), (0,), 1.0, 0.0),
]
WRITTEN = {TOKENS: [0, 1, 2, 4, 5], OTHER_TOKENS: [0, 1, 3, 4]}


def plain(folder):
    """Return the folder's model as transformers computes it."""
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()


def plain_loss(policy, reference, beta, weights, batch):
    """Compute the loss of a batch and its reference point with one unpacked pass per sequence."""

    def token_log_probs(model, prompt, completion):
        logits = model(torch.tensor([[*prompt, *completion]])).logits[0, len(prompt) - 1 : -1].double()
        return logits.log_softmax(-1)[range(len(completion)), list(completion)]

    def log_ratio(prompt, completion):
        ratios = token_log_probs(policy, prompt, completion) - token_log_probs(reference, prompt, completion)
        return ratios[WRITTEN.get(completion, range(len(completion)))].sum()

    # Next completion of another prompt: the first two take that of (2, 3); (2, 3) that of (4,); (4,) the first.
    pairs = [(batch[0], batch[2]), (batch[1], batch[2]), (batch[2], batch[3]), (batch[3], batch[0])]
    point = max(0.0, sum(float(log_ratio(x.prompt, y.completion).detach()) for x, y in pairs) / 4)
    loss = 0.0
    for one in batch:
        distance = beta * (log_ratio(one.prompt, one.completion) - point)
        loss = loss + one.desirable * weights.desirable * (1 - torch.sigmoid(distance))
        loss = loss + one.undesirable * weights.undesirable * (1 - torch.sigmoid(-distance))
    return loss / 5.5, point


@pytest.mark.parametrize(("batch", "budget"), [(BATCH, 4096), (BATCH, 6), (SPOKEN, 4096), (SPOKEN, 6)])
def test_packed_passes_give_the_loss_and_gradient_of_plain_ones(tmp_path, batch, budget):
    folders = {name: str(policy_folder(tmp_path / name, seed=seed)) for name, seed in (("policy", 1), ("start", 2))}
    settings = KtoConfig(model=folders["policy"], reference_model=folders["start"], beta=0.7, micro_batch_tokens=budget)
    models, _ = kto.load_models(settings, Processes())
    weights = LabelWeights(1.5, 0.75)
    known = kto_updates.reference_log_probs(models, [tuple(batch)])
    point = kto_updates.estimate_reference_point(models, kto_updates.mismatched_pairs(models, batch))
    metrics = kto_updates.accumulate_gradients(
        models, batch, [known[kto_updates.identity(one)] for one in batch], point, weights
    )

    policy, reference = plain(folders["policy"]), plain(folders["start"]).requires_grad_(False)
    loss, expected_point = plain_loss(policy, reference, 0.7, weights, batch)
    loss.backward()
    assert (expected_point > 0 or batch is SPOKEN) and point == pytest.approx(expected_point, rel=1e-5)
    assert metrics["loss"] == pytest.approx(float(loss.detach()), rel=1e-5)
    expected = dict(policy.named_parameters())
    for name, parameter in models.policy.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name].grad, rtol=1e-4, atol=1e-7)


def test_it_starts_at_the_loss_of_a_policy_that_is_its_reference(tmp_path):
    """All log-ratios are 0, so every label loses λ/2; with balanced weights that is n_most/n of the labels."""
    rows = label_rows(10)
    job = kto_job(tmp_path / "job", rows, batch_labels=1000)
    kto.main(job)
    (line,) = JobDirectory(job).metrics()
    good = sum(row["desirable"] for row in rows)
    assert line["loss"] == pytest.approx(max(good, len(rows) - good) / len(rows), abs=1e-6)
    assert (line["reference_point"], line["desirable_reward"]) == (0.0, pytest.approx(0.0, abs=1e-6))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run on labels of three prompts; those of the fourth are held out."""
    rows = label_rows(20, held_out=["d"])
    job = kto_job(
        tmp_path_factory.mktemp("kto") / "job", rows, epochs=30, learning_rate=0.01, batch_labels=30, eval_every=10
    )
    kto.main(job)
    return job


@pytest.mark.full
def test_it_raises_the_reward_of_an_enumerable_world(trained):
    policy, reference = plain(trained / "model"), plain(trained.parent / "policy")
    rewards = torch.tensor([reward_of(completion) for completion in completions()], dtype=torch.float64)
    before, after = log_probs(reference, [1]), log_probs(policy, [1])
    assert float((after.exp() * rewards).sum()) > float((before.exp() * rewards).sum()) + 0.3


@pytest.mark.full
def test_with_the_labels_of_many_people_it_moves_towards_the_best_policy(tmp_path):
    """Its optimum is not that policy, so it stops about half-way (training/LOG.md, 2026-11-28)."""
    rows = expected_labels(["a", "b"])
    job = kto_job(tmp_path / "job", rows, epochs=40, learning_rate=0.01, batch_labels=170, beta=0.5)
    kto.main(job)
    policy, reference = plain(job / "model"), plain(tmp_path / "policy")
    for prompt in (1, 2):
        after, before = log_probs(policy, [prompt]), log_probs(reference, [prompt])
        best = best_policy(before, 0.5)
        reached, start, attainable = (objective(one, before, 0.5) for one in (after, before, best))
        assert (reached - start) / (attainable - start) > 0.25
        distances = [float((one.exp() * (one - best)).sum()) for one in (after, before)]
        assert distances[0] < 0.75 * distances[1]


def test_it_reports_held_out_labels_and_counts(trained):
    result, lines = JobDirectory(trained).result(), JobDirectory(trained).metrics()
    assert result["program"] == "kto" and result["labelled_prompts"] == 3
    assert result["desirable_labels"] + result["undesirable_labels"] == 60
    most = max(result["desirable_labels"], result["undesirable_labels"])
    assert result["desirable_weight"] == pytest.approx(most / result["desirable_labels"])
    assert 0.5 < result["held_out_separation"] <= 1 and result["held_out_loss"] == lines[-1]["held_out_loss"]
    assert [("held_out_loss" in line) for line in lines] == [line["step"] % 10 == 0 for line in lines]
    assert lines[-1]["desirable_reward"] > 0 > lines[-1]["undesirable_reward"]


def test_it_learns_from_rankings_and_with_an_adapter(tmp_path):
    job = kto_job(tmp_path / "job", label_rows(4), lora_rank=2, learning_rate=0.01)
    rows = [
        row | {"messages": [{"role": "user", "content": "abcd"[i % 4]}], "completions": ["a b", "c", "d d"],
               "ranks": [1, 2, 3]} for i, row in enumerate(ranking_rows(8))
    ]  # fmt: skip
    kto_job(job, rows, file="rankings.jsonl", lora_rank=2, learning_rate=0.01, epochs=3)
    kto.main(job)
    result = JobDirectory(job).result()
    assert (
        result["desirable_labels"] + result["undesirable_labels"] == 16 + 16 and result["unlabelled_completions"] == 8
    )
    assert (job / "model" / "adapter").is_dir()


def test_every_step_has_two_prompts():
    groups = [tuple(LabelledCompletion((p,), (c,), 1.0, 0.0) for c in range(9)) for p in range(5)]
    plan = kto.plan_steps(groups, KtoConfig(model="m", batch_labels=4, epochs=2))
    assert len(plan) == 4 and all(len({one.prompt for one in step}) >= 2 for step in plan)
    assert sorted(plan[0] + plan[1]) == sorted(plan[2] + plan[3]) == sorted(one for group in groups for one in group)
    assert plan[:2] != plan[2:]


def test_invalid_labels_and_settings_are_refused_with_a_sentence(tmp_path):
    job = kto_job(tmp_path / "job", label_rows(2))
    (job / "labels.jsonl").unlink()
    with pytest.raises(BadInput, match=r"has neither rankings\.jsonl nor labels\.jsonl: add one of them"):
        kto.main(job)
    long = label_rows(2)
    long[0] = long[0] | {"messages": [{"role": "user", "content": "a " * 127}]}
    with pytest.raises(BadInput, match="take up to 130 tokens, the model has room for 128"):
        kto.main(kto_job(tmp_path / "long", long))
    other = policy_folder(tmp_path / "other")
    (other / "chat_template.jinja").write_text("{{ messages }}")
    with pytest.raises(BadInput, match="model and reference_model must have the same tokenizer"):
        kto.main(kto_job(tmp_path / "mixed", label_rows(2), reference_model=str(other)))


def test_it_learns_from_labels_and_rankings_of_dialogues(tmp_path):
    policy_folder(tmp_path / "policy", max_position_embeddings=12)
    labels = [{"messages": LETTERS_PROMPT, "turns": DIALOGUE, "desirable": True}]
    job = kto_job(tmp_path / "job", labels)
    far = [{"role": "user", "content": "d c d c d"}]  # no room for the long dialogue after this prompt
    rows = [dialogue_ranking(LONG, OTHER, ranks=[2, 1]), dialogue_ranking("c", "d", prompt_id=2, messages=far)]
    kto_job(job, rows, file="rankings.jsonl", learning_rate=0.01, epochs=8, batch_labels=5, max_prompt_tokens=5)
    settings = KtoConfig.from_json(JobDirectory(job).config())
    models, tokenizer = kto.load_models(settings, Processes())
    data = read_labels(tokenizer, rows, labels, settings, fewest_positions(models.policy, models.reference))
    found = [(one.completion, one.turns, one.desirable > 0) for one in data.train[0]]
    cut = (2, 0, 3, 4, 0, 1, 2, 0, 3, 4, 0), ((0, 2), (3, 5), (6, 8), (9, 11))
    assert found == [(*cut, False), (OTHER_TOKENS, OTHER_SPANS, True), (TOKENS, SPANS, True)]
    kto.main(job)
    result, lines = JobDirectory(job).result(), JobDirectory(job).metrics()
    assert (result["desirable_labels"], result["undesirable_labels"], result["truncated_completions"]) == (3, 2, 1)
    assert lines[-1]["desirable_reward"] > 0 > lines[-1]["undesirable_reward"]
