"""Entries of the audit log for what allauth stores. Act and entry are one transaction, which the views begin.

allauth's own signals come after the transaction.
"""

from collections.abc import Callable
from typing import Any

from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount
from django.db import transaction
from django.db.models.signals import post_delete, post_save
from django.dispatch import receiver
from django.http.response import HttpResponseBase

from feedback import audit


def atomic(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    """Return the view as one transaction."""
    return transaction.atomic(view)


@receiver(post_save, sender=Authenticator)
def factor_saved(instance: Authenticator, created: bool, **_others: Any) -> None:
    if created:
        audit.record("second_factor.add", None, instance.user, after={"kind": instance.type})


@receiver(post_delete, sender=Authenticator)
def factor_deleted(instance: Authenticator, **_others: Any) -> None:
    audit.record("second_factor.remove", None, instance.user, before={"kind": instance.type})


@receiver(post_save, sender=SocialAccount)
def account_saved(instance: SocialAccount, created: bool, **_others: Any) -> None:
    if created:
        audit.record("connection.add", None, instance.user, after=_values(instance), actor=instance.user)


@receiver(post_delete, sender=SocialAccount)
def account_deleted(instance: SocialAccount, **_others: Any) -> None:
    audit.record("connection.remove", None, instance.user, before=_values(instance))


def _values(account: SocialAccount) -> dict[str, str]:
    return {"provider": account.provider, "uid": account.uid}
