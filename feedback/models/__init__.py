"""Tables of feedback, with their constraints in the database."""

from feedback.models.access import ApiToken, Invitation
from feedback.models.audit import AuditEntry
from feedback.models.comparisons import Comparison, ComparisonItem, Lease, Skip
from feedback.models.idempotency import IdempotentResponse
from feedback.models.imports import Import
from feedback.models.people import (
    MAX_AHEAD,
    MAX_LIMIT,
    MAX_NAMES,
    Membership,
    Pause,
    Project,
    RoutingRule,
    User,
)
from feedback.models.prompts import Completion, Demonstration, ExternalId, Prompt, PromptChanges, Source
from feedback.models.quality import OwnQualitySnapshot, QualitySnapshot, RatingsSnapshot
from feedback.models.rankings import Ranking
from feedback.models.reliability import Reliability, ReliabilityReport
from feedback.models.reviews import Review
from feedback.models.trials import Trial, TrialSource
from feedback.models.webhooks import Webhook, WebhookDelivery

__all__ = [
    "MAX_AHEAD",
    "MAX_LIMIT",
    "MAX_NAMES",
    "ApiToken",
    "AuditEntry",
    "Comparison",
    "ComparisonItem",
    "Completion",
    "Demonstration",
    "ExternalId",
    "IdempotentResponse",
    "Import",
    "Invitation",
    "Lease",
    "Membership",
    "OwnQualitySnapshot",
    "Pause",
    "Project",
    "Prompt",
    "PromptChanges",
    "QualitySnapshot",
    "Ranking",
    "RatingsSnapshot",
    "Reliability",
    "ReliabilityReport",
    "Review",
    "RoutingRule",
    "Skip",
    "Source",
    "Trial",
    "TrialSource",
    "User",
    "Webhook",
    "WebhookDelivery",
]
