"""Webhooks of a project, for managers: the list, one with its deliveries, and what a manager does with it."""

from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from feedback.actions import members, webhooks
from feedback.errors import AccordError
from feedback.models import Membership, Webhook
from feedback.reports import webhook_log
from feedback.web.forms import checked
from feedback.webhooks import EVENTS

PAGE = require_http_methods(["GET", "HEAD", "POST"])


class WebhookForm(forms.Form):
    """A webhook, new or changed."""

    name = forms.CharField(label=gettext_lazy("Name"), max_length=100)
    url = forms.CharField(
        label=gettext_lazy("Address"),
        max_length=2000,
        help_text=gettext_lazy("An https address. Redirects are not followed."),
        widget=forms.URLInput(attrs={"placeholder": "https://example.org/hook"}),
    )
    events = forms.MultipleChoiceField(
        label=gettext_lazy("Events"), choices=list(EVENTS.items()), widget=forms.CheckboxSelectMultiple
    )


class RotateForm(forms.Form):
    """The time for which the former secret still signs."""

    hours = forms.TypedChoiceField(
        label=gettext_lazy("Both secrets sign for"),
        choices=[(24, gettext_lazy("a day")), (168, gettext_lazy("a week")), (0, gettext_lazy("no time"))],
        coerce=int,
        initial=24,
    )


@login_required
@never_cache
@PAGE
def webhook_list(request: HttpRequest, slug: str) -> HttpResponse:
    """List the webhooks, and make one. Its secret is shown in the response to this POST only."""
    membership = members.manager_of(request.user, slug)
    form = WebhookForm(request.POST if request.method == "POST" else None)
    made = None
    if request.method == "POST" and form.is_valid():
        try:
            made = webhooks.make(membership, **form.cleaned_data)
            form = WebhookForm()
        except AccordError as refusal:
            form.add_error("url" if "url" in form.fields else None, refusal.message)
    context = {"form": form, "made": made, "webhooks": webhooks.webhooks_of(membership.project)}
    return _page(request, membership, "webhooks", context)


@login_required
@never_cache
@PAGE
def webhook(request: HttpRequest, slug: str, webhook_id: int) -> HttpResponse:
    """Show a webhook with its deliveries, and change it."""
    membership = members.manager_of(request.user, slug)
    chosen = webhooks.find_webhook(membership.project, webhook_id)
    values = {"name": chosen.name, "url": chosen.url, "events": chosen.events}
    form = WebhookForm(request.POST, initial=values) if request.method == "POST" else WebhookForm(initial=values)
    if request.method == "POST" and form.is_valid():
        try:
            webhooks.change(chosen, **form.cleaned_data)
            messages.success(request, _("Saved."))
            return redirect("webhook", slug, webhook_id)
        except AccordError as refusal:
            form.add_error("url", refusal.message)
    return _webhook_page(request, membership, chosen, form)


def _webhook_page(
    request: HttpRequest, membership: Membership, chosen: Webhook, form: WebhookForm | None = None, **context: Any
) -> HttpResponse:
    values = {"name": chosen.name, "url": chosen.url, "events": chosen.events}
    page = webhook_log.read(chosen, cursor=request.GET.get("cursor", ""))
    context |= {
        "webhook": chosen,
        "form": form or WebhookForm(initial=values),
        "rotate_form": RotateForm(),
        "rows": [(delivery, EVENTS.get(delivery.event, _("Test"))) for delivery in page.deliveries],
        "first_page": "?" if "cursor" in request.GET else "",
        "next_page": f"?cursor={page.next}" if page.next else "",
    }
    return _page(request, membership, "webhook", context)


@login_required
@never_cache
@require_POST
def rotate(request: HttpRequest, slug: str, webhook_id: int) -> HttpResponse:
    """Make a new secret, which is shown in this response only."""
    membership = members.manager_of(request.user, slug)
    chosen = webhooks.find_webhook(membership.project, webhook_id)
    made = webhooks.rotate(chosen, timedelta(hours=checked(RotateForm(request.POST))["hours"]))
    return _webhook_page(request, membership, made.webhook, made=made)


@login_required
@require_POST
def switch(request: HttpRequest, slug: str, webhook_id: int) -> HttpResponse:
    """Disable or enable a webhook."""
    chosen = webhooks.find_webhook(members.manager_of(request.user, slug).project, webhook_id)
    webhooks.change(chosen, is_enabled=chosen.disabled_at is not None)
    return redirect("webhook", slug, webhook_id)


@login_required
@require_POST
def delete(request: HttpRequest, slug: str, webhook_id: int) -> HttpResponse:
    webhooks.delete(webhooks.find_webhook(members.manager_of(request.user, slug).project, webhook_id))
    messages.success(request, _("The webhook is deleted."))
    return redirect("webhooks", slug)


@login_required
@require_POST
def test(request: HttpRequest, slug: str, webhook_id: int) -> HttpResponse:
    """Post a test event now, and say how the address answered."""
    chosen = webhooks.find_webhook(members.manager_of(request.user, slug).project, webhook_id)
    attempt = webhook_log.last_attempt(webhooks.send_test(chosen))
    if attempt is not None and attempt.is_success:
        messages.success(request, _("The address answered with status %(status)s.") % {"status": attempt.status})
    else:
        reason = (attempt.status or attempt.answer) if attempt else ""
        messages.error(request, _("The test failed: %(reason)s") % {"reason": reason})
    return redirect("webhook", slug, webhook_id)


@login_required
@require_POST
def redeliver(request: HttpRequest, slug: str, webhook_id: int, delivery_id: int) -> HttpResponse:
    chosen = webhooks.find_webhook(members.manager_of(request.user, slug).project, webhook_id)
    webhooks.redeliver(chosen, delivery_id)
    messages.success(request, _("It is delivered again within seconds."))
    return redirect("webhook", slug, webhook_id)


def _page(request: HttpRequest, membership: Membership, page: str, context: dict[str, Any]) -> HttpResponse:
    context |= {"project": membership.project, "membership": membership, "page": "settings", "tab": "webhooks"}
    return render(request, f"project/{page}.html", context)
