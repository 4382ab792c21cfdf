"""Job directories: settings and input files of the programs."""

import json

import pytest

from feedback.actions import reviews
from feedback.models import Comparison, Membership, Project, Prompt, Ranking, ReliabilityReport
from tests.factories import add_comparisons, rank
from training.learner.runtime.config import CONFIGS
from training.rounds import lifecycle
from training.rounds.inputs.prompts import chosen
from training.rounds.inputs.rankings import trainable_rankings
from training.rounds.start import start_round, start_sampling
from training.run_round import jobs

pytestmark = pytest.mark.slow


def rows(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def job(round_, name):
    return next(each for each in round_.jobs if each.name == name)


def test_a_round_that_learns_runs_four_programs(waiting):
    assert [each.name for each in waiting.jobs] == ["reward", "policy", "samples", "baseline", "guards"]


def test_a_round_that_only_samples_runs_one(project, base, comparisons):
    sampling = start_sampling(project, None)
    assert [each.name for each in sampling.jobs] == ["samples"]
    directory = jobs.fill(sampling, sampling.jobs[0])
    config = json.loads((directory / "config.json").read_text())
    assert (config["model"], config["reward_model"]) == (base.path, "")
    assert len(rows(directory / "prompts.jsonl")) == 20


def test_every_program_accepts_its_settings(waiting):
    for each in waiting.jobs:
        config = json.loads((jobs.fill(waiting, each) / "config.json").read_text())
        accepted = CONFIGS[each.program].from_json(config).to_json()
        assert config == {name: accepted[name] for name in config}


def test_each_program_starts_from_the_model_of_the_one_before(waiting, base, settings):
    made = settings.DATA_DIR / "rounds" / "support" / "0001"
    models = {each.name: jobs.models(waiting, each) for each in waiting.jobs}
    reward_model = str(made / "reward" / "model")
    assert models["reward"] == {"model": base.path, "last_reward_model": ""}
    assert models["policy"] == {"model": base.path, "reward_model": reward_model, "reference_model": ""}
    policy = str(made / "policy" / "model")
    assert models["samples"] == {"model": policy, "reward_model": reward_model}
    assert models["baseline"] == {"model": base.path, "reward_model": reward_model}
    assert models["guards"] == {"model": policy, "base_model": base.path, "root_model": base.path}


METRIC = {"ppo": {"rewards": [{"name": "rouge_l"}]}, "round": {"shown_prompts": 2}}


@pytest.fixture
def references(comparisons):
    """Reference answers to eight of the twenty prompts, some of each split."""
    for split, count in (("train", 5), ("held_out", 3)):
        for prompt in Prompt.objects.filter(split=split)[:count]:
            prompt.references = [f"{split} {prompt.pk}"]
            prompt.save()
    return set(Prompt.objects.exclude(references=[]).values_list("pk", flat=True))


def test_a_round_rewarded_by_a_metric_alone_trains_and_uses_no_reward_model(project, base, references):
    started = start_round(project, None, METRIC)
    assert (started.ranking_count, started.reward_terms, started.learns_from_rankings) == (0, ["rouge_l"], False)
    assert [each.name for each in started.jobs] == ["policy", "samples", "baseline", "guards"]
    assert {jobs.models(started, each).get("reward_model", "") for each in started.jobs} == {""}


def test_samples_are_scored_by_the_rewards_of_the_round(project, base, references):
    started = start_round(project, None, METRIC)
    configs = {each.name: json.loads((jobs.fill(started, each) / "config.json").read_text())
               for each in started.jobs}  # fmt: skip
    assert [configs[name]["rewards"] for name in ("policy", "samples", "baseline")] == [[{"name": "rouge_l"}]] * 3
    for each in started.jobs:
        assert CONFIGS[each.program].from_json(configs[each.name])


def test_a_metric_is_learned_on_prompts_with_references_and_shown_on_them_first(project, base, references):
    started = start_round(project, None, METRIC)
    policy = rows(jobs.fill(started, job(started, "policy")) / "prompts.jsonl")
    assert {row["prompt_id"] for row in policy} == references and all(row["references"] for row in policy)
    shown = rows(jobs.fill(started, job(started, "baseline")) / "prompts.jsonl")
    assert [row["split"] for row in shown] == ["held_out"] * 2 and all(row["references"] for row in shown)
    assert len(rows(jobs.fill(started, job(started, "samples")) / "prompts.jsonl")) == 20


def test_the_rankings_are_those_up_to_the_cut_off(waiting, project, annotator):
    rank(project, annotator, 3)
    written = rows(jobs.fill(waiting, job(waiting, "reward")) / "rankings.jsonl")
    assert [row["sequence"] for row in written] == [1, 2, 3, 4, 5, 6]
    assert set(written[0]) >= {"ranking_id", "prompt_id", "split", "messages", "completions", "ranks", "annotator"}


def test_rankings_that_reviewers_take_out_are_not_learned(waiting, project, annotator, manager):
    """This holds before a round starts, and between its start and the claim by a worker."""
    (first, *_) = Ranking.objects.order_by("sequence")
    member = Membership.objects.get(user=manager)
    reviews.discard(member, first.pk, reason="Careless.")
    written = rows(jobs.fill(waiting, job(waiting, "reward")) / "rankings.jsonl")
    assert [row["sequence"] for row in written] == [2, 3, 4, 5, 6]
    lifecycle.request_cancel(waiting)
    later = start_round(project, None)
    assert later.ranking_count == 5
    written = rows(jobs.fill(later, job(later, "reward")) / "rankings.jsonl")
    assert [row["sequence"] for row in written] == [2, 3, 4, 5, 6]


def test_all_bad_and_all_good_are_anchors_if_the_project_is_set_so(project, base, rankings):
    bad, good, both, *_ = Ranking.objects.order_by("pk")
    for ranking, flags in ((bad, ["all bad"]), (good, ["all good"]), (both, ["all bad", "all good"])):
        Ranking.objects.filter(pk=ranking.pk).update(flags=flags)
    plain = start_round(project, None)
    written = rows(jobs.fill(plain, job(plain, "reward")) / "rankings.jsonl")
    assert not any("anchor" in row for row in written)
    lifecycle.request_cancel(plain)
    project.anchors = True
    project.save()
    started = start_round(project, None)
    anchors = {
        row["ranking_id"]: row["anchor"] for row in rows(jobs.fill(started, job(started, "reward")) / "rankings.jsonl")
    }
    assert {anchors.pop(bad.pk), anchors.pop(good.pk), *anchors.values()} == {"below", "above", None}


def test_rankings_with_a_flag_of_the_projects_own_are_left_out_and_counted(project, base, rankings):
    project.flags = ["personal data"]
    project.save()
    flagged, bad, good, *_ = Ranking.objects.order_by("pk")
    for ranking, flags in ((flagged, ["personal data", "all bad"]), (bad, ["all bad"]), (good, ["all good"])):
        Ranking.objects.filter(pk=ranking.pk).update(flags=flags)
    started = start_round(project, None)
    assert (started.ranking_count, trainable_rankings(project).count()) == (5, 5)
    directory = jobs.fill(started, job(started, "reward"))
    written = [row["ranking_id"] for row in rows(directory / "rankings.jsonl")]
    assert flagged.pk not in written and {bad.pk, good.pk} <= set(written)
    written = jobs.snapshot_of(directory)
    assert (written["rankings"], written["flagged_rankings"]) == (5, 1)
    # the flag's name may leave the project, and the ranking keeps it
    project.flags = []
    project.save()
    assert trainable_rankings(project).count() == 5


def test_ppo_learns_from_training_prompts_and_is_measured_on_the_others(waiting):
    written = rows(jobs.fill(waiting, job(waiting, "policy")) / "prompts.jsonl")
    splits = dict(Prompt.objects.values_list("pk", "split"))
    assert {row["prompt_id"]: row["split"] for row in written} == splits
    assert {"train", "held_out"} == set(splits.values())


def test_the_base_answers_prompts_that_the_new_checkpoint_answers_too(project, base, rankings):
    started = start_round(project, None, {"round": {"prompts": 8, "shown_prompts": 3}})
    samples = rows(jobs.fill(started, job(started, "samples")) / "prompts.jsonl")
    baseline = rows(jobs.fill(started, job(started, "baseline")) / "prompts.jsonl")
    assert (len(samples), len(baseline)) == (8, 3)
    assert all(row in samples for row in baseline)
    held_out = sum(row["split"] == "held_out" for row in samples)
    assert sum(row["split"] == "held_out" for row in baseline) == min(3, held_out)


def test_prompts_that_come_later_change_nothing(waiting, project):
    before = chosen(waiting, 200)
    add_comparisons(project, "import", 5, offset=500)
    assert chosen(waiting, 200) == before


def test_a_filled_job_directory_is_not_changed(waiting):
    directory = jobs.fill(waiting, job(waiting, "policy"))
    (directory / "prompts.jsonl").write_text("as the program saw it")
    jobs.fill(waiting, job(waiting, "policy"))
    assert (directory / "prompts.jsonl").read_text() == "as the program saw it"


def test_files_of_an_earlier_database_are_moved_aside(waiting, settings):
    directory = jobs.make_directory(waiting)
    (directory / "round.json").write_text(json.dumps({"created_at": "long ago"}))
    (directory / "kept").touch()
    assert not (jobs.make_directory(waiting) / "kept").exists()
    assert (directory.with_name("0001.1") / "kept").exists()


@pytest.mark.parametrize("shown", [0, 24])
def test_the_base_answers_no_prompts_if_nothing_is_compared(project, base, rankings, shown):
    started = start_round(project, None, {"round": {"shown_prompts": shown}})
    assert ("baseline" in [each.name for each in started.jobs]) == bool(shown)


def test_rankings_all_weigh_the_same_unless_the_project_is_set_otherwise(waiting):
    assert {row["weight"] for row in rows(jobs.fill(waiting, job(waiting, "reward")) / "rankings.jsonl")} == {1.0}
    assert not ReliabilityReport.objects.exists()


def test_a_rounds_weights_are_of_its_cut_off(project, base, comparisons, annotator, colleague):
    Project.objects.filter(pk=project.pk).update(ranking_weights="reliability")
    project.refresh_from_db()
    Comparison.objects.update(wanted_rankings=2, open_slots=2)
    rank(project, annotator, 10)
    rank(project, colleague, 10)
    started = start_round(project, None)
    assert started.settings["round"]["weights"] == "reliability"
    rank(project, annotator, 5)
    written = rows(jobs.fill(started, job(started, "reward")) / "rankings.jsonl")
    report = ReliabilityReport.objects.get()
    assert report.until == started.cutoff == 20
    expected = {f"annotator-{each.annotator_id}": each.weight for each in report.annotators.all()}
    assert {row["annotator"]: row["weight"] for row in written} == expected
    assert all(0 < weight < 1 for weight in expected.values())


def test_a_round_may_be_started_with_other_weights_than_the_projects(project, base, rankings):
    settings = start_round(project, None, {"round": {"weights": "reliability"}}).settings
    assert settings["round"]["weights"] == "reliability"
