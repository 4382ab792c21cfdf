"""The plan of a round: the rankings that it would learn from, and the estimate of its time and memory."""

import json
import struct

import pytest

from feedback.actions import reviews
from feedback.models import Comparison, Prompt, Ranking
from tests.factories import FAST, add_comparisons, fake_model, membership, person, rank
from training import checkpoints
from training.models import Round
from training.rounds import lifecycle
from training.rounds.estimates import DURATIONS, Estimate, JobEstimate, Past, estimate_of, estimated, peak_memory, took
from training.rounds.estimates.memory import parameters_of
from training.rounds.plan import plan_of
from training.rounds.start import described, start_round
from training.run_round import jobs

pytestmark = pytest.mark.slow

MILLION = 1_000_000
SMALL = {"round": {"recipe": "dpo", "prompts": 10, "shown_prompts": 0, "guard_prompts": 0, "comparison_size": 2}}


@pytest.fixture
def sized_base(project, tmp_path):
    """A served checkpoint whose file of weights has the header of a million parameters."""
    folder = fake_model(tmp_path / "sized")
    tensor = {"dtype": "F32", "shape": [1000, 1000], "data_offsets": [0, 4 * MILLION]}
    header = json.dumps({"__metadata__": {"format": "pt"}, "w": tensor}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    return checkpoints.import_checkpoint(project, str(folder), "sized", serve=True, verdict=FAST)


def counts_by_reason(learned):
    return {left.reason: left.rankings for left in learned.left_out}


def test_the_plan_counts_the_rankings_that_the_files_of_the_round_have(project, base, annotator, colleague):
    add_comparisons(project, "import", 12)
    Comparison.objects.update(wanted_rankings=2)
    Prompt.objects.update(split="train")
    rank(project, annotator, 8)
    rank(project, colleague, 3)
    colleague.is_active = False
    colleague.save()
    of_ann = list(Ranking.objects.filter(annotator=annotator).order_by("pk"))
    Ranking.objects.filter(pk=of_ann[0].pk).update(flags=["spam"])
    Prompt.objects.filter(comparisons=of_ann[1].comparison_id).update(split="held_out")
    Ranking.objects.filter(comparison=of_ann[1].comparison_id, annotator=colleague).delete()
    reviews.discard(membership(person(project, "rita", "reviewer"), project), of_ann[2].pk, reason="careless")
    Ranking.objects.filter(pk=of_ann[3].pk).update(ranks=[1, 1, 1])

    learned = plan_of(project).rankings
    left_to_colleague = Ranking.objects.filter(annotator=colleague).count()
    assert {person.username: person.rankings for person in learned.people} == {
        annotator.username: 5,
        colleague.username: left_to_colleague,
    }
    assert (learned.rankings, learned.inactive_people) == (5 + left_to_colleague, 1)
    assert counts_by_reason(learned) == {"held_out_rankings": 1, "flagged_rankings": 1, "discarded": 1}
    assert (learned.since, learned.until) == (of_ann[3].created_at, Ranking.objects.latest("created_at").created_at)
    without_ties = plan_of(project, {"reward": {"tie_model": "none"}}).rankings
    assert without_ties.rankings == learned.rankings - 1
    assert counts_by_reason(without_ties)["tied_rankings"] == 1

    round_ = start_round(project, None)
    assert learned.new == learned.rankings
    job = next(job for job in round_.jobs if job.program == "reward")
    written = jobs.fill(round_, job)
    assert jobs.snapshot_of(written) == {
        "rankings": learned.rankings + 1,
        "held_out_rankings": 1,
        "flagged_rankings": 1,
    }
    rows = [json.loads(line) for line in (written / "rankings.jsonl").read_text("utf-8").splitlines()]
    assert sum(row["split"] == "train" for row in rows) == learned.rankings
    Round.objects.update(status="cancelled")
    assert plan_of(project).rankings.new == 0


@pytest.mark.full
def test_the_plan_of_a_round_that_cannot_start_says_why_and_changes_nothing(project, sized_base, comparisons):
    plan = plan_of(project)
    assert "no rankings to learn from" in plan.refusal
    assert (plan.rankings.rankings, plan.estimate.parameters) == (0, MILLION)
    assert (plan.estimate.seconds, plan.estimate.memory_gb, plan.estimate.rounds) == (None, None, [])
    sampling = plan_of(project, learns=False)
    assert sampling.rankings is None and sampling.refusal == ""
    bad = plan_of(project, {"ppo": {"steps": 0}})
    assert "steps must be at least 1" in bad.refusal and bad.round is bad.estimate is None
    assert not Round.objects.exists()


# Bytes of a parameter: 16 for a model that is trained (weight, gradient, Adam's two moments), 4 for one that is read.
BYTES = [
    ({}, "ppo", 16 + 16 + 4 + 4),  # policy and critic; reference and reward model
    ({"ppo": {"critic": "shared"}}, "ppo", 16 + 4 + 4),
    ({"ppo": {"algorithm": "rloo", "completions_per_prompt": 2}}, "ppo", 16 + 4 + 4),
    ({"ppo": {"lora_rank": 8}}, "ppo", 4 + 4),
    ({}, "reward", 16),
    ({}, "sample", 4 + 4),
    ({"round": {"recipe": "dpo"}}, "dpo", 16 + 4),
    ({"round": {"recipe": "dpo"}, "dpo": {"loss": "simpo", "eval_prompts": 0}}, "dpo", 16),
    ({"round": {"recipe": "q"}}, "q", 16 + 16 + 4 + 4),
]


@pytest.mark.full
def test_models_need_memory_by_what_is_done_with_them(project, sized_base, base, rankings):
    assert parameters_of(base.path) is None  # its file of weights is empty
    checkpoints.promote(sized_base, None)
    for chosen, program, bytes_per_parameter in BYTES:
        jobs_ = estimate_of(described(project, chosen)).jobs
        estimate = next(job for job in jobs_ if job.arrangement[1] == program)
        assert estimate.model_gb == pytest.approx(bytes_per_parameter * MILLION / 1e9), (chosen, program)


def test_a_round_is_estimated_from_a_finished_one_and_keeps_its_estimate(project, sized_base, rankings):
    """Samples: 10 prompts with 2 completions each took 30 s, of which 10 s were the start; dpo: 6 rankings, 25 s."""
    before = start_round(project, None, SMALL)
    lifecycle.claim(before.pk, "worker")
    results = {
        DURATIONS: {"policy": 25.0, "samples": 30.0},
        "policy": {"seconds": 20.0, "peak_memory_gb": 0.520},
        "samples": {"seconds": 20.0, "tokens_mean": 40.0, "ended_fraction": 0.9, "peak_memory_gb": 0.204},
    }
    Round.objects.update(status="finished", results=results)
    before.refresh_from_db()
    assert took(before) == 55.0 and peak_memory(before) == (0.520, False)
    more = {"round": {**SMALL["round"], "prompts": 15, "comparison_size": 4}, "dpo": {"epochs": 2}}
    started = start_round(project, None, more)
    estimate = Estimate.from_json(Round.objects.get(pk=started.pk).estimate)
    policy, samples = estimate.jobs
    assert policy.seconds == pytest.approx(5 + 20 * 2)
    assert samples.seconds == pytest.approx(10 + 20 * (15 * 4) / (10 * 2))
    assert (estimate.seconds, estimate.low, estimate.high, estimate.rounds) == (115.0, 115.0, 115.0, [1])
    # 20 bytes for each of a million parameters, and 0.5 GB beyond that, as measured.
    assert estimate.memory_gb == pytest.approx(0.020 + 0.500)
    Round.objects.filter(pk=started.pk).update(status="cancelled")
    other = estimate_of(described(project, {**more, "dpo": {"loss": "ipo"}}))
    assert other.by_stage == {"policy": None, "samples": samples.seconds} and other.seconds is None


def past(seconds, **result):
    """A finished job of 100 units of work with completions of at most 256 tokens."""
    results = {DURATIONS: {"samples": seconds}, "samples": {"seconds": seconds, **result}}
    return Past(Round(results=results), job_of(100))


def job_of(work, max_tokens=256):
    return JobEstimate("samples", "samples", ["samples", "sample"], work, max_tokens, model_gb=1.0)


@pytest.mark.parametrize(("tokens", "factor"), [(20, 20 / 40), (256, 1.0), (512, (40 + 0.1 * 256) / 40)])
def test_time_scales_with_the_expected_length_of_completions(tokens, factor):
    one = past(20.0, tokens_mean=40.0, ended_fraction=0.9)
    assert estimated(job_of(100, tokens), [one]).seconds == pytest.approx(20 * factor)


def test_the_estimate_is_the_middle_of_the_past_rounds_with_their_range():
    several = [past(seconds, peak_gpu_memory_gb=gb) for seconds, gb in ((14.0, 5.0), (10.0, 3.0), (20.0, 4.0))]
    estimate = estimated(job_of(200), several)
    assert (estimate.seconds, estimate.low, estimate.high) == (28.0, 20.0, 40.0)
    assert (estimate.memory_gb, estimate.is_gpu_memory) == (4.0, True)


def test_rounds_of_earlier_versions_have_no_estimate():
    assert Estimate.from_json({}) is None
