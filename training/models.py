"""Tables of the training side: checkpoints, promotions, rounds, metrics, loop settings, workers."""

from django.contrib.postgres.fields import ArrayField
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from feedback.dialogues import Answer
from feedback.models import Project, Ranking, Source, Trial, User
from training.paths import FolderField
from training.rounds import settings as round_settings
from training.rounds.recipes import recipe_of
from training.rounds.recipes.description import DEMONSTRATIONS, RANKINGS, Counts, Job, Recipe, Stage
from training.rounds.recipes.parts import COMPARISONS, RESULT, SNAPSHOT, sampling_only

# Parts of `Checkpoint.file_sizes`, and the bytes that are in none of them (checkpoints/disk.py).
FILE_PARTS = ("model", "reward_model", "critic", "other")
SHARED = "shared"


class Checkpoint(models.Model):
    """Weights of a policy: imported, or made by a round. At most one per project is served."""

    class Kind(models.TextChoices):
        IMPORTED = "imported", _("Imported")
        ROUND = "round", _("Round")

    class Verdict(models.TextChoices):
        """Result of the model's check by `training.learner.check`: is it computed exactly here?"""

        WAITING = "waiting", _("Waiting for its check")
        EXACT_FAST = "exact_fast", _("Exact and fast")
        EXACT_GENERIC = "exact_generic", _("Exact by the generic path, which is slow")
        REFUSED = "refused", _("Refused")

    project = models.ForeignKey(Project, models.CASCADE, related_name="checkpoints")
    source = models.OneToOneField(Source, models.RESTRICT, related_name="checkpoint")
    kind = models.CharField(max_length=8, choices=Kind.choices)
    path = FolderField(max_length=1000, help_text="Hugging Face folder or hub id.")
    reward_model_path = FolderField(max_length=1000, blank=True, help_text="Reward model used in its training.")
    parent = models.ForeignKey("self", models.RESTRICT, null=True, blank=True, related_name="children")
    is_served = models.BooleanField(default=False)
    verdict = models.CharField(max_length=13, choices=Verdict.choices, default=Verdict.WAITING)
    verdict_reason = models.TextField(blank=True, help_text="Why the model is slow or refused.")
    check_requested_at = models.DateTimeField(db_default=Now(), help_text="When its check was last requested.")
    check_queued_at = models.DateTimeField(
        null=True, blank=True, help_text="When the message of its check was last sent to the workers."
    )
    check_heartbeat_at = models.DateTimeField(
        null=True, blank=True, help_text="Heartbeat of the worker that checks it."
    )
    check_worker = models.CharField(
        max_length=300, blank=True, help_text="Worker that checks it, or did: host and process id."
    )
    serve_when_checked = models.BooleanField(default=False, help_text="Promote it if its check finds it exact.")
    imported_by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    retired_at = models.DateTimeField(
        null=True, blank=True, help_text="Since when it is neither served, nor tried, nor a base. Null: it is in use."
    )
    retired_by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    file_sizes = models.JSONField(
        null=True, blank=True, help_text="Bytes of its files by part (checkpoints/disk.py). Null: not measured yet."
    )
    files_deleted_at = models.DateTimeField(null=True, blank=True, help_text="When a person had its files deleted.")
    files_deleted_by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    folders_to_remove = models.JSONField(
        default=list, blank=True, help_text="Folders of deleted files that a worker still has to remove."
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project"], condition=Q(is_served=True), name="one_served_checkpoint"),
            models.CheckConstraint(condition=Q(kind__in=["imported", "round"]), name="checkpoint_kind"),
            models.CheckConstraint(
                condition=Q(verdict__in=["waiting", "exact_fast", "exact_generic", "refused"]),
                name="checkpoint_verdict",
            ),
            models.CheckConstraint(
                condition=Q(retired_at__isnull=True) | Q(is_served=False, serve_when_checked=False),
                name="retired_checkpoint_is_not_served",
            ),
            # The files of an imported model are not Accord's.
            models.CheckConstraint(
                condition=Q(files_deleted_at__isnull=True, folders_to_remove=[])
                | Q(files_deleted_at__isnull=False, retired_at__isnull=False, kind="round"),
                name="only_files_of_retired_are_deleted",
            ),
        ]

    def __str__(self) -> str:
        return self.source.name

    @property
    def is_usable(self) -> bool:
        """Return whether it is not retired, and its check found it exact; rounds start only from such checkpoints."""
        return self.retired_at is None and self.verdict in (self.Verdict.EXACT_FAST, self.Verdict.EXACT_GENERIC)

    @property
    def bytes_on_disk(self) -> int | None:
        """Return the bytes of its files that are not shared with others; None if they are not measured."""
        return None if self.file_sizes is None else sum(self.file_sizes.get(part, 0) for part in FILE_PARTS)

    @property
    def shared_bytes(self) -> int:
        """Return the bytes of its files that have hard links elsewhere: deleting them frees nothing."""
        return (self.file_sizes or {}).get(SHARED, 0)

    @property
    def is_being_deleted(self) -> bool:
        """Return whether a worker still has to remove some of its files."""
        return bool(self.folders_to_remove)

    @property
    def root(self) -> "Checkpoint":
        """Return the imported ancestor."""
        return self.parent.root if self.parent else self


class Promotion(models.Model):
    """Record of when a checkpoint was served and who decided it. A roll-back reads these records."""

    checkpoint = models.ForeignKey(Checkpoint, models.CASCADE, related_name="promotions")
    replaced = models.ForeignKey(Checkpoint, models.CASCADE, null=True, blank=True, related_name="replacements")
    is_roll_back = models.BooleanField(default=False)
    trial = models.ForeignKey(
        Trial, models.SET_NULL, null=True, blank=True, related_name="promotions", help_text="Trial that it follows."
    )
    actor = models.ForeignKey(
        User,
        models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        help_text="Null, with a trial: the gate promoted it.",
    )
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"{self.checkpoint} served since {self.created_at}"


class Round(models.Model):
    """One turn of the loop: snapshot → reward model → policy → samples → comparisons; or an evaluation, or a trial."""

    class Status(models.TextChoices):
        WAITING = "waiting", _("Waiting")
        RUNNING = "running", _("Running")
        FINISHED = "finished", _("Finished")
        FAILED = "failed", _("Failed")
        CANCELLED = "cancelled", _("Cancelled")

    ACTIVE = (Status.WAITING, Status.RUNNING)

    project = models.ForeignKey(Project, models.CASCADE, related_name="rounds")
    number = models.PositiveIntegerField()
    status = models.CharField(max_length=9, choices=Status.choices, default=Status.WAITING)
    stage = models.CharField(
        max_length=20, default=SNAPSHOT.name, help_text="Stage of its recipe that the round has reached."
    )
    learns = models.BooleanField(
        default=True,
        help_text="False: no training. The base checkpoint writes completions to rank, or is evaluated.",
    )
    base = models.ForeignKey(Checkpoint, models.RESTRICT, related_name="rounds_from")
    checkpoint = models.OneToOneField(Checkpoint, models.SET_NULL, null=True, blank=True, related_name="round")
    cutoff = models.BigIntegerField(help_text="Sequence of the last ranking that this round learns from.")
    ranking_count = models.PositiveIntegerField(help_text="Rankings up to the cut-off that count.")
    demonstration_count = models.PositiveIntegerField(default=0, help_text="Demonstrations at the start of the round.")
    settings = models.JSONField(default=dict, help_text="Validated settings of the round and its programs.")
    results = models.JSONField(default=dict, help_text="Results of the finished programs, by job.")
    estimate = models.JSONField(default=dict, help_text="Estimate of its time and memory when it started.")
    trial = models.OneToOneField(
        Trial, models.SET_NULL, null=True, blank=True, related_name="round", help_text="Trial that its end started."
    )
    started_by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    queued_at = models.DateTimeField(null=True, blank=True, help_text="When its message was last sent to the workers.")
    worker = models.CharField(max_length=200, blank=True, help_text="Worker that runs it: host and process id.")
    attempt = models.PositiveIntegerField(default=0, help_text="Number of claims so far.")
    heartbeat_at = models.DateTimeField(null=True, blank=True)
    cancel_requested_at = models.DateTimeField(null=True, blank=True)
    error = models.TextField(blank=True, help_text="Error message for people.")
    log_tail = models.TextField(
        blank=True, help_text="The end of the log of the program that runs, or that was the last to run."
    )
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
    def recipe(self) -> Recipe:
        return recipe_of(self.settings)

    @property
    def jobs(self) -> tuple[Job, ...]:
        """Return the program runs of the round, in order."""
        settings = round_settings.completed(self.settings)
        if "guards" not in self.settings:  # a round of an earlier version, which may still be resumed
            settings["round"]["guard_prompts"] = 0
        return sampling_only(settings) if self.only_samples else self.recipe.jobs(settings, self.counts)

    @property
    def only_samples(self) -> bool:
        """Return whether the base only writes completions to rank: no training, and no evaluation."""
        return not self.learns and self.recipe.learns

    @property
    def last_stage(self) -> Stage:
        """Return the stage after all jobs: new comparisons, or only the result."""
        return COMPARISONS if any(job.program == "sample" for job in self.jobs) else RESULT

    @property
    def counts(self) -> Counts:
        return Counts(self.ranking_count, self.demonstration_count)

    @property
    def demonstrations_used(self) -> int:
        """Return how many demonstrations the round learns from."""
        return self.demonstration_count if any(DEMONSTRATIONS in job.inputs.values() for job in self.jobs) else 0

    @property
    def reward_terms(self) -> list[str]:
        """Return the names of the reward terms that score completions; none for a round without training."""
        return self.recipe.reward_terms(round_settings.completed(self.settings)) if self.learns else []

    @property
    def is_rewarded(self) -> bool:
        """Return whether the policy learns from the reward terms; otherwise they only score the samples."""
        return bool(self.recipe.rewards_section and self.reward_terms)

    @property
    def compares_with_references(self) -> bool:
        """Return whether the round can only learn from prompts with reference answers."""
        return self.learns and bool(self.recipe.comparing_terms(round_settings.completed(self.settings)))

    @property
    def scored_by_reward_model_alone(self) -> bool:
        return self.reward_terms == ["reward_model"]

    @property
    def newest_reward_model(self) -> Checkpoint | None:
        """Return the newest checkpoint with a reward model that there was at the start of the round."""
        earlier = self.project.checkpoints.filter(created_at__lte=self.created_at).exclude(reward_model_path="")
        return earlier.select_related("source").order_by("-pk").first()

    @property
    def learns_from_rankings(self) -> bool:
        return any(RANKINGS in job.inputs.values() for job in self.jobs)


class Metric(models.Model):
    """Line of a program's metrics.jsonl."""

    round = models.ForeignKey(Round, models.CASCADE, related_name="metrics")
    job = models.CharField(max_length=20, help_text="Name of the job, which is also its folder's name.")
    step = models.PositiveIntegerField()
    values = models.JSONField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["round", "job", "step"], name="metric_once")]
        ordering = ["round", "job", "step"]

    def __str__(self) -> str:
        return f"{self.job} step {self.step}"


class SampleAtStep(models.Model):
    """Completion of a fixed prompt at one step of a program: a line of samples_at_steps.jsonl, possibly cut."""

    round = models.ForeignKey(Round, models.CASCADE, related_name="samples_at_steps")
    job = models.CharField(max_length=20, help_text="Name of the job, which is also its folder's name.")
    step = models.PositiveIntegerField()
    prompt_id = models.BigIntegerField(help_text="Prompt; no foreign key, because it may be deleted with its import.")
    text = models.TextField(help_text="The completion; empty for a dialogue.")
    turns = models.JSONField(null=True, help_text="Turns of a dialogue; null: one turn, the text.")
    reward = models.FloatField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["round", "job", "step", "prompt_id"], name="sample_at_step_once")
        ]

    def __str__(self) -> str:
        return f"{self.job} step {self.step}, prompt {self.prompt_id}"

    @property
    def answer(self) -> Answer:
        return Answer(self.text, self.turns)


class MeasuredSamples(models.Model):
    """Samples that the figures of a job's result are means of: its measured_samples.jsonl, without texts."""

    round = models.ForeignKey(Round, models.CASCADE, related_name="measured_samples", db_index=False)
    job = models.CharField(max_length=20, help_text="Name of the job, which is also its folder's name.")
    rows = models.JSONField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["round", "job"], name="measured_samples_once")]

    def __str__(self) -> str:
        return f"{self.job}: {len(self.rows)} samples"


class RewardReport(models.Model):
    """Report on the reward model that a round trained, written when its program ended."""

    round = models.OneToOneField(Round, models.CASCADE, related_name="reward_report")
    figures = models.JSONField(help_text="Accuracy, calibration, slices, scores and mistakes on held-out prompts.")
    scored_rankings = models.PositiveIntegerField(help_text="Rankings with a surprise.")
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"reward model of {self.round}"


class SurprisingRanking(models.Model):
    """Ranking that other rankings contradict. A project has those of its newest report only."""

    report = models.ForeignKey(RewardReport, models.CASCADE, related_name="surprising", db_index=False)
    ranking = models.ForeignKey(Ranking, models.CASCADE, related_name="+", help_text="The revision that was scored.")
    place = models.PositiveIntegerField(help_text="In the list: 1 has the highest surprise.")
    surprise = models.FloatField(help_text="Log-odds of the other order, per pair, in nats.")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["report", "place"], name="surprising_place_once")]

    def __str__(self) -> str:
        return f"{self.ranking_id}: {self.surprise:.2f} nats"


class Worker(models.Model):
    """Process of a Celery worker, with the last facts that it reported (`training.workers`)."""

    host = models.CharField(max_length=255)
    process_id = models.PositiveIntegerField()
    queues = ArrayField(models.CharField(max_length=100), help_text="Queues whose tasks it runs.")
    version = models.CharField(max_length=40, blank=True, help_text="Commit of its code; empty: not known.")
    cpu_name = models.CharField(max_length=200, blank=True)
    cpu_count = models.PositiveIntegerField(default=0)
    cpu_percent = models.FloatField(default=0.0, help_text="Load of the machine's CPU since the last heartbeat.")
    memory_total = models.BigIntegerField(default=0, help_text="Bytes of the machine.")
    memory_used = models.BigIntegerField(default=0, help_text="Bytes used by all processes of the machine.")
    process_memory = models.BigIntegerField(default=0, help_text="Bytes used by the worker and its programs.")
    gpus = models.JSONField(
        null=True, help_text="Name, memory and load of each GPU; null: not known. Empty: there is none."
    )
    started_at = models.DateTimeField()
    heartbeat_at = models.DateTimeField()
    stopped_at = models.DateTimeField(null=True, help_text="When it ended by itself; null: it runs, or died.")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["host", "process_id"], name="one_row_per_worker")]

    def __str__(self) -> str:
        return self.address

    @property
    def address(self) -> str:
        """Return what `Round.worker` and `Checkpoint.check_worker` name it by."""
        return f"{self.host}:{self.process_id}"


class LoopSettings(models.Model):
    """Default settings of a project's rounds, the schedule of automatic ones, and the gate after a trial."""

    class Gate(models.TextChoices):
        """Person or rule that promotes the better checkpoint of a trial."""

        HAND = "hand", _("A manager")
        AUTOMATIC = "automatic", _("The gate, at once")

    project = models.OneToOneField(Project, models.CASCADE, related_name="loop")
    round_every = models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text="Start a round after this many new rankings. Empty: rounds start by hand only.",
    )
    settings = models.JSONField(default=dict, blank=True, help_text="Settings that differ from the defaults.")
    gate = models.CharField(
        max_length=9,
        choices=Gate.choices,
        default=Gate.HAND,
        help_text="hand: a manager promotes. automatic: the better checkpoint of a trial is promoted once the votes "
        "have decided, unless a guard fell.",
    )
    worthwhile_share = models.FloatField(
        default=0.5,
        validators=[MinValueValidator(0.5), MaxValueValidator(0.99)],
        help_text="A trial ends as futile once the candidate surely wins fewer of the decisive votes. 0.5: never.",
    )

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(gate__in=["hand", "automatic"]), name="loop_gate"),
            models.CheckConstraint(
                condition=Q(worthwhile_share__gte=0.5, worthwhile_share__lt=1), name="loop_worthwhile_share"
            ),
        ]

    def __str__(self) -> str:
        return f"loop of {self.project}"


class GuardText(models.Model):
    """A text of a project that its checkpoints should not find less likely from round to round."""

    MAX_LENGTH = 100_000  # characters

    project = models.ForeignKey(Project, models.CASCADE, related_name="guard_texts")
    text = models.TextField()
    digest = models.CharField(max_length=64, help_text="SHA-256 of the text.")
    added_by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "digest"], name="guard_text_once")]

    def __str__(self) -> str:
        return " ".join(self.text[:80].split())


class Endpoint(models.Model):
    """An OpenAI-compatible server that writes completions of a project, by one model: one source."""

    project = models.ForeignKey(Project, models.CASCADE, related_name="endpoints")
    source = models.OneToOneField(Source, models.RESTRICT, related_name="endpoint")
    name = models.CharField(
        _("Name"), max_length=100, help_text=_("Small letters, digits, dots and hyphens. Annotators never see it.")
    )
    url = models.CharField(
        _("Address"), max_length=500, help_text=_("Base address of the API, such as https://api.example.org/v1.")
    )
    model = models.CharField(_("Model"), max_length=200, help_text=_("Name of the model, as the endpoint lists it."))
    encrypted_key = models.TextField(blank=True, editable=False, help_text="The key, encrypted; empty: none.")
    key_ends = models.CharField(max_length=4, blank=True, editable=False, help_text="Last characters of the key.")
    concurrency = models.PositiveSmallIntegerField(
        _("Requests at once"),
        default=4,
        validators=[MinValueValidator(1), MaxValueValidator(64)],
        help_text=_("Requests that a round sends at the same time."),
    )
    timeout_seconds = models.PositiveSmallIntegerField(
        _("Seconds for an answer"),
        default=120,
        validators=[MinValueValidator(1), MaxValueValidator(3600)],
        help_text=_("A request without an answer within this time has failed."),
    )
    retries = models.PositiveSmallIntegerField(
        _("Further attempts"),
        default=5,
        validators=[MaxValueValidator(20)],
        help_text=_("After a failure that may pass, with growing times between them or those that the endpoint names."),
    )
    prompt_price = models.DecimalField(
        _("Price of input tokens"),
        max_digits=12,
        decimal_places=6,
        null=True,
        blank=True,
        validators=[MinValueValidator(0)],
        help_text=_("Of a million tokens, in the currency of your contract. Empty: no cost is shown."),
    )
    completion_price = models.DecimalField(
        _("Price of output tokens"),
        max_digits=12,
        decimal_places=6,
        null=True,
        blank=True,
        validators=[MinValueValidator(0)],
        help_text=_("Of a million tokens, in the same currency."),
    )
    requests = models.BigIntegerField(default=0, editable=False, help_text="Completions so far, those of tests too.")
    prompt_tokens = models.BigIntegerField(default=0, editable=False, help_text="Input tokens so far.")
    completion_tokens = models.BigIntegerField(default=0, editable=False, help_text="Output tokens so far.")
    created_by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "name"], name="endpoint_name_once"),
            models.CheckConstraint(condition=Q(concurrency__gte=1, concurrency__lte=64), name="endpoint_concurrency"),
            models.CheckConstraint(
                condition=Q(timeout_seconds__gte=1, timeout_seconds__lte=3600), name="endpoint_timeout"
            ),
            models.CheckConstraint(condition=Q(retries__lte=20), name="endpoint_retries"),
        ]

    def __str__(self) -> str:
        return self.name
