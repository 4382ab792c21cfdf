"""Prompts, and the completions that answer them."""

from django.db import models
from django.db.models import Exists, F, Func, IntegerField, OuterRef, Q
from django.db.models.lookups import GreaterThanOrEqual
from django.utils import timezone

from feedback.dialogues import MIN_TURNS, Answer
from feedback.models.imports import Import
from feedback.models.people import Project, User

NUMBER_OF_TURNS = Func(F("turns"), function="jsonb_array_length", output_field=IntegerField())


class Prompt(models.Model):
    """The messages that a completion answers: one turn or a whole conversation.

    The table has one more column, `search`, which PostgreSQL generates from the messages (migration `0032_search`). It
    is no field here, because every query that loads prompts would read it.
    """

    class Split(models.TextChoices):
        TRAIN = "train"
        HELD_OUT = "held_out"

    # Without an index of its own, because `prompt_newest` begins with this column.
    project = models.ForeignKey(Project, models.CASCADE, related_name="prompts", db_index=False)
    messages = models.JSONField(help_text='[{"role": "user", "content": "…"}, …], ending with the user\'s turn.')
    digest = models.CharField(max_length=64, help_text="SHA-256 of the messages' canonical JSON.")
    split = models.CharField(max_length=8, choices=Split.choices)
    # The first of its `external_ids`. Null: it has none.
    external_id = models.CharField(max_length=200, null=True, blank=True)  # noqa: DJ001
    references = models.JSONField(default=list, blank=True, help_text="Reference answers, a list of texts.")
    metadata = models.JSONField(default=dict, blank=True)
    made_by_import = models.ForeignKey(Import, models.SET_NULL, null=True, editable=False, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "digest"], name="prompt_once"),
            models.UniqueConstraint(fields=["project", "external_id"], name="prompt_external_id_once"),
            models.CheckConstraint(condition=Q(split__in=["train", "held_out"]), name="prompt_split"),
        ]
        indexes = [
            models.Index(fields=["project", "created_at", "id"], name="prompt_newest"),
            models.Index(fields=["project", "split", "created_at", "id"], name="prompt_newest_of_split"),
        ]

    def __str__(self) -> str:
        return self.messages[-1]["content"][:80]

    @property
    def excerpt(self) -> str:
        """Return the beginning of the last message on one line."""
        return " ".join(str(self.messages[-1]["content"])[:300].split())


class PromptChanges(models.Model):
    """Number of statements that changed or deleted prompts of a project; triggers count (`sql/prompt_changes.sql`).

    The row of a deleted project stays: the trigger writes it when the prompts are deleted, just before the project.
    """

    project = models.OneToOneField(
        Project, models.DO_NOTHING, primary_key=True, related_name="+", db_constraint=False, editable=False
    )
    count = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.count} changes of prompts of {self.project_id}"


class ExternalId(models.Model):
    """A name of a prompt in the system that it was imported from. A prompt may have several."""

    project = models.ForeignKey(Project, models.CASCADE, related_name="+", db_index=False)
    prompt = models.ForeignKey(Prompt, models.CASCADE, related_name="external_ids")
    value = models.CharField(max_length=200)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "value"], name="external_id_once")]

    def __str__(self) -> str:
        return self.value


class Source(models.Model):
    """The author of completions: a checkpoint, a person, an endpoint or an import. Annotators never see it."""

    class Kind(models.TextChoices):
        CHECKPOINT = "checkpoint"
        PERSON = "person"
        IMPORT = "import"
        ENDPOINT = "endpoint"

    project = models.ForeignKey(Project, models.CASCADE, related_name="sources")
    name = models.CharField(max_length=200)
    kind = models.CharField(max_length=10, choices=Kind.choices)
    is_retired = models.BooleanField(
        default=False, db_default=False, help_text="No new trial compares its completions."
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "name"], name="source_once"),
            models.CheckConstraint(
                condition=Q(kind__in=["checkpoint", "person", "import", "endpoint"]), name="source_kind"
            ),
        ]

    def __str__(self) -> str:
        return self.name


class Completion(models.Model):
    """One answer to a prompt, by a source.

    The table has one more column, `search`, which PostgreSQL generates from the text (migration `0032_search`).
    """

    prompt = models.ForeignKey(Prompt, models.CASCADE, related_name="completions")
    # Without an index of its own, because `completion_newest_of_source` begins with this column.
    source = models.ForeignKey(Source, models.RESTRICT, related_name="completions", db_index=False)
    text = models.TextField(help_text="For a dialogue: derived from its turns.")
    turns = models.JSONField(
        null=True,
        blank=True,
        help_text='For a dialogue: [{"role": "assistant", "content": "…"}, {"role": "user", …}, …]. Null: one turn.',
    )
    digest = models.CharField(max_length=64, help_text="SHA-256 of the text, or of the turns.")
    sampling = models.JSONField(default=dict, blank=True, help_text="Temperature, seed, whether it is finished, …")
    author = models.ForeignKey(
        User, models.PROTECT, null=True, blank=True, related_name="completions", help_text="Person who wrote it."
    )
    made_by_import = models.ForeignKey(Import, models.SET_NULL, null=True, editable=False, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["prompt", "source", "digest"], name="completion_once"),
            models.CheckConstraint(
                condition=Q(turns__isnull=True) | Q(GreaterThanOrEqual(NUMBER_OF_TURNS, MIN_TURNS)),
                name="completion_has_several_turns_or_none",
            ),
        ]
        indexes = [
            models.Index(fields=["source", "created_at", "id"], name="completion_newest_of_source"),
            models.Index(fields=["created_at", "id"], name="completion_newest"),
        ]

    def __str__(self) -> str:
        return self.text[:80]

    @property
    def answer(self) -> Answer:
        return Answer(self.text, self.turns)


class Demonstrations(models.QuerySet["Demonstration"]):
    """The selections of demonstrations that pages, exports and rounds use."""

    def written_in(self, project: Project) -> "Demonstrations":
        """Return the project's demonstrations that their authors have not withdrawn, discarded ones too."""
        return self.filter(completion__prompt__project=project, withdrawn_at__isnull=True)

    def counting_in(self, project: Project) -> "Demonstrations":
        """Return the demonstrations to imitate: neither withdrawn nor discarded by a reviewer."""
        return self.written_in(project).with_discard().filter(is_discarded=False)

    def with_discard(self) -> "Demonstrations":
        """Annotate `is_discarded`: whether a reviewer has discarded it."""
        discards = self.model._meta.get_field("discards").related_model._default_manager
        return self.annotate(is_discarded=Exists(discards.filter(demonstration=OuterRef("pk"), undone_at__isnull=True)))


class Demonstration(models.Model):
    """A completion to be imitated, which a person wrote or edited, or which was imported as a demonstration.

    If it was edited from a completion, its `pair` compares the two. The author's ranking of the pair has the reason
    "demonstration". It enters exports and reward models, but no figure about annotators.
    """

    completion = models.OneToOneField(Completion, models.CASCADE, related_name="demonstration")
    comparison = models.ForeignKey(
        "feedback.Comparison",
        models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        help_text="Comparison that the page showed when its author wrote it.",
    )
    pair = models.OneToOneField(
        "feedback.Comparison",
        models.SET_NULL,
        null=True,
        blank=True,
        related_name="demonstration",
        help_text="Comparison with its origin. Null: it was written without an origin, or imported.",
    )
    made_by_import = models.ForeignKey(Import, models.SET_NULL, null=True, editable=False, related_name="+")
    withdrawn_at = models.DateTimeField(null=True, blank=True, help_text="When its author withdrew it.")
    created_at = models.DateTimeField(default=timezone.now)
    objects = Demonstrations.as_manager()

    class Meta:
        indexes = [models.Index(fields=["-created_at"], name="demonstration_newest")]

    def __str__(self) -> str:
        return str(self.completion)
