"""The page of the guards, for managers: the guard texts, and the guards of all rounds."""

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST

from feedback.actions import members
from feedback.errors import Invalid
from training import guard_texts, guards
from training.web.forms import GuardTextsForm
from training.web.presenters import render_page

MAX_TEXTS_LISTED = 20


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def overview(request: HttpRequest, slug: str) -> HttpResponse:
    """Show guards and guard texts, and accept a file of texts."""
    membership = members.manager_of(request.user, slug)
    project = membership.project
    form = GuardTextsForm(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        file = form.cleaned_data["file"]
        try:
            added = guard_texts.add(project, guard_texts.texts_in(file.name, file.read()), membership.user)
            messages.success(request, _("%(new)s new guard texts; %(known)s were there already.") % added._asdict())
            return redirect("guards", slug)
        except Invalid as refusal:
            form.add_error("file", refusal.message)
    texts = project.guard_texts.order_by("pk")
    context = {
        "tab": "guards",
        "form": form,
        "count": texts.count(),
        "texts": texts[:MAX_TEXTS_LISTED],
        "rounds": guards.summaries_of(project),
    }
    return render_page(request, membership, "guards", context)


@login_required
@require_POST
def remove(request: HttpRequest, slug: str) -> HttpResponse:
    """Remove all guard texts."""
    membership = members.manager_of(request.user, slug)
    removed = guard_texts.remove_all(membership.project)
    messages.success(request, _("%(n)s guard texts are removed.") % {"n": removed})
    return redirect("guards", slug)
