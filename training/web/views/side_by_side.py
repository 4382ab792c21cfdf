"""Page of two checkpoints beside each other, for managers."""

from typing import Any

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from feedback.actions import members
from feedback.errors import NotFound
from feedback.models import Membership, Project
from feedback.rendering import render_answer
from feedback.web.presenters import present_messages
from training import checkpoints, reports, side_by_side, trials
from training.models import Checkpoint
from training.rounds.recipes.evaluate import NAME as EVALUATE
from training.rounds.sample_comparison import other_checkpoint
from training.side_by_side import PairedPrompt, Text
from training.web.presenters import reason_not_to_start, render_page


@login_required
@require_GET
@never_cache
def compare(request: HttpRequest, slug: str) -> HttpResponse:
    """Show two checkpoints, `?one=` and `?other=` (ids), beside each other.

    Without `one`: the served one. Without `other`: the served one, or a base.

    `?cursor=` is the place of a page of prompts.
    """
    membership = members.manager_of(request.user, slug)
    project = membership.project
    one = _chosen(project, request.GET.get("one", "")) or checkpoints.served(project)
    other = _chosen(project, request.GET.get("other", "")) or (other_checkpoint(one) if one else None)
    context: dict[str, Any] = {
        "checkpoints": project.checkpoints.select_related("source").order_by("-pk"),
        "one": one,
        "two": [one, other],
        "other": other,
        "is_same": one is not None and one == other,
    }
    if one and other and one != other:
        cursor = request.GET.get("cursor", "")
        context |= _beside(membership, one, other, cursor) | {"cursor": cursor}
    return render_page(request, membership, "compare", context)


def _chosen(project: Project, text: str) -> Checkpoint | None:
    """Return the project's checkpoint of this id, None for "". Raise NotFound."""
    if not text:
        return None
    if not text.isdecimal() or len(text) > 18:
        raise NotFound(_("There is no such checkpoint in this project."))
    return reports.checkpoint_of(project, int(text))


def _beside(membership: Membership, one: Checkpoint, other: Checkpoint, cursor: str) -> dict[str, Any]:
    page = side_by_side.page_of_prompts(membership, one, other, cursor)
    judgement = side_by_side.judgement_of(one, other)
    context: dict[str, Any] = {
        "page_of_prompts": page,
        "pairs": [_pair(paired, one, other) for paired in page.prompts],
        "judgement": judgement,
        "trials": [_trial(trial, {one.source_id, other.source_id}) for trial in judgement.trials],
    }
    if not page.prompts and not cursor:
        context["evaluate_refusal"] = reason_not_to_start(membership.project, True, EVALUATE)
        context["trial_refusal"] = trials.reason_not_to_try(membership.project)
        context["candidate"] = other if one.is_served else one if other.is_served else None
    return context


def _pair(paired: PairedPrompt, one: Checkpoint, other: Checkpoint) -> dict[str, Any]:
    return {
        "paired": paired,
        "messages": present_messages(paired.prompt.messages),
        "is_held_out": paired.prompt.split == paired.prompt.Split.HELD_OUT,
        "sides": [_side(one, paired.one), _side(other, paired.other)],
    }


def _side(checkpoint: Checkpoint, text: Text) -> dict[str, Any]:
    answer = {"html": render_answer(text.answer), "text": text.answer.text}
    return {"checkpoint": checkpoint, "text": text, "answer": answer}


def _trial(trial: Any, sources: set[int]) -> dict[str, Any]:
    """Return a trial with what its votes say between the two sources, or "" where neither is the one to beat."""
    standing = trials.standing_of(trial)
    sentence = ""
    if standing.beaten.pk in sources:
        sentence = next(one.sentence for one in standing.candidates if one.source.pk in sources)
    return {"number": trial.number, "state": standing.state, "state_label": standing.state_label, "sentence": sentence}
