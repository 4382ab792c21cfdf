"""Audit log: the record of every administrative act, written in the transaction of the act itself.

Functions that write call `record`. The actor is the user of the current request, whom `AuditMiddleware` knows; a
program that acts by itself, such as a command or the gate, says so with `acting`. Rankings, skips and drafts of
annotators are a history of their own and are not recorded here.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from django.db import connection, models, transaction
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext_lazy as _

from feedback.models import ApiToken, AuditEntry, Project, User

Via: Any = AuditEntry.Via  # Any: mypy does not see that members of TextChoices with a label are strings
Values = Mapping[str, Any]

# Every act: its name in the API, and its words on the page.
ACTS = {
    "account.activate": _("activated an account"),
    "account.create": _("made an account"),
    "account.deactivate": _("deactivated an account"),
    "account.password": _("changed the password"),
    "account.profile": _("changed the account"),
    "admin.add": _("added in the admin site"),
    "admin.change": _("changed in the admin site"),
    "admin.delete": _("deleted in the admin site"),
    "checkpoint.check": _("had a checkpoint checked again"),
    "checkpoint.delete_files": _("deleted the files of a checkpoint"),
    "checkpoint.import": _("imported a checkpoint"),
    "checkpoint.promote": _("promoted a checkpoint"),
    "checkpoint.restore": _("brought a checkpoint back"),
    "checkpoint.retire": _("retired a checkpoint"),
    "checkpoint.roll_back": _("rolled back to a checkpoint"),
    "comparison.change": _("changed a comparison"),
    "comparison.delete": _("deleted a comparison"),
    "completion.delete": _("deleted a completion"),
    "connection.add": _("connected an account of another site"),
    "connection.remove": _("disconnected an account of another site"),
    "endpoint.add": _("added an endpoint"),
    "endpoint.call": _("sent a request to an endpoint"),
    "endpoint.change": _("changed an endpoint"),
    "endpoint.remove": _("removed an endpoint"),
    "guard_texts.add": _("added guard texts"),
    "guard_texts.remove": _("removed the guard texts"),
    "import.add": _("imported data"),
    "import.map": _("chose the map of an import"),
    "import.start": _("started an import"),
    "import.stop": _("stopped an import"),
    "import.undo": _("undid an import"),
    "import.upload": _("uploaded a file"),
    "invitation.create": _("made an invitation"),
    "invitation.use": _("joined by an invitation"),
    "invitation.withdraw": _("withdrew an invitation"),
    "loop.settings": _("changed the settings of the rounds"),
    "member.add": _("added a member"),
    "member.pause": _("paused a member"),
    "member.remove": _("removed a member"),
    "member.resume": _("let a member go on"),
    "member.role": _("changed a role"),
    "member.work": _("changed the groups or limits of a member"),
    "password.link": _("made a link for a new password"),
    "person.erase": _("erased a person"),
    "project.create": _("made a project"),
    "project.settings": _("changed the project's settings"),
    "prompt.change": _("changed a prompt"),
    "prompt.delete": _("deleted a prompt"),
    "review.adjudication": _("adjudicated a comparison"),
    "review.demonstration": _("discarded a demonstration"),
    "review.discard": _("discarded rankings"),
    "review.keep": _("kept the rankings of a comparison"),
    "review.return": _("returned a ranking"),
    "review.undo": _("undid a reviewer's decision"),
    "round.cancel": _("cancelled a round"),
    "round.resume": _("resumed a round"),
    "round.start": _("started a round"),
    "routing.rules": _("changed the routing rules"),
    "second_factor.add": _("added a second factor"),
    "second_factor.remove": _("removed a second factor"),
    "token.create": _("made an API token"),
    "token.revoke": _("revoked an API token"),
    "token.rotate": _("rotated an API token"),
    "trial.end": _("ended a trial"),
    "trial.start": _("started a trial"),
    "webhook.change": _("changed a webhook"),
    "webhook.create": _("made a webhook"),
    "webhook.delete": _("deleted a webhook"),
    "webhook.disable": _("disabled a webhook that failed"),
    "webhook.redeliver": _("had an event delivered again"),
    "webhook.rotate": _("rotated the secret of a webhook"),
    "webhook.test": _("tested a webhook"),
}
PERSONAL = ("username", "email", "first_name", "last_name")  # values that an erasure takes out


class _Program(NamedTuple):
    name: str
    via: str


_source: ContextVar[HttpRequest | _Program | None] = ContextVar("audited_source", default=None)


@contextmanager
def acting(name: str, via: str = Via.WORKER) -> Iterator[None]:
    """Let what the block does be recorded as acts of a program, such as "gate"."""
    token = _source.set(_Program(name, str(via)))
    try:
        yield
    finally:
        _source.reset(token)


def begin_task(name: str) -> None:
    """Let what a worker does from now on be recorded as acts of this task."""
    _source.set(_Program(name, str(Via.WORKER)))


class AuditMiddleware:
    """Let what a request does be recorded as acts of its user."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        token = _source.set(request)
        try:
            return self.get_response(request)
        finally:
            _source.reset(token)


def record(
    act: str,
    project: Project | None = None,
    thing: models.Model | None = None,
    *,
    name: str = "",
    before: Values | None = None,
    after: Values | None = None,
    actor: User | None = None,
) -> AuditEntry:
    """Record an act in the current transaction, which must be that of the act.

    thing: the object, named `name` (default: its own text). before, after: its values; those that are equal in both are
    left out. actor: the person, where it is not the user of the request.
    """
    assert act in ACTS, act
    via, user, actor_name, token_name = _actor(actor)
    unequal = _unequal(before or {}, after or {})
    return AuditEntry.objects.create(
        act=act,
        via=via,
        actor=user,
        actor_name=actor_name[:200],
        token_name=token_name,
        project=project,
        project_slug=project.slug if project else "",
        object_type=thing._meta.model_name or "" if thing is not None else "",
        object_id=str(thing.pk) if thing is not None and thing.pk is not None else "",
        object_name=(name or (str(thing) if thing is not None else ""))[:300],
        before={key: value for key, value in (before or {}).items() if key in unequal},
        after={key: value for key, value in (after or {}).items() if key in unequal},
    )


def values_of(row: models.Model, names: Iterable[str]) -> dict[str, Any]:
    """Return values of the row's fields, as JSON can hold them; for a foreign key the id."""
    return {name: getattr(row, row._meta.get_field(name).attname) for name in names}


def stored_values_of(row: models.Model, names: Iterable[str]) -> dict[str, Any]:
    """Return the values of the row's fields that the database has now."""
    return values_of(type(row)._default_manager.only(*names).get(pk=row.pk), names)


@transaction.atomic
def erase_person(person: User, pseudonym: str) -> AuditEntry:
    """Replace a person's name in the log by a pseudonym, and record this erasure."""
    erasure = record("person.erase", None, person, name=pseudonym)
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('accord.erasure', %s, true)", [str(erasure.pk)])
    AuditEntry.objects.filter(actor=person).update(actor_name=pseudonym, token_name="")
    about = AuditEntry.objects.filter(object_type="user", object_id=str(person.pk))
    for entry in about.exclude(pk=erasure.pk):
        entry.object_name = pseudonym
        entry.before = {name: value for name, value in entry.before.items() if name not in PERSONAL}
        entry.after = {name: value for name, value in entry.after.items() if name not in PERSONAL}
        entry.save(update_fields=["object_name", "before", "after"])
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('accord.erasure', '', true)")
    return erasure


def _unequal(before: Values, after: Values) -> set[str]:
    missing = object()
    return {key for key in {*before, *after} if before.get(key, missing) != after.get(key, missing)}


def _actor(named: User | None) -> tuple[str, User | None, str, str]:
    """Return how the act came, the person or None, the name of the actor, and that of the API token or ""."""
    source = _source.get()
    if isinstance(source, HttpRequest):
        token = getattr(source, "auth", None)  # REST framework sets it
        via = Via.API if source.path.startswith("/api/") else Via.PAGE
        user = named or (source.user if source.user.is_authenticated else None)
        token_name = token.name if isinstance(token, ApiToken) else ""
        return str(via), user, user.get_username() if user else "", token_name
    program = source or _Program("program", str(Via.SHELL))
    return program.via, named, named.get_username() if named else program.name, ""
