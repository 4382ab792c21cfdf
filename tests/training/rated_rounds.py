"""Three finished rounds whose checkpoints were compared by people with each other and with the imported model."""

from uuid import uuid4

from feedback import imports
from feedback.actions import rankings
from feedback.queue import leases
from training.models import Checkpoint, Round

RESULTS = [  # KL from the root, gain in reward
    ((1.2, 1.0, 1.4), (0.60, 0.45, 0.75)),
    ((3.1, 2.7, 3.5), (0.35, 0.22, 0.48)),
    ((6.4, 5.8, 7.0), (0.30, 0.18, 0.42)),
]
BETTER = [(0, 1, 0.75), (1, 2, 0.65), (2, 3, 0.1), (0, 3, 0.55), (0, 2, 0.8)]  # the second wins this share


def make_rounds(project, base):
    """Return the imported checkpoint and those of three finished rounds, each from the one before."""
    checkpoints = [base]
    for number, (kl, gain) in enumerate(RESULTS, start=1):
        source = project.sources.create(name=f"round-000{number}", kind="checkpoint")
        made = Checkpoint.objects.create(
            project=project, source=source, kind="round", path="/made", parent=checkpoints[-1], verdict="exact_fast"
        )
        Round.objects.create(
            project=project,
            number=number,
            status="finished",
            base=checkpoints[-1],
            checkpoint=made,
            cutoff=0,
            ranking_count=0,
            results={"policy": _figure("reward_gain", gain), "samples": _figure("kl_from_root", kl)},
        )
        checkpoints.append(made)
    return checkpoints


def rank_rounds(project, members, checkpoints, prompts):
    """Let members rank pairs of checkpoints in turn: with the shares of BETTER, every eighth a tie."""
    rows = [
        {"prompt": f"Question {n}" + "?" * (n % 40), "metadata": {"topic": ["parcels", "billing"][n // 5 % 2]}}
        for n in range(prompts)
    ]
    prompt_ids = imports.add_prompts(project, rows).prompt_ids
    completions = {}  # by prompt and checkpoint
    for place, checkpoint in enumerate(checkpoints):
        of_place = [n for n in range(prompts) if place in BETTER[n % len(BETTER)][:2]]
        texts = [
            {"prompt_id": prompt_ids[n], "text": f"Answer of {place}" + ", at length" * (n * (place + 3) % 7)}
            for n in of_place
        ]
        ids = imports.add_completions(project, checkpoint.source, texts)
        completions |= {(n, place): pk for n, pk in zip(of_place, ids, strict=True)}
    groups = [[completions[n, place] for place in BETTER[n % len(BETTER)][:2]] for n in range(prompts)]
    imports.add_comparisons(project, groups)
    number = {pk: n for n, pk in enumerate(prompt_ids)}
    for turn in range(prompts):
        member = members[turn % len(members)]
        lease = leases.lease_next(member)
        n = number[lease.comparison.prompt_id]
        share, again = BETTER[n % len(BETTER)][2], n // len(BETTER)
        by_position = [1, 1] if again % 8 == 7 else [2, 1] if again * 0.618 % 1 < share else [1, 2]
        ranks = [by_position[position] for position in lease.display_order]
        rankings.record_ranking(member, lease.pk, ranks, idempotency_key=uuid4(), seconds=2.0)


def _figure(name, interval):
    value, low, high = interval
    return {name: value, f"{name}_low": low, f"{name}_high": high}
