"""Endpoints of a project: every write, the test call, and the cost of tokens.

An endpoint is one source, "endpoint:<name>", and its completions stay comparable: name and model cannot be changed once
it has written some. The key is stored encrypted, and is shown nowhere.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import F
from django.utils.translation import gettext as _

from feedback import audit, encryption, imports
from feedback.errors import Conflict, Invalid, NotFound
from feedback.models import Project, Source, User
from training.endpoints.addresses import checked_url, target_of
from training.endpoints.client import Client, EndpointFailed, opened
from training.models import Endpoint, Round

PREFIX = "endpoint:"
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
MAX_ENDPOINTS = 100  # of a project
PURPOSE = "endpoint key"
TEST_SECONDS = 20.0
TEST_MESSAGES = [{"role": "user", "content": "Say hello."}]
TEST_TOKENS = 16
MILLION = 1_000_000


@dataclass(frozen=True)
class Call:
    """Result of a test call: the completion, or what went wrong."""

    text: str = ""
    error: str = ""
    model: str = ""
    finish_reason: str = ""
    seconds: float = 0.0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost: float | None = None


def endpoints_of(project: Project) -> list[Endpoint]:
    return list(project.endpoints.order_by("name"))


def endpoint_of(project: Project, endpoint_id: int) -> Endpoint:
    """Return the project's endpoint of this id. Raise NotFound."""
    endpoint = project.endpoints.filter(pk=endpoint_id).first()
    if endpoint is None:
        raise NotFound(_("There is no such endpoint in this project."))
    return endpoint


def named(project: Project, name: str) -> Endpoint:
    """Return the project's endpoint of this name. Raise Invalid."""
    endpoint = project.endpoints.filter(name=name).first()
    if endpoint is None:
        raise Invalid(_('This project has no endpoint "%(name)s".') % {"name": name})
    return endpoint


def create(project: Project, values: Mapping[str, Any], actor: User | None) -> Endpoint:
    """Add an endpoint. values: fields of `Endpoint`, and `key`. Raise Invalid, or Conflict if the name is taken."""
    endpoint = Endpoint(project=project, created_by=actor)
    _fill(endpoint, values)
    with transaction.atomic():
        Project.objects.select_for_update(no_key=True).get(pk=project.pk)
        if project.endpoints.count() >= MAX_ENDPOINTS:
            raise Conflict(_("A project can have at most %(most)s endpoints.") % {"most": MAX_ENDPOINTS})
        if Source.objects.filter(project=project, name=PREFIX + endpoint.name).exists():
            raise Conflict(
                _('This project has or had an endpoint "%(name)s", whose completions stay: choose another name.')
                % {"name": endpoint.name}
            )
        endpoint.source = imports.get_source(project, PREFIX + endpoint.name, Source.Kind.ENDPOINT)
        endpoint.save()
        audit.record("endpoint.add", project, endpoint, after=_audited(endpoint), actor=actor)
    return endpoint


def change(endpoint: Endpoint, values: Mapping[str, Any]) -> Endpoint:
    """Change an endpoint. A key that is not among the values stays; an empty one is removed. Raise as `create`."""
    name, model, url, earlier = endpoint.name, endpoint.model, endpoint.url, _audited(endpoint)
    _fill(endpoint, values)
    if endpoint.url != url and endpoint.encrypted_key and "key" not in values:
        # Otherwise a manager could have the key, which no page shows, sent to an address of their own.
        raise Invalid(_("Write the key again: it was for another address."))
    with transaction.atomic():
        # The lock waits for a round that stores completions of this source.
        source = Source.objects.select_for_update().get(pk=endpoint.source_id)
        if (endpoint.name, endpoint.model) != (name, model) and source.completions.exists():
            raise Conflict(
                _("It has written completions, which must be of one model: add another endpoint for another model.")
            )
        if endpoint.name != name:
            if Source.objects.filter(project=endpoint.project, name=PREFIX + endpoint.name).exists():
                raise Conflict(_('There is already an endpoint "%(name)s".') % {"name": endpoint.name})
            source.name = PREFIX + endpoint.name
            source.save(update_fields=["name"])
        endpoint.save()
        changes = _audited(endpoint) | {"key": "replaced" if "key" in values else "kept"}
        audit.record("endpoint.change", endpoint.project, endpoint, before=earlier | {"key": "kept"}, after=changes)
    return endpoint


def remove(endpoint: Endpoint) -> None:
    """Remove an endpoint with its key. Its completions and their source stay. Raise Conflict while a round uses it."""
    key = PREFIX + endpoint.name
    with transaction.atomic():
        Project.objects.select_for_update(no_key=True).get(pk=endpoint.project_id)
        for round_ in endpoint.project.rounds.filter(status__in=Round.ACTIVE):
            if key in round_.settings["round"].get("sources", {}):
                sentence = _("Round %(number)s uses this endpoint: wait until it ends.")
                raise Conflict(sentence % {"number": round_.number})
        source = endpoint.source
        audit.record("endpoint.remove", endpoint.project, endpoint, before=_audited(endpoint))
        endpoint.delete()
        if not source.completions.exists():
            try:
                with transaction.atomic():
                    source.delete()
            except IntegrityError:  # a trial or a rating names it
                pass


def client_of(endpoint: Endpoint, *, timeout: float | None = None, retries: int | None = None) -> Client:
    """Return a client of the endpoint. Raise Invalid if its key cannot be read any more."""
    return Client(
        endpoint.url,
        key_of(endpoint),
        endpoint.model,
        timeout if timeout is not None else float(endpoint.timeout_seconds),
        endpoint.retries if retries is None else retries,
    )


def key_of(endpoint: Endpoint) -> str:
    """Return the key of an endpoint; "" if it has none. Raise Invalid if it cannot be read any more."""
    if not endpoint.encrypted_key:
        return ""
    key = encryption.decrypt(endpoint.encrypted_key, PURPOSE)
    if key is None:
        raise Invalid(
            _('The key of the endpoint "%(name)s" was stored with another SECRET_KEY: write it again.')
            % {"name": endpoint.name}
        )
    return key


def models_at(url: str, key: str) -> list[str]:
    """Return the models that an endpoint lists. Raise Invalid."""
    client = Client(checked_url(url), checked_key(key), "", TEST_SECONDS, 0)
    try:
        with opened(client):
            return client.models()
    except EndpointFailed as failure:
        raise Invalid(failure.message) from failure


def models_for(project: Project, url: str, key: str, endpoint_id: str | None) -> list[str]:
    """Return the models at an address, with the key or, without one, that of a stored endpoint of the same address."""
    if not key and endpoint_id and endpoint_id.isdecimal() and len(endpoint_id) < 18:
        endpoint = endpoint_of(project, int(endpoint_id))
        if endpoint.url == checked_url(url):
            key = key_of(endpoint)
    return models_at(url, key)


def call_once(endpoint: Endpoint) -> Call:
    """Send one short request to the endpoint. Its tokens count like all others."""
    try:
        with opened(client_of(endpoint, timeout=min(TEST_SECONDS, endpoint.timeout_seconds), retries=0)) as client:
            written = client.complete(TEST_MESSAGES, {}, TEST_TOKENS)
    except EndpointFailed as failure:
        return Call(error=failure.message)
    except Invalid as refusal:
        return Call(error=refusal.message)
    with transaction.atomic():
        add_usage(endpoint, 1, written.prompt_tokens or 0, written.completion_tokens or 0)
        audit.record("endpoint.call", endpoint.project, endpoint)
    return Call(
        text=written.text,
        model=written.model,
        finish_reason=written.finish_reason,
        seconds=written.seconds,
        prompt_tokens=written.prompt_tokens,
        completion_tokens=written.completion_tokens,
        cost=cost_of(endpoint, written.prompt_tokens, written.completion_tokens),
    )


def add_usage(endpoint: Endpoint, requests: int, prompt_tokens: int, completion_tokens: int) -> None:
    """Count requests and tokens."""
    Endpoint.objects.filter(pk=endpoint.pk).update(
        requests=F("requests") + requests,
        prompt_tokens=F("prompt_tokens") + prompt_tokens,
        completion_tokens=F("completion_tokens") + completion_tokens,
    )


def cost_of(endpoint: Endpoint, prompt_tokens: int | None, completion_tokens: int | None) -> float | None:
    """Return the cost of so many tokens, in the currency of the prices; None if a price or a count is missing."""
    if endpoint.prompt_price is None or endpoint.completion_price is None:
        return None
    if prompt_tokens is None or completion_tokens is None:
        return None
    return float((endpoint.prompt_price * prompt_tokens + endpoint.completion_price * completion_tokens) / MILLION)


def cost_so_far(endpoint: Endpoint) -> float | None:
    """Return the cost of all tokens at the present prices; None without prices."""
    return cost_of(endpoint, endpoint.prompt_tokens, endpoint.completion_tokens)


def checked_key(key: str) -> str:
    """Return a key. Raise Invalid if it cannot be one; the message does not show it."""
    key = key.strip()
    if not (key.isascii() and key.isprintable()) or len(key) > 1000:
        raise Invalid(_("The key has characters that no key has: write it again."))
    return key


def _audited(endpoint: Endpoint) -> dict[str, Any]:
    """Return the values of an endpoint for the audit log, without its key."""
    texts = ("name", "url", "model", "concurrency", "timeout_seconds", "retries")
    prices = {name: _text(getattr(endpoint, name)) for name in ("prompt_price", "completion_price")}
    return audit.values_of(endpoint, texts) | prices


def _text(price: Any) -> str:
    return "" if price is None else f"{Decimal(price).normalize():f}"


def _fill(endpoint: Endpoint, values: Mapping[str, Any]) -> None:
    """Set the fields of an endpoint, and check them all. Raise Invalid."""
    for name, value in values.items():
        if name != "key":
            setattr(endpoint, name, value.strip() if isinstance(value, str) else value)
    if not NAME.fullmatch(endpoint.name):
        raise Invalid(_("The name must have 1 to 100 small letters, digits, dots, hyphens or underscores."))
    endpoint.url = checked_url(endpoint.url)
    if "key" in values:
        key = checked_key(values["key"])
        endpoint.encrypted_key = encryption.encrypt(key, PURPOSE) if key else ""
        endpoint.key_ends = key[-4:] if len(key) >= 20 else ""
    try:
        endpoint.clean_fields(exclude=["project", "source", "created_by"])
    except ValidationError as error:
        name, messages = next(iter(error.message_dict.items()))
        label = Endpoint._meta.get_field(name).verbose_name
        raise Invalid(_("%(field)s: %(problem)s") % {"field": label, "problem": messages[0]}) from error
    try:
        target_of(endpoint.url, has_key=bool(endpoint.encrypted_key))
    except OSError as error:
        raise Invalid(_("The host of the address is not found: check its name.")) from error
