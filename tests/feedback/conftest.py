"""Work to do in the cast's project, made by the product's own functions."""

from collections.abc import Callable
from datetime import timedelta
from uuid import uuid4

import pytest

from feedback import intake, judging, queue
from feedback.models import Comparison, Lease, Membership, Project, Ranking, User


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
    added = intake.add_prompts(project, rows)
    compared = intake.add_comparisons(project, added.completion_ids, **settings)
    return list(Comparison.objects.filter(pk__in=compared.created).order_by("pk"))


def rank_next(member: Membership, ranks: list[int] | None = None, **said) -> Ranking | None:
    """Take the next comparison and rank it; in the order shown unless `ranks` says otherwise."""
    lease = queue.lease_next(member)
    if lease is None:
        return None
    said = {"idempotency_key": uuid4(), "seconds": 2.0, **said}
    if said["seconds"] > judging.CLOCK_SLACK:
        take_earlier(lease, said["seconds"])
    return judging.record(member, lease.pk, ranks or list(range(1, lease.size + 1)), **said)


def take_earlier(lease: Lease, seconds: float) -> None:
    """Let that much time have gone by since the lease was taken."""
    Lease.objects.filter(pk=lease.pk).update(taken_at=lease.taken_at - timedelta(seconds=seconds))


@pytest.fixture
def ann(annotator, project) -> Membership:
    return membership(annotator, project)


@pytest.fixture
def cole(colleague, project) -> Membership:
    return membership(colleague, project)


@pytest.fixture
def mona(manager, project) -> Membership:
    return membership(manager, project)


@pytest.fixture
def work(project) -> Callable[..., list[Comparison]]:
    return lambda count, size=2, **settings: add_work(project, count, size, **settings)


@pytest.fixture
def plain_static_files(settings):
    """Pages name the files as they are: nothing has to be collected first."""
    plain = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    settings.STORAGES = settings.STORAGES | {"staticfiles": plain}
