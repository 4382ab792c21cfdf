"""A person's right to see what is stored about them, and to leave."""

import json

from django.contrib import messages
from django.contrib.auth import logout
from django.contrib.auth.decorators import login_required
from django.core.serializers.json import DjangoJSONEncoder
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_GET

from feedback.actions import erasure
from feedback.errors import AccordError
from feedback.reports.own_data import own_data
from feedback.web.forms import ErasureForm


@login_required
@never_cache
@require_GET
def download(request: HttpRequest) -> HttpResponse:
    """Return a JSON file of everything that is stored about the user."""
    text = json.dumps(own_data(request.user), cls=DjangoJSONEncoder, ensure_ascii=False, indent=1)
    name = f"accord-{request.user.pk}.json"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return HttpResponse(text, content_type="application/json", headers=headers)


@sensitive_post_parameters("password")
@login_required
@never_cache
def erase(request: HttpRequest) -> HttpResponse:
    """Say what an erasure does, and erase the user's account if the password is right."""
    form = ErasureForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            erasure.erase(request.user, form.cleaned_data["password"])
        except AccordError as refusal:
            form.add_error("password", refusal.message)
        else:
            logout(request)
            messages.success(request, _("Your account and your rankings are erased."))
            return redirect("sign-in")
    return render(request, "account/erase.html", {"form": form})
