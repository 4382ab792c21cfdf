"""The pages for a new password, with the audit log: the change and its entry are one transaction."""

from typing import Any

from allauth.account.views import PasswordResetFromKeyView
from django.contrib.auth.views import PasswordChangeView
from django.db import transaction
from django.http import HttpResponse

from feedback import audit
from feedback.web.accounts import sign_in


class ChangePassword(PasswordChangeView):
    """A person who is signed in changes the password."""

    template_name = "account/password.html"
    success_url = "/account/"

    @transaction.atomic
    def form_valid(self, form: Any) -> HttpResponse:
        audit.record("account.password", None, form.user, actor=form.user)
        return super().form_valid(form)


class NewPassword(sign_in.NewPassword):
    """A person sets a password with the link that a manager made."""

    @transaction.atomic
    def form_valid(self, form: Any) -> HttpResponse:
        audit.record("account.password", None, form.user, actor=form.user)
        return super().form_valid(form)


class ResetPassword(PasswordResetFromKeyView):
    """A person sets a password with the link that came by mail."""

    @transaction.atomic
    def form_valid(self, form: Any) -> HttpResponse:
        audit.record("account.password", None, self.reset_user, actor=self.reset_user)
        response: HttpResponse = super().form_valid(form)
        return response
