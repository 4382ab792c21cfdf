"""URLs of the API."""

from django.urls import path

from feedback.api import (
    account,
    agreement,
    annotation,
    audit,
    data,
    data_lists,
    figures,
    imports,
    projects,
    ratings,
    review,
    routing,
    scopes,
    trials,
    trust,
    webhooks,
)

PROJECT = "projects/<slug:slug>"
LEASE = f"{PROJECT}/leases/<uuid:lease_id>"
REVIEW = f"{PROJECT}/review"
WEBHOOK = f"{PROJECT}/webhooks/<int:webhook_id>"
CASE = f"{REVIEW}/comparisons/<int:comparison_id>"
WORK = f"{REVIEW}/people/<int:user_id>"

urlpatterns = [
    path("projects", projects.project_list, name="api-projects"),
    path(PROJECT, projects.project_detail, name="api-project"),
    path(f"{PROJECT}/members", projects.member_list, name="api-members"),
    path(f"{PROJECT}/members/<int:user_id>", projects.member_detail, name="api-member"),
    path(f"{PROJECT}/invitations", projects.invitation_list, name="api-invitations"),
    path(f"{PROJECT}/invitations/<int:invitation_id>", projects.invitation_detail, name="api-invitation"),
    path(f"{PROJECT}/routing", routing.routing_detail, name="api-routing"),
    path("account/data", account.account_data, name="api-account-data"),
    path("account/erase", account.account_erase, name="api-account-erase"),
    path("tokens", projects.token_list, name="api-tokens"),
    path("tokens/<int:token_id>", projects.token_detail, name="api-token"),
    path("tokens/<int:token_id>/rotate", projects.token_rotate, name="api-token-rotate"),
    path(f"{PROJECT}/audit", audit.project_audit, name="api-audit"),
    path("audit", audit.site_audit, name="api-site-audit"),
    path(f"{PROJECT}/webhooks", webhooks.webhook_list, name="api-webhooks"),
    path(WEBHOOK, webhooks.webhook_detail, name="api-webhook"),
    path(f"{WEBHOOK}/rotate", webhooks.webhook_rotate, name="api-webhook-rotate"),
    path(f"{WEBHOOK}/test", webhooks.webhook_test, name="api-webhook-test"),
    path(f"{WEBHOOK}/deliveries", webhooks.delivery_list, name="api-webhook-deliveries"),
    path(f"{WEBHOOK}/deliveries/<int:delivery_id>/redeliver", webhooks.delivery_again, name="api-webhook-redeliver"),
    path(f"{PROJECT}/leases", annotation.lease_list, name="api-leases"),
    path(LEASE, annotation.lease_detail, name="api-lease"),
    path(f"{LEASE}/renew", annotation.lease_renew, name="api-lease-renew"),
    path(f"{LEASE}/ranking", annotation.lease_rank, name="api-lease-rank"),
    path(f"{LEASE}/skip", annotation.lease_skip, name="api-lease-skip"),
    path(f"{PROJECT}/rankings", annotation.ranking_list, name="api-rankings"),
    path(f"{PROJECT}/rankings/<int:ranking_id>/revise", annotation.ranking_revise, name="api-revise"),
    path(f"{PROJECT}/undo", annotation.undo, name="api-undo"),
    path(f"{PROJECT}/prompts", data.prompt_list, name="api-prompts"),
    path(f"{PROJECT}/completions", data.completion_list, name="api-completions"),
    path(f"{PROJECT}/comparisons", data.comparison_list, name="api-comparisons"),
    path(f"{PROJECT}/gold", data.gold_list, name="api-gold"),
    path(f"{PROJECT}/imports", imports.import_list, name="api-imports"),
    path(f"{PROJECT}/imports/<int:import_id>", imports.import_detail, name="api-import"),
    path(f"{PROJECT}/preferences", data.preference_list, name="api-preferences"),
    path(f"{PROJECT}/demonstrations", data.demonstration_list, name="api-demonstrations"),
    path(f"{PROJECT}/skips", data.skip_list, name="api-skips"),
    path(f"{PROJECT}/data/prompts", data_lists.prompt_list, name="api-data-prompts"),
    path(f"{PROJECT}/data/prompts/<int:prompt_id>", data_lists.prompt_detail, name="api-data-prompt"),
    path(f"{PROJECT}/data/completions", data_lists.completion_list, name="api-data-completions"),
    path(f"{PROJECT}/data/comparisons", data_lists.comparison_list, name="api-data-comparisons"),
    path(f"{PROJECT}/data/comparisons/<int:comparison_id>", data_lists.comparison_detail, name="api-data-comparison"),
    path(f"{PROJECT}/data/rankings", data_lists.ranking_list, name="api-data-rankings"),
    path(f"{PROJECT}/data/demonstrations", data_lists.demonstration_list, name="api-data-demonstrations"),
    path(f"{PROJECT}/data/skips", data_lists.skip_list, name="api-data-skips"),
    path(f"{PROJECT}/reliability", trust.reliability_detail, name="api-reliability"),
    path(f"{PROJECT}/trust", trust.trust_detail, name="api-trust"),
    path(f"{PROJECT}/agreement", agreement.agreement_detail, name="api-agreement"),
    path(f"{PROJECT}/ratings", ratings.ratings_detail, name="api-ratings"),
    path(f"{PROJECT}/ratings/slices", ratings.rating_slices, name="api-rating-slices"),
    path(f"{PROJECT}/trials", trials.trial_list, name="api-trials"),
    path(f"{PROJECT}/trials/<int:number>", trials.trial_detail, name="api-trial"),
    path(f"{PROJECT}/trials/<int:number>/end", trials.trial_end, name="api-trial-end"),
    path(f"{REVIEW}/comparisons", review.disagreement_list, name="api-disagreements"),
    path(CASE, review.case_detail, name="api-case"),
    path(f"{CASE}/adjudicate", review.case_adjudicate, name="api-adjudicate"),
    path(f"{REVIEW}/rankings/<int:ranking_id>/return", review.ranking_return, name="api-return"),
    path(f"{REVIEW}/rankings/<int:ranking_id>/discard", review.ranking_discard, name="api-discard"),
    path(f"{CASE}/keep", review.case_keep, name="api-keep"),
    path(f"{REVIEW}/flagged", review.flagged_list, name="api-flagged"),
    path(f"{REVIEW}/demonstrations", review.demonstration_list, name="api-reviewed-demonstrations"),
    path(
        f"{REVIEW}/demonstrations/<int:demonstration_id>/discard",
        review.demonstration_discard,
        name="api-discard-demonstration",
    ),
    path(WORK, review.work_list, name="api-work"),
    path(f"{WORK}/discard", review.work_discard, name="api-discard-since"),
    path(f"{REVIEW}/decisions", review.decision_list, name="api-decisions"),
    path(f"{REVIEW}/decisions/<int:decision_id>/undo", review.decision_undo, name="api-undo-decision"),
    path(f"{PROJECT}/figures", figures.figures_list, name="api-figures"),
    path(f"{PROJECT}/figures/mine", figures.figures_own, name="api-own-figures"),
]

scopes.register(
    {
        "projects": (
            *("api-projects", "api-project", "api-members", "api-member", "api-invitations", "api-invitation"),
            "api-routing",
        ),
        "webhooks": (
            *("api-webhooks", "api-webhook", "api-webhook-rotate", "api-webhook-test", "api-webhook-deliveries"),
            "api-webhook-redeliver",
        ),
        "audit": ("api-audit", "api-site-audit"),
        "tokens": ("api-account-data", "api-account-erase", "api-tokens", "api-token", "api-token-rotate"),
        "rankings": (
            *("api-leases", "api-lease", "api-lease-renew", "api-lease-rank", "api-lease-skip", "api-rankings"),
            *("api-revise", "api-undo", "api-own-figures"),
        ),
        "prompts": (
            *("api-prompts", "api-completions", "api-comparisons", "api-gold", "api-imports", "api-import"),
            *("api-data-prompts", "api-data-prompt", "api-data-completions", "api-data-comparisons"),
            *("api-data-comparison", "api-data-rankings", "api-data-demonstrations", "api-data-skips"),
        ),
        "preferences": (
            *("api-preferences", "api-demonstrations", "api-skips", "api-reliability", "api-trust", "api-agreement"),
            *("api-ratings", "api-rating-slices", "api-figures"),
        ),
        "rounds": ("api-trials", "api-trial", "api-trial-end"),
        "review": (
            *("api-disagreements", "api-case", "api-adjudicate", "api-return", "api-discard", "api-keep"),
            *("api-flagged", "api-reviewed-demonstrations", "api-discard-demonstration", "api-work"),
            *("api-discard-since", "api-decisions", "api-undo-decision"),
        ),
    }
)
