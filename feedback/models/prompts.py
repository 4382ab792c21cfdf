"""Prompts, and the completions that answer them."""

from django.db import models
from django.db.models import Q

from feedback.models.imports import Import
from feedback.models.people import Project, User


class Prompt(models.Model):
    """The messages that a completion answers: one turn or a whole conversation."""

    class Split(models.TextChoices):
        TRAIN = "train"
        HELD_OUT = "held_out"

    project = models.ForeignKey(Project, models.CASCADE, related_name="prompts")
    messages = models.JSONField(help_text='[{"role": "user", "content": "…"}, …], ending with the user\'s turn.')
    digest = models.CharField(max_length=64, help_text="SHA-256 of the messages' canonical JSON.")
    split = models.CharField(max_length=8, choices=Split.choices)
    # The first of its `external_ids`. Null: none was given.
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
        indexes = [models.Index(fields=["project", "split"], name="prompt_by_split")]

    def __str__(self) -> str:
        return self.messages[-1]["content"][:80]

    @property
    def excerpt(self) -> str:
        """Return the beginning of the last message on one line."""
        return " ".join(str(self.messages[-1]["content"])[:300].split())


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
    """The author of completions: a checkpoint, a person or an import. Annotators never see it."""

    class Kind(models.TextChoices):
        CHECKPOINT = "checkpoint"
        PERSON = "person"
        IMPORT = "import"

    project = models.ForeignKey(Project, models.CASCADE, related_name="sources")
    name = models.CharField(max_length=200)
    kind = models.CharField(max_length=10, choices=Kind.choices)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "name"], name="source_once"),
            models.CheckConstraint(condition=Q(kind__in=["checkpoint", "person", "import"]), name="source_kind"),
        ]

    def __str__(self) -> str:
        return self.name


class Completion(models.Model):
    """One answer to a prompt, by a source."""

    prompt = models.ForeignKey(Prompt, models.CASCADE, related_name="completions")
    source = models.ForeignKey(Source, models.RESTRICT, related_name="completions")
    text = models.TextField()
    digest = models.CharField(max_length=64, help_text="SHA-256 of the text.")
    sampling = models.JSONField(default=dict, blank=True, help_text="Temperature, seed, whether it ended, …")
    author = models.ForeignKey(
        User, models.PROTECT, null=True, blank=True, related_name="completions", help_text="When a person wrote it."
    )
    made_by_import = models.ForeignKey(Import, models.SET_NULL, null=True, editable=False, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["prompt", "source", "digest"], name="completion_once")]

    def __str__(self) -> str:
        return self.text[:80]


class Demonstration(models.Model):
    """A completion that a person wrote, to be imitated."""

    completion = models.OneToOneField(Completion, models.CASCADE, related_name="demonstration")
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return str(self.completion)
