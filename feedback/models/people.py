"""Projects, and the people who work on them."""

import hashlib
import uuid

from django.contrib.auth.models import AbstractUser
from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.functions import RandomUUID
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

MAX_AHEAD = 20  # comparisons that a page may fetch ahead


def check_distinct_names(names: list[str]) -> None:
    """Of a list that people choose from: no name comes twice, or holds the comma that the settings page lists with."""
    if len({name.strip().casefold() for name in names}) < len(names):
        raise ValidationError(_("Each of them may come once only."))
    if any("," in name for name in names):
        raise ValidationError(_("None of them may hold a comma."))


class User(AbstractUser):
    """A person, or a program that signs in as one."""


class Project(models.Model):
    """One model being improved: its guidelines, its settings, its members."""

    slug = models.SlugField(unique=True)
    name = models.CharField(max_length=200)
    guidelines = models.TextField(blank=True, help_text="Markdown, shown to annotators.")
    wanted_rankings = models.PositiveSmallIntegerField(
        default=1,
        validators=[MinValueValidator(1), MaxValueValidator(100)],
        help_text="How many annotators rank each new comparison.",
    )
    lease_minutes = models.PositiveSmallIntegerField(
        default=30,
        validators=[MinValueValidator(1), MaxValueValidator(1440)],
        help_text="How long an annotator holds a comparison before it goes to the next one.",
    )
    comparisons_ahead = models.PositiveSmallIntegerField(
        default=3,
        validators=[MinValueValidator(1), MaxValueValidator(MAX_AHEAD)],
        help_text="How many comparisons an annotator's page fetches ahead: they can be ranked without a connection.",
    )
    held_out_percent = models.PositiveSmallIntegerField(
        default=20,
        validators=[MaxValueValidator(90)],
        help_text="Share of prompts kept away from training, chosen by hash.",
    )
    strength_points = models.PositiveSmallIntegerField(
        default=0,
        choices=[(0, _("Not asked")), (4, _("4 points")), (9, _("9 points"))],
        help_text="For comparisons of two: how much better one is, on a scale of so many points.",
    )
    one_key_pairs = models.BooleanField(
        default=False,
        help_text="Whether one key ranks and submits a comparison of two: 1, 2, or 3 for a tie.",
    )
    flags = ArrayField(
        models.CharField(max_length=50),
        default=list,
        blank=True,
        size=12,
        validators=[check_distinct_names],
        help_text="What annotators may mark a comparison with, besides “all bad” and “all good”.",
    )
    attributes = ArrayField(
        models.CharField(max_length=50),
        default=list,
        blank=True,
        size=6,
        validators=[check_distinct_names],
        help_text="What annotators rate each completion on, from 1 (worst) to 5 (best): say helpful, honest, harmless.",
    )
    gold_percent = models.PositiveSmallIntegerField(
        default=0,
        validators=[MaxValueValidator(50)],
        help_text="Share of an annotator's work that is gold: comparisons whose right ranking is known.",
    )
    qualification_items = models.PositiveSmallIntegerField(
        default=0,
        validators=[MaxValueValidator(100)],
        help_text="How many gold comparisons an annotator ranks before real work; 0: none.",
    )
    qualification_percent = models.PositiveSmallIntegerField(
        default=80,
        validators=[MaxValueValidator(100)],
        help_text="Share of the gold preferences that they must share to qualify.",
    )
    extra_opinions = models.PositiveSmallIntegerField(
        default=0,
        validators=[MaxValueValidator(10)],
        help_text="How many more people are asked, one after the other, while a comparison has no majority.",
    )
    annotators_see_quality = models.BooleanField(
        default=False,
        help_text="Whether annotators see their own agreement and gold pass rate, as they were at midnight.",
    )
    sampling_rule = models.CharField(max_length=30, default="random", help_text="Orders new comparisons in the queue.")
    ranking_weights = models.CharField(
        max_length=11,
        choices=[("equal", _("All count the same")), ("reliability", _("By the annotator’s reliability"))],
        default="equal",
        help_text="What a ranking counts in exports and to the reward model.",
    )
    blinding_key = models.UUIDField(
        default=uuid.uuid4,
        db_default=RandomUUID(),
        editable=False,
        help_text="Secret: keys what annotators must not be able to compute. See blinding.py.",
    )
    archived_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    members: models.ManyToManyField = models.ManyToManyField(User, through="Membership", related_name="projects")

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(wanted_rankings__gte=1), name="project_wants_a_ranking"),
            models.CheckConstraint(condition=Q(lease_minutes__gte=1), name="project_lease_lasts"),
            models.CheckConstraint(
                condition=Q(comparisons_ahead__gte=1, comparisons_ahead__lte=MAX_AHEAD),
                name="project_comparisons_ahead",
            ),
            models.CheckConstraint(condition=Q(held_out_percent__lte=90), name="project_keeps_prompts_to_train_on"),
            models.CheckConstraint(condition=Q(strength_points__in=[0, 4, 9]), name="project_strength_points"),
            models.CheckConstraint(condition=Q(flags__len__lte=12), name="project_flags"),
            models.CheckConstraint(condition=Q(attributes__len__lte=6), name="project_attributes"),
            models.CheckConstraint(condition=Q(gold_percent__lte=50), name="project_is_not_all_gold"),
            models.CheckConstraint(condition=Q(qualification_percent__lte=100), name="project_qualification_percent"),
        ]

    def __str__(self) -> str:
        return self.name


class Membership(models.Model):
    """What a person may do in a project. A reviewer may do all that an annotator may, a manager everything."""

    class Role(models.TextChoices):
        ANNOTATOR = "annotator", _("Annotator")
        REVIEWER = "reviewer", _("Reviewer")
        MANAGER = "manager", _("Manager")

    project = models.ForeignKey(Project, models.CASCADE, related_name="memberships")
    user = models.ForeignKey(User, models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=10, choices=Role.choices, default=Role.ANNOTATOR)
    qualified_at = models.DateTimeField(null=True, blank=True, help_text="When the gold comparisons were passed.")
    joined_at = models.DateTimeField(auto_now_add=True)
    gold_given_before = models.BigIntegerField(
        null=True, editable=False, help_text="Id of the comparison that gold was last drawn for."
    )
    gold_given = models.PositiveSmallIntegerField(
        default=0, db_default=0, editable=False, help_text="How many gold comparisons came before that one."
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "user"], name="membership_once"),
            models.CheckConstraint(condition=Q(role__in=["annotator", "reviewer", "manager"]), name="membership_role"),
        ]

    def __str__(self) -> str:
        return f"{self.user} ({self.role})"

    @property
    def is_manager(self) -> bool:
        return self.role == self.Role.MANAGER

    @property
    def may_review(self) -> bool:
        return self.role in (self.Role.REVIEWER, self.Role.MANAGER)


class ApiToken(models.Model):
    """A person's key to the API. Only its SHA-256 digest is kept: the key itself is shown once."""

    user = models.ForeignKey(User, models.CASCADE, related_name="api_tokens")
    name = models.CharField(max_length=100)
    digest = models.CharField(max_length=64, unique=True)
    created_at = models.DateTimeField(auto_now_add=True)
    last_used_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return self.name

    @staticmethod
    def digest_of(key: str) -> str:
        # A key holds 256 random bits, so a plain hash is as safe as a slow one, and far cheaper per request.
        return hashlib.sha256(key.encode()).hexdigest()
