"""Every address that writes, and a watch over all requests of all tests: no write without an entry in the audit log."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connections
from django.http import HttpRequest
from django.urls import URLPattern, URLResolver, get_resolver

from feedback import audit

ROLES = ("member.add", "member.role", "member.remove")  # by a claim of single sign-on
# The acts that an address may record, by the name of its URL.
AUDITED: dict[str, set[str]] = {
    "account": {"token.create"},
    "profile": {"account.profile"},
    "account_reset_password_from_key": {"account.password"},
    "password": {"account.password"},
    "revoke-token": {"token.revoke"},
    "erase-account": {"person.erase", "review.undo"},
    "new-password": {"account.password"},
    "mfa_activate_totp": {"second_factor.add"},
    "mfa_deactivate_totp": {"second_factor.remove"},
    "mfa_add_webauthn": {"second_factor.add"},
    "mfa_remove_webauthn": {"second_factor.remove"},
    "mfa_generate_recovery_codes": {"second_factor.add", "second_factor.remove"},
    "socialaccount_connections": {"connection.remove"},
    "openid_connect_callback": {"connection.add", "account.create", "account.profile", *ROLES},
    "github_callback": {"connection.add", "account.create", "account.profile", *ROLES},
    "socialaccount_signup": {"account.create", "account.profile", *ROLES},
    "join": {"invitation.use"},
    "new-project": {"project.create"},
    "prompts": {"import.add"},
    "imports": {"import.upload"},
    "import-map": {"import.map"},
    "start-import": {"import.start"},
    "stop-import": {"import.stop"},
    "undo-import": {"import.undo"},
    "people": {"member.add"},
    "invite": {"invitation.create"},
    "revoke-invitation": {"invitation.withdraw"},
    "password-link": {"password.link"},
    "change-role": {"member.role"},
    "routing": {"routing.rules"},
    "remove-rule": {"routing.rules"},
    "change-work": {"member.work"},
    "pause-member": {"member.pause"},
    "resume-member": {"member.resume"},
    "remove-member": {"member.remove"},
    "set-active": {"account.activate", "account.deactivate"},
    "project-settings": {"project.settings"},
    "webhooks": {"webhook.create"},
    "webhook": {"webhook.change"},
    "webhook-rotate": {"webhook.rotate"},
    "webhook-switch": {"webhook.change"},
    "webhook-delete": {"webhook.delete"},
    "webhook-test": {"webhook.test"},
    "webhook-redeliver": {"webhook.redeliver"},
    "api-webhooks": {"webhook.create"},
    "api-webhook": {"webhook.change", "webhook.delete"},
    "api-webhook-rotate": {"webhook.rotate"},
    "api-webhook-test": {"webhook.test"},
    "api-webhook-redeliver": {"webhook.redeliver"},
    "review-undo": {"review.undo"},
    "discard-demonstration": {"review.demonstration"},
    "review-keep": {"review.keep"},
    "review-adjudicate": {"review.adjudication"},
    "review-return": {"review.return"},
    "review-discard": {"review.discard"},
    "review-discard-since": {"review.discard"},
    "review-surprising-keep": {"review.keep"},
    "endpoints": {"endpoint.add"},
    "endpoint": {"endpoint.change"},
    "endpoint-call": {"endpoint.call"},
    "endpoint-remove": {"endpoint.remove"},
    "guards": {"guard_texts.add"},
    "guard-texts-remove": {"guard_texts.remove"},
    "round-automatic": {"loop.settings"},
    "round-start": {"round.start"},
    "round-sample": {"round.start"},
    "round-cancel": {"round.cancel"},
    "round-resume": {"round.resume"},
    "trial-gate": {"loop.settings"},
    "trial-end": {"trial.end"},
    "trial-promote": {"trial.end", "checkpoint.promote"},
    "checkpoint-import": {"checkpoint.import"},
    "roll-back": {"checkpoint.roll_back"},
    "checkpoint-check": {"checkpoint.check"},
    "checkpoint-retire": {"checkpoint.retire"},
    "checkpoint-restore": {"checkpoint.restore"},
    "checkpoint-delete-files": {"checkpoint.delete_files"},
    "checkpoint-evaluate": {"round.start"},
    "checkpoint-try": {"round.start"},
    "checkpoint-promote": {"checkpoint.promote"},
    "api-projects": {"project.create"},
    "api-project": {"project.settings"},
    "api-members": {"member.add"},
    "api-member": {"member.role", "member.remove", "member.work", "member.pause", "member.resume"},
    "api-routing": {"routing.rules"},
    "api-invitations": {"invitation.create"},
    "api-invitation": {"invitation.withdraw"},
    "api-tokens": {"token.create"},
    "api-account-erase": {"person.erase", "review.undo"},
    "api-token": {"token.revoke"},
    "api-token-rotate": {"token.rotate"},
    "api-prompts": {"import.add"},
    "api-completions": {"import.add"},
    "api-comparisons": {"import.add"},
    "api-gold": {"import.add"},
    "api-imports": {"import.upload", "import.start"},
    "api-import": {"import.undo", "import.stop"},
    "api-data-prompt": {"prompt.change", "prompt.delete"},
    "api-data-completion": {"completion.delete"},
    "api-data-comparison": {"comparison.change", "comparison.delete"},
    "api-trials": {"trial.start"},
    "api-trial-end": {"trial.end"},
    "api-adjudicate": {"review.adjudication"},
    "api-return": {"review.return"},
    "api-discard": {"review.discard"},
    "api-keep": {"review.keep"},
    "api-discard-demonstration": {"review.demonstration"},
    "api-discard-since": {"review.discard"},
    "api-undo-decision": {"review.undo"},
    "api-loop": {"loop.settings"},
    "api-rounds": {"round.start"},
    "api-round-cancel": {"round.cancel"},
    "api-round-resume": {"round.resume"},
    "api-review-surprising-keep": {"review.keep"},
    "api-endpoints": {"endpoint.add"},
    "api-endpoint": {"endpoint.change", "endpoint.remove"},
    "api-endpoint-call": {"endpoint.call"},
    "api-guard-texts": {"guard_texts.add", "guard_texts.remove"},
    "api-checkpoints": {"checkpoint.import"},
    "api-roll-back": {"checkpoint.roll_back"},
    "api-check": {"checkpoint.check"},
    "api-promote": {"checkpoint.promote"},
    "api-retire": {"checkpoint.retire"},
    "api-restore": {"checkpoint.restore"},
    "api-checkpoint-files": {"checkpoint.delete_files"},
}
HISTORY = "an annotator's work: rankings, skips and demonstrations are a history of their own"
SESSION = "the session of the person"
# Addresses that take a POST and are not audited, with the reason.
EXEMPT = {
    "set-language": "a reader's choice, kept in a cookie",
    **dict.fromkeys(("sign-in", "account_login", "sign-out", "account_logout"), SESSION),
    **dict.fromkeys(("account_reauthenticate", "end-session", "end-all-sessions"), SESSION),
    **dict.fromkeys(("mfa_authenticate", "mfa_login_webauthn", "mfa_reauthenticate"), SESSION),
    "mfa_reauthenticate_webauthn": SESSION,
    **dict.fromkeys(("openid_connect_login", "github_login"), SESSION),
    "mfa_list_webauthn": "leads to another page",
    "mfa_download_recovery_codes": "gives a file",
    "account_reset_password": "mails a link to the person; what the link is used for is audited",
    **dict.fromkeys(
        ("rank-submit", "rank-skip", "rank-undo", "rank-demonstrate", "rank-renew", "rank-revise"), HISTORY
    ),
    **dict.fromkeys(("api-leases", "api-lease", "api-lease-renew", "api-lease-rank"), HISTORY),
    **dict.fromkeys(("api-lease-skip", "api-revise", "api-undo"), HISTORY),
    "round-new": "shows the plan of a round and starts none",
    "endpoint-models": "asks an endpoint for its models and stores nothing",
    "no_such_api": "answers 404",
    "api-problems": "shows the texts of errors",
}
WRITES = re.compile(r'\b(INSERT INTO|UPDATE|DELETE FROM)\s+"?([a-z_]+)"?(?:\s+SET\s+"?([a-z_]+)"?)?')
# Tables, or columns, that are no part of an act.
UNAUDITED = {
    *("django_session", "usersessions_usersession", "accord_cache", "accord_request_counts", "django_admin_log"),
    *("feedback_auditentry", "feedback_idempotentresponse", "feedback_webhookdelivery"),
}
NOTHING_NEW = 'DELETE FROM "feedback_import"'
UNAUDITED_COLUMNS = {
    ("feedback_user", "last_login"),
    ("feedback_apitoken", "last_used_at"),
    ("feedback_ranking", "sequence"),  # the place in the record, given by the next reader
}
SAFE = ("GET", "HEAD", "OPTIONS")


def addresses(patterns: list[Any] | None = None, names: tuple[str, ...] = ()) -> Iterator[tuple[str, URLPattern]]:
    """Yield the name and the pattern of every URL of the product but those of the admin site."""
    for pattern in get_resolver().url_patterns if patterns is None else patterns:
        if isinstance(pattern, URLResolver):
            if pattern.namespace != "admin":
                yield from addresses(pattern.url_patterns, names)
        else:
            yield pattern.name or pattern.callback.__name__, pattern


def written_tables(sql: str) -> set[str]:
    return {
        table
        for _verb, table, column in WRITES.findall(sql)
        if table not in UNAUDITED and (table, column) not in UNAUDITED_COLUMNS
    }


class Watch:
    """The writes and the acts of one request."""

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks  # transactions and savepoints around the request
        self.tables: set[str] = set()
        self.acts: set[str] = set()
        self.undone = False  # an import that added nothing was deleted again
        self.outside: set[str] = set()  # acts that were recorded outside of a transaction of the product
        self.kept: dict[str, tuple[set[str], set[str]]] = {}  # tables and acts at each savepoint, and at "" the commit
        self.keep("")

    def keep(self, savepoint: str) -> None:
        self.kept[savepoint] = {*self.tables}, {*self.acts}

    def take_back(self, savepoint: str) -> None:
        tables, acts = self.kept.get(savepoint, (self.tables, self.acts))
        self.tables, self.acts = {*tables}, {*acts}

    def __call__(self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any) -> Any:
        text = str(sql)
        verb, _space, savepoint = text.rpartition(" ")
        if verb == "SAVEPOINT":
            self.keep(savepoint)
        elif verb == "ROLLBACK TO SAVEPOINT":
            self.take_back(savepoint)
        self.tables |= written_tables(text)
        self.undone |= NOTHING_NEW in text
        if "INSERT INTO" in text and "feedback_auditentry" in text:
            act = next(value for value in params if value in audit.ACTS)
            self.acts.add(act)
            if len(context["connection"].atomic_blocks) == self.blocks:
                self.outside.add(act)
        if not context["connection"].in_atomic_block:
            self.keep("")
        return execute(sql, params, many, context)


@contextmanager
def watched(request: HttpRequest) -> Iterator[Callable[[Any], None]]:
    """Watch the writes of a request; the given function checks them when its response is there."""
    connection = connections["default"]
    watch = Watch(len(connection.atomic_blocks))

    def check(response: Any) -> None:
        if request.method in SAFE or response.status_code >= 400 or request.resolver_match is None:
            return
        name = request.resolver_match.url_name or request.resolver_match.func.__name__
        assert not watch.outside, f"{request.path} records {watch.outside} outside of the transaction of the act"
        if name in EXEMPT or (watch.undone and not watch.acts):
            return
        assert not watch.tables or watch.acts, f"{request.path} wrote {watch.tables} without an entry in the audit log"
        if request.resolver_match.namespace != "admin":
            assert watch.acts <= AUDITED[name], f"{name} records {watch.acts}: name them in AUDITED"

    def followed(end: Callable[[], None], also: Callable[[str], None]) -> Callable[[], None]:
        def end_and_follow() -> None:
            end()
            also("")

        return end_and_follow

    with connection.execute_wrapper(watch), pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection, "commit", followed(connection.commit, watch.keep))
        patch.setattr(connection, "rollback", followed(connection.rollback, watch.take_back))
        yield check


@contextmanager
def all_requests_watched() -> Iterator[None]:
    """Check all requests of the block."""
    call = audit.AuditMiddleware.__call__

    def checked(middleware: audit.AuditMiddleware, request: HttpRequest) -> Any:
        with watched(request) as check:
            response = call(middleware, request)
        check(response)
        return response

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audit.AuditMiddleware, "__call__", checked)
        yield
