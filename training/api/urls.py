"""API URLs of rounds and checkpoints."""

from django.urls import path

from feedback.api import scopes
from training.api import (
    checkpoints,
    completions,
    curves,
    endpoints,
    guard_texts,
    loop,
    machines,
    measured_samples,
    plans,
    ratings,
    retirement,
    reward_models,
    side_by_side,
)

PROJECT = "projects/<slug:slug>"

urlpatterns = [
    path(f"{PROJECT}/data/completions/<int:completion_id>", completions.completion_detail, name="api-data-completion"),
    path(f"{PROJECT}/loop", loop.loop_detail, name="api-loop"),
    path(f"{PROJECT}/rounds", loop.round_list, name="api-rounds"),
    path(f"{PROJECT}/rounds/settings", plans.settings_list, name="api-round-settings"),
    path(f"{PROJECT}/rounds/plan", plans.plan_detail, name="api-round-plan"),
    path(f"{PROJECT}/rounds/<int:number>", loop.round_detail, name="api-round"),
    path(f"{PROJECT}/rounds/<int:number>/curves", curves.round_curves, name="api-round-curves"),
    path(
        f"{PROJECT}/rounds/<int:number>/measured-samples",
        measured_samples.round_measured_samples,
        name="api-round-measured-samples",
    ),
    path(f"{PROJECT}/rounds/<int:number>/cancel", loop.round_cancel, name="api-round-cancel"),
    path(f"{PROJECT}/rounds/<int:number>/resume", loop.round_resume, name="api-round-resume"),
    path(f"{PROJECT}/rounds/<int:number>/reward-model", reward_models.reward_model, name="api-reward-model"),
    path(f"{PROJECT}/review/surprising", reward_models.surprising_list, name="api-review-surprising"),
    path(
        f"{PROJECT}/review/surprising/<int:comparison_id>/keep",
        reward_models.surprising_keep,
        name="api-review-surprising-keep",
    ),
    path(f"{PROJECT}/machines", machines.machines_detail, name="api-machines"),
    path(f"{PROJECT}/endpoints", endpoints.endpoint_list, name="api-endpoints"),
    path(f"{PROJECT}/endpoints/<int:endpoint_id>", endpoints.endpoint_detail, name="api-endpoint"),
    path(f"{PROJECT}/endpoints/<int:endpoint_id>/models", endpoints.endpoint_models, name="api-endpoint-models"),
    path(f"{PROJECT}/endpoints/<int:endpoint_id>/call", endpoints.endpoint_call, name="api-endpoint-call"),
    path(f"{PROJECT}/guard-texts", guard_texts.texts, name="api-guard-texts"),
    path(f"{PROJECT}/ratings/rounds", ratings.rating_rounds, name="api-rating-rounds"),
    path(f"{PROJECT}/checkpoints", checkpoints.checkpoint_list, name="api-checkpoints"),
    path(f"{PROJECT}/checkpoints/roll-back", checkpoints.checkpoint_roll_back, name="api-roll-back"),
    path(f"{PROJECT}/checkpoints/<int:checkpoint_id>", checkpoints.checkpoint_detail, name="api-checkpoint"),
    path(f"{PROJECT}/checkpoints/<int:checkpoint_id>/retire", retirement.retire, name="api-retire"),
    path(f"{PROJECT}/checkpoints/<int:checkpoint_id>/restore", retirement.restore, name="api-restore"),
    path(f"{PROJECT}/checkpoints/<int:checkpoint_id>/files", retirement.files, name="api-checkpoint-files"),
    path(f"{PROJECT}/checkpoints/<int:checkpoint_id>/beside/<int:other_id>", side_by_side.beside, name="api-beside"),
    path(f"{PROJECT}/checkpoints/<int:checkpoint_id>/check", checkpoints.checkpoint_check, name="api-check"),
    path(f"{PROJECT}/checkpoints/<int:checkpoint_id>/promote", checkpoints.checkpoint_promote, name="api-promote"),
]

scopes.register(
    {
        "prompts": ("api-data-completion",),
        "preferences": ("api-rating-rounds",),
        "projects": ("api-endpoints", "api-endpoint", "api-endpoint-models", "api-endpoint-call"),
        "review": ("api-review-surprising", "api-review-surprising-keep"),
        "rounds": (
            *("api-loop", "api-rounds", "api-round", "api-round-cancel", "api-round-resume", "api-machines"),
            *("api-round-curves", "api-round-measured-samples", "api-reward-model"),
            *("api-round-settings", "api-round-plan"),
            *("api-guard-texts", "api-checkpoints", "api-roll-back", "api-checkpoint", "api-check", "api-promote"),
            *("api-retire", "api-restore", "api-checkpoint-files", "api-beside"),
        ),
    }
)
