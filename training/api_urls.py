"""API URLs of rounds and checkpoints."""

from django.urls import path

from training import api

PROJECT = "projects/<slug:slug>"

urlpatterns = [
    path(f"{PROJECT}/loop", api.loop_detail, name="api-loop"),
    path(f"{PROJECT}/rounds", api.round_list, name="api-rounds"),
    path(f"{PROJECT}/rounds/<int:number>", api.round_detail, name="api-round"),
    path(f"{PROJECT}/rounds/<int:number>/cancel", api.round_cancel, name="api-round-cancel"),
    path(f"{PROJECT}/rounds/<int:number>/resume", api.round_resume, name="api-round-resume"),
    path(f"{PROJECT}/checkpoints", api.checkpoint_list, name="api-checkpoints"),
    path(f"{PROJECT}/checkpoints/roll-back", api.checkpoint_roll_back, name="api-roll-back"),
    path(f"{PROJECT}/checkpoints/<int:checkpoint_id>", api.checkpoint_detail, name="api-checkpoint"),
    path(f"{PROJECT}/checkpoints/<int:checkpoint_id>/check", api.checkpoint_check, name="api-check"),
    path(f"{PROJECT}/checkpoints/<int:checkpoint_id>/promote", api.checkpoint_promote, name="api-promote"),
]
