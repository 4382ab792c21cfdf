"""Page of all checkpoints of a project, with the graph of their lineage, for managers."""

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from feedback.actions import members
from training import checkpoints
from training.lineage import lineage_of
from training.web import lineage_rows
from training.web.presenters import render_page


@login_required
@require_GET
@never_cache
def overview(request: HttpRequest, slug: str) -> HttpResponse:
    """Show the lineage: each checkpoint below its base, with people's rating, KL from the root, and size on disk."""
    membership = members.manager_of(request.user, slug)
    lineage = lineage_of(membership.project)
    known = [entry.checkpoint for entry in lineage.entries]
    context = {
        "rows": lineage_rows.rows_of(lineage),
        "width": lineage_rows.width_of(lineage),
        "refusal": lineage.refusal,
        "sizes": lineage_rows.sizes_of(known),
        "served": next((one for one in known if one.is_served), None),
        "newest": max(known, key=lambda one: one.pk, default=None),
        "retired": sum(one.retired_at is not None for one in known),
        "served_before": checkpoints.served_before(membership.project),
    }
    return render_page(request, membership, "checkpoints", context)
