"""A trial of two checkpoints with answers to the same prompts, and votes by annotators, by the product's functions."""

from uuid import uuid4

from feedback import imports
from feedback.actions import rankings
from feedback.actions.trials import start_trial
from feedback.models import Membership, Project, Trial
from feedback.queue import leases
from tests.factories import FAST, fake_model
from training import checkpoints

WINS_TO_DECIDE = 15  # decisive votes for one side, without one for the other


def import_second(project: Project, folder, name: str = "second"):
    """A usable checkpoint that is not served."""
    return checkpoints.import_checkpoint(project, str(fake_model(folder / name)), name, verdict=FAST)


def open_trial(project: Project, *tried, prompts: int = 20, **settings) -> Trial:
    """A trial of these checkpoints, the first of which is to beat, in which annotators get its comparisons alone."""
    ids = imports.add_prompts(project, [{"prompt": f"Trial question {n}?"} for n in range(prompts)]).prompt_ids
    completions = []
    for checkpoint in tried:
        rows = [{"prompt_id": pk, "text": f"{checkpoint} to {pk}"} for pk in ids]
        completions += imports.add_completions(project, checkpoint.source, rows)
    sources = [checkpoint.source for checkpoint in tried]
    return start_trial(project, sources, completions=completions, **{"share": 100, **settings})


def vote(member: Membership, *names: str, count: int = 1) -> int:
    """Rank the next comparisons: completions of these sources in this order, others behind. Return how many were left.

    Without names all completions are tied.
    """
    for done in range(count):
        lease = leases.lease_next(Membership.objects.select_related("project", "user").get(pk=member.pk))
        if lease is None:
            return done
        items = lease.comparison.items.select_related("completion__source").order_by("position")
        places = [names.index(name) + 1 if (name := str(item.completion.source)) in names else 9 for item in items]
        dense = {place: rank for rank, place in enumerate(sorted(set(places)), start=1)}
        ranks = [dense[places[position]] for position in lease.display_order]
        rankings.record_ranking(member, lease.pk, ranks, idempotency_key=uuid4(), seconds=1.0)
    return count
