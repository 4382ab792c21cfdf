"""URLs of the console."""

from django.urls import path

from training import evaluation_views, views

PROJECT = "projects/<slug:slug>"
ROUND = f"{PROJECT}/rounds/<int:number>"

urlpatterns = [
    path(f"{PROJECT}/console/", views.console, name="console"),
    path(f"{PROJECT}/rounds/automatic/", views.configure, name="round-automatic"),
    path(f"{PROJECT}/rounds/start/", views.start, name="round-start"),
    path(f"{PROJECT}/rounds/sample/", views.sample, name="round-sample"),
    path(f"{ROUND}/", views.one_round, name="round"),
    path(f"{ROUND}/status/", views.round_status, name="round-status"),
    path(f"{ROUND}/metrics/", views.round_metrics, name="round-metrics"),
    path(f"{ROUND}/cancel/", views.cancel, name="round-cancel"),
    path(f"{ROUND}/resume/", views.resume, name="round-resume"),
    path(f"{ROUND}/samples/", views.samples, name="round-samples"),
    path(f"{ROUND}/evaluation.json", evaluation_views.download, {"kind": "json"}, name="evaluation-json"),
    path(f"{ROUND}/evaluation.csv", evaluation_views.download, {"kind": "csv"}, name="evaluation-csv"),
    path(f"{PROJECT}/checkpoints/import/", views.import_checkpoint, name="checkpoint-import"),
    path(f"{PROJECT}/checkpoints/roll-back/", views.roll_back, name="roll-back"),
    path(f"{PROJECT}/checkpoints/table/", views.checkpoint_table, name="checkpoint-table"),
    path(f"{PROJECT}/checkpoints/<int:checkpoint_id>/check/", views.check_again, name="checkpoint-check"),
    path(f"{PROJECT}/checkpoints/<int:checkpoint_id>/evaluate/", evaluation_views.evaluate, name="checkpoint-evaluate"),
    path(f"{PROJECT}/checkpoints/<int:checkpoint_id>/promote/", views.promote, name="checkpoint-promote"),
]
