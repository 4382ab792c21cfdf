"""What people say: the tables, with their constraints in the database."""

from feedback.models.comparisons import Comparison, ComparisonItem, Lease, Skip
from feedback.models.people import ApiToken, Membership, Project, User
from feedback.models.prompts import Completion, Demonstration, Prompt, Source
from feedback.models.rankings import Ranking

__all__ = [
    "ApiToken",
    "Comparison",
    "ComparisonItem",
    "Completion",
    "Demonstration",
    "Lease",
    "Membership",
    "Project",
    "Prompt",
    "Ranking",
    "Skip",
    "Source",
    "User",
]
