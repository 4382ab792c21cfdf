"""URLs of the console."""

from django.urls import path

from training.web.views import (
    checkpoints,
    completions,
    console,
    evaluations,
    guards,
    lineage,
    machines,
    ratings,
    retirement,
    reward_model,
    rounds,
    side_by_side,
    surprising,
    trials,
)

PROJECT = "projects/<slug:slug>"
ROUND = f"{PROJECT}/rounds/<int:number>"
TRIAL = f"{PROJECT}/trials/<int:number>"
CHECKPOINT = f"{PROJECT}/checkpoints/<int:checkpoint_id>"

urlpatterns = [
    path(f"{PROJECT}/data/completions/<int:completion_id>/", completions.completion, name="data-completion"),
    path(f"{PROJECT}/console/", console.console, name="console"),
    path(f"{PROJECT}/console/status/", console.status, name="console-status"),
    path("machines/", machines.site_machines, name="site-machines"),
    path(f"{PROJECT}/machines/", machines.machines, name="machines"),
    path(f"{PROJECT}/guards/", guards.overview, name="guards"),
    path(f"{PROJECT}/guards/texts/remove/", guards.remove, name="guard-texts-remove"),
    path(f"{PROJECT}/rounds/automatic/", console.configure, name="round-automatic"),
    path(f"{PROJECT}/rounds/start/", console.start, name="round-start"),
    path(f"{PROJECT}/rounds/sample/", console.sample, name="round-sample"),
    path(f"{ROUND}/", rounds.one_round, name="round"),
    path(f"{ROUND}/status/", rounds.round_status, name="round-status"),
    path(f"{ROUND}/metrics/", rounds.round_metrics, name="round-metrics"),
    path(f"{ROUND}/metrics.csv", rounds.round_metrics_csv, name="round-metrics-csv"),
    path(f"{ROUND}/cancel/", rounds.cancel, name="round-cancel"),
    path(f"{ROUND}/resume/", rounds.resume, name="round-resume"),
    path(f"{ROUND}/samples/steps/", rounds.round_samples_at_steps, name="round-samples-at-steps"),
    path(f"{ROUND}/samples/", rounds.samples, name="round-samples"),
    path(f"{ROUND}/evaluation.json", evaluations.download, {"kind": "json"}, name="evaluation-json"),
    path(f"{ROUND}/evaluation.csv", evaluations.download, {"kind": "csv"}, name="evaluation-csv"),
    path(f"{PROJECT}/ratings/", ratings.ratings, name="ratings"),
    path(f"{PROJECT}/ratings.json", ratings.download, {"kind": "json"}, name="ratings-json"),
    path(f"{PROJECT}/ratings.csv", ratings.download, {"kind": "csv"}, name="ratings-csv"),
    path(f"{PROJECT}/reward-model/", reward_model.reward_model, name="reward-model"),
    path(f"{ROUND}/reward-model.json", reward_model.download, name="reward-model-json"),
    path(f"{PROJECT}/review/surprising/", surprising.surprising_list, name="review-surprising"),
    path(f"{PROJECT}/review/surprising/<int:comparison_id>/keep/", surprising.keep, name="review-surprising-keep"),
    path(f"{PROJECT}/trials/", trials.trial_list, name="trials"),
    path(f"{PROJECT}/trials/gate/", trials.configure, name="trial-gate"),
    path(f"{TRIAL}/", trials.one_trial, name="trial"),
    path(f"{TRIAL}/status/", trials.trial_status, name="trial-status"),
    path(f"{TRIAL}/end/", trials.end, name="trial-end"),
    path(f"{TRIAL}/promote/<int:checkpoint_id>/", trials.promote, name="trial-promote"),
    path(f"{PROJECT}/checkpoints/", lineage.overview, name="checkpoints"),
    path(f"{PROJECT}/checkpoints/compare/", side_by_side.compare, name="checkpoints-compare"),
    path(f"{PROJECT}/checkpoints/import/", console.import_checkpoint, name="checkpoint-import"),
    path(f"{PROJECT}/checkpoints/roll-back/", checkpoints.roll_back, name="roll-back"),
    path(f"{PROJECT}/checkpoints/table/", checkpoints.checkpoint_table, name="checkpoint-table"),
    path(f"{CHECKPOINT}/", checkpoints.one_checkpoint, name="checkpoint"),
    path(f"{CHECKPOINT}/check/", checkpoints.check_again, name="checkpoint-check"),
    path(f"{CHECKPOINT}/retire/", retirement.retire, name="checkpoint-retire"),
    path(f"{CHECKPOINT}/restore/", retirement.restore, name="checkpoint-restore"),
    path(f"{CHECKPOINT}/files/delete/", retirement.delete_files, name="checkpoint-delete-files"),
    path(f"{CHECKPOINT}/evaluate/", evaluations.evaluate, name="checkpoint-evaluate"),
    path(f"{CHECKPOINT}/try/", trials.try_blind, name="checkpoint-try"),
    path(f"{CHECKPOINT}/promote/", checkpoints.promote, name="checkpoint-promote"),
]
