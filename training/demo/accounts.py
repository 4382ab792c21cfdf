"""Accounts of the demo. Passwords are generated once and stored beside the data, to be printed at each start."""

import json
import secrets
from dataclasses import dataclass
from pathlib import Path

from django.db import transaction

from feedback.models import Membership, User

PEOPLE: dict[str, str] = {
    "anna": "annotator",
    "ben": "annotator",
    "rita": "reviewer",
    "max": "manager",
}


@dataclass(frozen=True)
class Account:
    username: str
    password: str
    role: str


def prepare_accounts(file: Path) -> list[Account]:
    """Return all accounts, creating missing ones. The manager is a superuser too.

    Existing accounts keep their passwords. A password that is not in the file, or was changed, is not returned.
    """
    passwords: dict[str, str] = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    known = {user.username: user for user in User.objects.filter(username__in=PEOPLE)}
    missing = [name for name in PEOPLE if name not in known]
    passwords = {name: passwords[name] for name, user in known.items() if user.check_password(passwords.get(name))}
    passwords |= {name: secrets.token_urlsafe(9) for name in missing}
    if missing:
        _store(file, passwords)
        _create({name: passwords[name] for name in missing})
    return [Account(name, passwords.get(name, "(the one you chose)"), role) for name, role in PEOPLE.items()]


@transaction.atomic
def _create(passwords: dict[str, str]) -> None:
    for name, password in passwords.items():
        is_manager = PEOPLE[name] == Membership.Role.MANAGER
        User.objects.create_user(name, password=password, is_staff=is_manager, is_superuser=is_manager)


def _store(file: Path, passwords: dict[str, str]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_suffix(".new")
    draft.touch(mode=0o600)
    draft.write_text(json.dumps(passwords, indent=2), "utf-8")
    draft.replace(file)
