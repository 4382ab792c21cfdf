"""The benchmark of reading comprehension gives q and ppo the same passages, and settings that they accept."""

from tests.benchmarks.learner import reading
from training.learner.reward_terms import make_metric
from training.learner.runtime.config import PpoConfig, QConfig, SftConfig


def test_q_and_ppo_get_the_same_passages_questions_and_references():
    logged, asked = list(reading.completions(40, 20)), list(reading.prompts(40, 20))
    names = ("messages", "references", "split")
    assert [[row[name] for name in names] for row in logged] == [[row[name] for name in names] for row in asked]
    assert [row["split"] for row in asked] == ["train"] * 40 + ["held_out"] * 20
    assert [row["prompt_id"] for row in asked] == list(range(60))


def test_the_base_learns_right_answers_and_the_log_has_bad_ones():
    f1 = make_metric("token_f1")
    right = {row["messages"][0]["content"]: row["completion"] for row in reading.right_answers(40)}
    scores = [f1(row["completion"], row["references"]) for row in reading.completions(200, 1)]
    assert len(right) == 40 and all(right.values())
    assert 0.4 < sum(scores) / len(scores) < 0.65
    assert not set(right) & {row["messages"][0]["content"] for row in reading.completions(200, 1)}


def test_the_programs_accept_the_settings():
    common = reading.COMMON | {"model": "base"}
    SftConfig.from_json(reading.BASE)
    q = QConfig.from_json(common | reading.Q)
    ppo = PpoConfig.from_json(common | reading.PPO)
    assert q.kl_coefficient == ppo.kl_coefficient and q.rewards == ppo.rewards
    assert ppo.steps * ppo.batch_episodes == reading.LOGGED
