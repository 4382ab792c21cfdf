"""Buttons of a checkpoint's page, for managers: retire it, bring it back, delete its files."""

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from feedback.actions import members
from training import checkpoints, reports
from training.models import Checkpoint


@login_required
@require_POST
def retire(request: HttpRequest, slug: str, checkpoint_id: int) -> HttpResponse:
    checkpoint = checkpoints.retire(_checkpoint(request, slug, checkpoint_id), request.user)
    messages.success(request, _("%(name)s is retired.") % {"name": checkpoint})
    return redirect("checkpoint", slug, checkpoint_id)


@login_required
@require_POST
def restore(request: HttpRequest, slug: str, checkpoint_id: int) -> HttpResponse:
    checkpoint = checkpoints.restore(_checkpoint(request, slug, checkpoint_id))
    messages.success(request, _("%(name)s is in use again.") % {"name": checkpoint})
    return redirect("checkpoint", slug, checkpoint_id)


@login_required
@require_POST
def delete_files(request: HttpRequest, slug: str, checkpoint_id: int) -> HttpResponse:
    """Delete the files of the checkpoint if the form's box, which names their size, is checked."""
    checkpoint = _checkpoint(request, slug, checkpoint_id)
    checkpoints.delete_files(checkpoint, request.user, confirmed="confirmed" in request.POST)
    messages.success(request, _("The files of %(name)s are deleted.") % {"name": checkpoint})
    return redirect("checkpoint", slug, checkpoint_id)


def _checkpoint(request: HttpRequest, slug: str, checkpoint_id: int) -> Checkpoint:
    return reports.checkpoint_of(members.manager_of(request.user, slug).project, checkpoint_id)
