"""What models learn: rounds, checkpoints and the numbers that programs report."""

from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from feedback.models import Project, Source, User
from training.paths import FolderField
from training.rounds import settings as round_settings


class Checkpoint(models.Model):
    """A policy's weights: imported, or made by a round. One of a project's is served."""

    class Kind(models.TextChoices):
        IMPORTED = "imported", _("Imported")
        ROUND = "round", _("Round")

    class Verdict(models.TextChoices):
        """What the check of the model's exactness found: `training.learner.check`."""

        WAITING = "waiting", _("Waiting for its check")
        EXACT_FAST = "exact_fast", _("Exact and fast")
        EXACT_GENERIC = "exact_generic", _("Exact by the generic path, which is slow")
        REFUSED = "refused", _("Refused")

    project = models.ForeignKey(Project, models.CASCADE, related_name="checkpoints")
    source = models.OneToOneField(Source, models.RESTRICT, related_name="checkpoint")
    kind = models.CharField(max_length=8, choices=Kind.choices)
    path = FolderField(max_length=1000, help_text="A Hugging Face folder or hub id.")
    reward_model_path = FolderField(max_length=1000, blank=True, help_text="What it was tuned against.")
    parent = models.ForeignKey("self", models.RESTRICT, null=True, blank=True, related_name="children")
    is_served = models.BooleanField(default=False)
    verdict = models.CharField(max_length=13, choices=Verdict.choices, default=Verdict.WAITING)
    verdict_reason = models.TextField(blank=True, help_text="Why it is slow or refused.")
    check_requested_at = models.DateTimeField(db_default=Now(), help_text="Since when it waits for its check.")
    check_queued_at = models.DateTimeField(null=True, blank=True, help_text="When a worker was last asked to check it.")
    check_heartbeat_at = models.DateTimeField(null=True, blank=True, help_text="Last sign of who checks it.")
    serve_when_checked = models.BooleanField(default=False, help_text="Promote it once its check finds it exact.")
    imported_by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project"], condition=Q(is_served=True), name="one_served_checkpoint"),
            models.CheckConstraint(condition=Q(kind__in=["imported", "round"]), name="checkpoint_kind"),
            models.CheckConstraint(
                condition=Q(verdict__in=["waiting", "exact_fast", "exact_generic", "refused"]),
                name="checkpoint_verdict",
            ),
        ]

    def __str__(self) -> str:
        return self.source.name

    @property
    def is_usable(self) -> bool:
        """Whether its check found it exact, so that rounds may start from it and it may be served."""
        return self.verdict in (self.Verdict.EXACT_FAST, self.Verdict.EXACT_GENERIC)


class Promotion(models.Model):
    """When a checkpoint became the served one, and by whose decision. The record that a roll-back reads."""

    checkpoint = models.ForeignKey(Checkpoint, models.CASCADE, related_name="promotions")
    replaced = models.ForeignKey(Checkpoint, models.CASCADE, null=True, blank=True, related_name="replacements")
    is_roll_back = models.BooleanField(default=False)
    actor = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"{self.checkpoint} served since {self.created_at}"


class Round(models.Model):
    """One turn of the loop: snapshot → reward model → policy → samples → comparisons."""

    class Status(models.TextChoices):
        WAITING = "waiting", _("Waiting")
        RUNNING = "running", _("Running")
        FINISHED = "finished", _("Finished")
        FAILED = "failed", _("Failed")
        CANCELLED = "cancelled", _("Cancelled")

    ACTIVE = (Status.WAITING, Status.RUNNING)

    class Stage(models.TextChoices):
        SNAPSHOT = "snapshot", _("Snapshot")
        REWARD = "reward", _("Reward")
        POLICY = "policy", _("Policy")
        SAMPLES = "samples", _("Samples")
        COMPARISONS = "comparisons", _("Comparisons")

    project = models.ForeignKey(Project, models.CASCADE, related_name="rounds")
    number = models.PositiveIntegerField()
    status = models.CharField(max_length=9, choices=Status.choices, default=Status.WAITING)
    stage = models.CharField(max_length=11, choices=Stage.choices, default=Stage.SNAPSHOT)
    learns = models.BooleanField(
        default=True, help_text="False: it learns nothing, and only writes completions of its base to be ranked."
    )
    base = models.ForeignKey(Checkpoint, models.RESTRICT, related_name="rounds_from")
    checkpoint = models.OneToOneField(Checkpoint, models.SET_NULL, null=True, blank=True, related_name="round")
    cutoff = models.BigIntegerField(help_text="The last ranking, by sequence, that this round learns from.")
    ranking_count = models.PositiveIntegerField(help_text="Live rankings up to the cut-off.")
    settings = models.JSONField(default=dict, help_text="Settings of each program, validated.")
    results = models.JSONField(default=dict, help_text="Each finished program's result.json.")
    started_by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    queued_at = models.DateTimeField(null=True, blank=True, help_text="When a worker was last asked to run it.")
    worker = models.CharField(max_length=200, blank=True, help_text="Who runs it: host and process.")
    attempt = models.PositiveIntegerField(default=0, help_text="Grows by one with each claim.")
    heartbeat_at = models.DateTimeField(null=True, blank=True)
    cancel_requested_at = models.DateTimeField(null=True, blank=True)
    error = models.TextField(blank=True, help_text="One sentence for people.")
    log_tail = models.TextField(blank=True, help_text="The end of the failed program's log.")
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "number"], name="round_number_once"),
            models.UniqueConstraint(
                fields=["project"], condition=Q(status__in=["waiting", "running"]), name="one_active_round"
            ),
            models.CheckConstraint(
                condition=Q(status__in=["waiting", "running", "finished", "failed", "cancelled"]), name="round_status"
            ),
        ]

    def __str__(self) -> str:
        return f"round {self.number}"

    @property
    def is_active(self) -> bool:
        return self.status in self.ACTIVE

    @property
    def reward_terms(self) -> list[str]:
        """Return the names of what the policy is rewarded by; none where the round learns nothing."""
        return round_settings.reward_terms(self.settings.get("ppo", {})) if self.learns else []

    @property
    def compares_with_references(self) -> bool:
        """Whether it can learn only from prompts that have reference answers."""
        return self.learns and bool(round_settings.comparing_terms(self.settings.get("ppo", {})))

    @property
    def scored_by_reward_model_alone(self) -> bool:
        return self.reward_terms == ["reward_model"]

    @property
    def uses_reward_model(self) -> bool:
        """Whether it trains a reward model on rankings, rather than be rewarded by other terms alone."""
        return "reward_model" in self.reward_terms


class Metric(models.Model):
    """A line of a program's metrics.jsonl."""

    round = models.ForeignKey(Round, models.CASCADE, related_name="metrics")
    job = models.CharField(max_length=20, help_text="The folder of the program's job directory.")
    step = models.PositiveIntegerField()
    values = models.JSONField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["round", "job", "step"], name="metric_once")]
        ordering = ["round", "job", "step"]

    def __str__(self) -> str:
        return f"{self.job} step {self.step}"


class LoopSettings(models.Model):
    """How a project's rounds run when nobody says otherwise."""

    project = models.OneToOneField(Project, models.CASCADE, related_name="loop")
    round_every = models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text="Start a round by itself after this many new rankings; empty: only by hand.",
    )
    settings = models.JSONField(default=dict, blank=True, help_text="Settings of each program that differ from ours.")

    def __str__(self) -> str:
        return f"loop of {self.project}"
