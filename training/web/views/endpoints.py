"""The pages of a project's endpoints, for managers: list, add, change, try, remove."""

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST

from feedback.actions import members
from feedback.errors import AccordError
from feedback.models import Membership
from training.endpoints import records
from training.models import Endpoint
from training.web.forms import EndpointForm
from training.web.presenters import render_page


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def overview(request: HttpRequest, slug: str) -> HttpResponse:
    """List the endpoints, and add one."""
    membership = members.manager_of(request.user, slug)
    form = EndpointForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            made = records.create(membership.project, form.values(), membership.user)
            messages.success(request, _("The endpoint %(name)s is added. Try it.") % {"name": made.name})
            return redirect("endpoint", slug, made.pk)
        except AccordError as refusal:
            form.add_error(None, refusal.message)
    endpoints = records.endpoints_of(membership.project)
    rows = [{"endpoint": one, "cost": cost_text(records.cost_so_far(one))} for one in endpoints]
    return render_page(request, membership, "endpoints", {"tab": "endpoints", "rows": rows, "form": form})


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def one_endpoint(request: HttpRequest, slug: str, endpoint_id: int) -> HttpResponse:
    """Show an endpoint, and change it."""
    membership = members.manager_of(request.user, slug)
    endpoint = records.endpoint_of(membership.project, endpoint_id)
    form = EndpointForm(request.POST or None, instance=endpoint)
    if request.method == "POST" and form.is_valid():
        try:
            records.change(records.endpoint_of(membership.project, endpoint_id), form.values())
            messages.success(request, _("The endpoint is changed."))
            return redirect("endpoint", slug, endpoint.pk)
        except AccordError as refusal:
            form.add_error(None, refusal.message)
    return _page(request, membership, endpoint, form)


def cost_text(cost: float | None) -> str:
    """Return a cost with at least two significant digits; "" if it is not known."""
    if cost is None:
        return ""
    return f"{cost:,.2f}" if cost == 0 or cost >= 0.1 else f"{cost:.2g}" if cost >= 1e-4 else f"{cost:.6f}"


def _page(
    request: HttpRequest,
    membership: Membership,
    endpoint: Endpoint,
    form: EndpointForm,
    result: records.Call | None = None,
) -> HttpResponse:
    context = {
        "tab": "",
        "endpoint": endpoint,
        "form": form,
        "cost": cost_text(records.cost_so_far(endpoint)),
        "completions": endpoint.source.completions.count(),
        "result": result,
    }
    return render_page(request, membership, "endpoint", context)


@login_required
@require_POST
def call(request: HttpRequest, slug: str, endpoint_id: int) -> HttpResponse:
    """Send one short request to the endpoint, and show what came back."""
    membership = members.manager_of(request.user, slug)
    endpoint = records.endpoint_of(membership.project, endpoint_id)
    result = records.call_once(endpoint)
    if request.headers.get("HX-Request"):
        return render(request, "console/_endpoint_call.html", {"result": result})
    endpoint.refresh_from_db()
    return _page(request, membership, endpoint, EndpointForm(instance=endpoint), result)


@login_required
@require_POST
def models(request: HttpRequest, slug: str) -> HttpResponse:
    """List the models of the endpoint that the form describes, as proposals for the field of the model.

    The key of a stored endpoint is used for its stored address only.
    """
    membership = members.manager_of(request.user, slug)
    context: dict[str, object] = {"models": [], "error": ""}
    try:
        context["models"] = records.models_for(
            membership.project, request.POST.get("url", ""), request.POST.get("key", ""), request.POST.get("endpoint")
        )
    except AccordError as refusal:
        context["error"] = refusal.message
    return render(request, "console/_endpoint_models.html", context)


@login_required
@require_POST
def remove(request: HttpRequest, slug: str, endpoint_id: int) -> HttpResponse:
    """Remove an endpoint. Its completions stay."""
    membership = members.manager_of(request.user, slug)
    endpoint = records.endpoint_of(membership.project, endpoint_id)
    records.remove(endpoint)
    messages.success(request, _("The endpoint %(name)s is removed.") % {"name": endpoint.name})
    return redirect("endpoints", slug)
