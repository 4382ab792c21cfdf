"""The gold measurement: utilities, win rates and accuracies of fabricated samples, and of a real program's."""

import math

import pytest

from feedback import imports
from training.demo import gold
from training.demo.gold import Sample
from training.learner.runtime.jobdir import JobDirectory


def test_a_win_is_one_a_draw_half_and_a_loss_nothing():
    new = Sample([[2.0], [1.0], [0.0]], [])
    base = Sample([[1.0], [1.0], [1.0]], [])
    assert gold.win_rate(new, base).value == pytest.approx(0.5)
    assert gold.win_rate(Sample([[2.0], [1.0]], []), Sample([[1.0], [1.0]], [])).value == pytest.approx(0.75)


def test_all_completions_of_a_prompt_are_paired_with_each_other():
    new, base = Sample([[3.0, 0.0], [1.0]], []), Sample([[1.0, 2.0], [0.0]], [])
    assert gold.win_rate(new, base).value == pytest.approx((0.5 + 1.0) / 2)


def test_the_interval_is_that_of_a_mean_over_prompts():
    wins, losses = 240, 80
    new, base = Sample([[1.0]] * wins + [[-1.0]] * losses, []), Sample([[0.0]] * 320, [])
    share = gold.win_rate(new, base)
    deviation = math.sqrt(0.75 * 0.25 * 320 / 319)
    assert share.value == pytest.approx(0.75)
    assert share.high - share.value == pytest.approx(1.96 * deviation / math.sqrt(320), rel=1e-3)
    assert share.value - share.low == pytest.approx(share.high - share.value)


def test_a_policy_against_itself_wins_half():
    same = Sample([[1.0, 2.0, 2.0], [0.5, -1.0, 3.0]], [])
    assert gold.win_rate(same, same).value == pytest.approx(0.5)


def test_noiseless_accuracy_compares_within_a_prompt_only():
    # The second prompt's scores are all above the first's, which says nothing.
    sample = Sample([[0.0, 1.0], [5.0, 4.0]], [[0.1, 0.2], [0.9, 0.95]])
    assert gold.noiseless_accuracy(sample) == pytest.approx(0.5)


def test_noiseless_accuracy_of_several_models_never_compares_one_with_another():
    good, bad = Sample([[0.0, 1.0]], [[0.1, 0.2]]), Sample([[9.0, 8.0, 7.0]], [[0.9, 0.95, 0.5]])
    assert gold.noiseless_accuracy(good, bad) == pytest.approx((1 + 2) / 4)


@pytest.fixture
def prompts(project):
    rows = [{"prompt": f"My kettle number {number} arrived broken."} for number in range(40)]
    return imports.add_prompts(project, rows).prompt_ids


@pytest.mark.django_db
def test_only_held_out_prompts_are_measured_on_and_always_the_same(project, prompts, monkeypatch):
    monkeypatch.setattr(gold, "MAX_PROMPTS", 5)
    chosen = gold.held_out_prompts(project)
    assert chosen == gold.held_out_prompts(project)
    assert set(project.prompts.filter(pk__in=chosen).values_list("split", flat=True)) == {"held_out"}
    assert len(chosen) == 5


@pytest.mark.django_db
def test_samples_come_back_by_prompt_with_their_utility(project, prompts, tmp_path):
    job = JobDirectory(tmp_path)
    good = (
        "I am sorry for the trouble. It looks as if your kettle was damaged on the road. I will ship a new one today."
    )
    texts = [("Let us wait and see.", -0.5), (good, 1.5)]
    rows = [{"prompt_id": pk, "text": text, "score": score} for pk in prompts[:2] for text, score in texts]
    job.write_rows("samples.jsonl", iter(rows))
    given = [
        {"prompt_id": pk, "messages": [{"role": "user", "content": "My kettle arrived broken."}]} for pk in prompts[:2]
    ]
    sample = gold.read(job, given)
    assert sample.scores == [[-0.5, 1.5], [-0.5, 1.5]]
    assert [worse < better for worse, better in sample.utilities] == [True, True]
    assert gold.noiseless_accuracy(sample) == 1.0
