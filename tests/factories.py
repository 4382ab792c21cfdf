"""People, work, rankings, model folders and API clients, made by the product's own functions."""

import json
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

from django.contrib.auth.hashers import PBKDF2PasswordHasher
from rest_framework.test import APIClient

from feedback import imports
from feedback.actions import members, rankings, reviews
from feedback.actions.tokens import issue_token
from feedback.models import Comparison, Lease, Membership, Project, Ranking, Source, User
from feedback.queue import lease_rows, leases
from training.checkpoints.checks import Verdict

URL = "/api/v1/projects/support"
FAST = Verdict("fast", "packed", "packed", "")  # for models whose check is not what a test is about


class QuickHasher(PBKDF2PasswordHasher):
    """One iteration: any server can check the hash, and a test's people do not cost a second each."""

    iterations = 1


def person(project: Project | None, name: str, role: str | None = None) -> User:
    """A user whose password is "<name>-password", and a member of the project where a role is given."""
    user = User.objects.create_user(name, password=f"{name}-password")
    if project is not None and role is not None:
        Membership.objects.create(project=project, user=user, role=role)
    return user


def membership(user: User, project: Project) -> Membership:
    return Membership.objects.select_related("project", "user").get(user=user, project=project)


def add_work(project: Project, count: int, size: int = 2, **settings) -> list[Comparison]:
    """`count` comparisons of `size` completions by `size` sources, each of its own prompt."""
    start = project.prompts.count()
    rows = [
        {
            "prompt": f"question {start + index}",
            "completions": [
                {"text": f"answer {place} to {start + index}", "source": f"source-{place}"} for place in range(size)
            ],
        }
        for index in range(count)
    ]
    added = imports.add_prompts(project, rows)
    compared = imports.add_comparisons(project, added.completion_ids, **settings)
    return list(Comparison.objects.filter(pk__in=compared.created).order_by("pk"))


def add_comparisons(project: Project, source: str, count: int, offset: int = 0) -> list[int]:
    """The ids of `count` new comparisons of three completions each, of one imported source."""
    prompts = imports.add_prompts(project, [{"prompt": f"Where is parcel {n}?"} for n in range(offset, offset + count)])
    found = imports.get_source(project, source, Source.Kind.IMPORT)
    rows = [
        {"prompt_id": pk, "text": f"{text} {source}"} for pk in prompts.prompt_ids for text in ("Soon.", "No.", "?")
    ]
    ids = imports.add_completions(project, found, rows)
    return imports.add_comparisons(project, [ids[n : n + 3] for n in range(0, len(ids), 3)]).created


def rank_next(member: Membership, ranks: list[int] | None = None, **fields) -> Ranking | None:
    """Take the next comparison and rank it; in the order shown unless `ranks` says otherwise."""
    lease = leases.lease_next(member)
    if lease is None:
        return None
    fields = {"idempotency_key": uuid4(), "seconds": 2.0, **fields}
    if fields["seconds"] > rankings.CLOCK_SLACK:
        take_earlier(lease, fields["seconds"])
    return rankings.record_ranking(member, lease.pk, ranks or list(range(1, lease.size + 1)), **fields)


def take_earlier(lease: Lease, seconds: float) -> None:
    """Let that much time have gone by since the lease was taken."""
    Lease.objects.filter(pk=lease.pk).update(taken_at=lease.taken_at - timedelta(seconds=seconds))


def rank_by_position(member: Membership, ranks: list[int], **fields) -> Ranking:
    """Rank the next comparison; `ranks` by position, not in the order shown."""
    lease = leases.lease_next(member)
    shown = [ranks[position] for position in lease.display_order]
    return rankings.record_ranking(member, lease.pk, shown, idempotency_key=uuid4(), seconds=2.0, **fields)


def rank(project: Project, annotator: User, count: int) -> None:
    """Rank the annotator's next `count` comparisons of three, the first shown best."""
    member = members.membership_of(annotator, project.slug)
    for _ in range(count):
        rank_next(member, [1, 2, 2], seconds=3.0)


def adjudicate(member: Membership, comparison: Comparison, by_position: list[int], **fields) -> Ranking:
    order = lease_rows.display_order(member, comparison)
    ranks = [by_position[position] for position in order]
    fields = {"idempotency_key": uuid4(), "seconds": 4.0, **fields}
    return reviews.adjudicate(member, comparison.pk, ranks, **fields)


def client_of(user: User) -> APIClient:
    """A client of the API with a token of its own."""
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {issue_token(user, 'tests')[1]}")
    return client


def lines(*rows) -> bytes:
    """The rows as JSON Lines."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def rows_of(response) -> list:
    """The rows of a streamed JSON Lines response."""
    return [json.loads(line) for line in b"".join(response.streaming_content).splitlines()]


def fake_model(folder: Path, **config) -> Path:
    """Files that look like a model from outside; enough for whatever never loads it."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **config}))
    for name in ("model.safetensors", "tokenizer.json"):
        (folder / name).touch()
    return folder


def random_model(folder: Path, kind: str = "llama", **config) -> Path:
    """A random model in a folder that loads."""
    from tokenizers import Tokenizer, models
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(["<end>", "a", "b", "c"])}, "a"))
    template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"num_key_value_heads": 1, "vocab_size": 4, "eos_token_id": 0, "pad_token_id": 0, "bos_token_id": 0}
    AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes, **config)).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>", chat_template=template).save_pretrained(folder)
    return folder
