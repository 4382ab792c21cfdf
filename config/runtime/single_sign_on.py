"""The file that describes single sign-on: providers, and which value of a claim gives which role."""

import re
import tomllib
from pathlib import Path
from typing import Any

from config.runtime.errors import SetupError

KINDS = ("openid", "github")
ROLES = ("annotator", "reviewer", "manager")
OF_PROVIDER = {
    *("id", "name", "kind", "server", "client_id", "client_secret", "client_secret_file", "scopes", "create_accounts"),
    *("claim", "administrators", "role"),
}
OF_ROLE = {"value", "project", "role"}


def read_single_sign_on(variable: str, path: str) -> list[dict[str, Any]]:
    """Return the providers of the TOML file, each checked and with all keys. Raises SetupError naming what is wrong."""
    if not path:
        return []
    try:
        content = tomllib.loads(Path(path).read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SetupError(f"the file in {variable} cannot be read: {error}") from error
    rows = content.get("provider", [])
    if not isinstance(rows, list) or not rows or set(content) != {"provider"}:
        raise SetupError(f"the file in {variable} must have tables [[provider]], and nothing else beside them.")
    providers = [_provider(variable, row) for row in rows]
    ids = [provider["id"] for provider in providers]
    if twice := next((one for one in ids if ids.count(one) > 1), None):
        raise SetupError(f'the file in {variable} has two providers with the id "{twice}".')
    if len([provider for provider in providers if provider["kind"] == "github"]) > 1:
        raise SetupError(f"the file in {variable} has two providers of the kind github.")
    return providers


def _provider(variable: str, row: dict[str, Any]) -> dict[str, Any]:
    where = f'{variable}, provider "{row.get("id", "")}":'
    _refuse_unknown(where, row, OF_PROVIDER)
    kind = row.get("kind", "openid")
    if kind not in KINDS:
        raise SetupError(f'{where} kind is "{kind}": write one of {", ".join(KINDS)}.')
    if not re.fullmatch(r"[a-z0-9-]+", str(row.get("id", ""))):
        raise SetupError(f"{where} id must consist of a-z, 0-9 and hyphens; it is a part of the callback's address.")
    if not row.get("client_id"):
        raise SetupError(f"{where} client_id is missing.")
    if kind == "openid" and not re.match(r"https://|http://(localhost|127\.0\.0\.1)[:/]", str(row.get("server", ""))):
        raise SetupError(f"{where} server must be the issuer's address, with https.")
    if (row.get("role") or row.get("administrators")) and not row.get("claim"):
        raise SetupError(f"{where} claim is missing: name the claim that gives roles.")
    return {
        "id": row["id"],
        "kind": kind,
        "name": row.get("name") or row["id"],
        "server": row.get("server", ""),
        "client_id": row["client_id"],
        "secret": _secret(where, row),
        "scopes": row.get("scopes"),
        "create_accounts": bool(row.get("create_accounts", False)),
        "claim": row.get("claim", ""),
        "administrators": [str(value) for value in row.get("administrators", [])],
        "roles": [_role(where, one) for one in row.get("role", [])],
    }


def _secret(where: str, row: dict[str, Any]) -> str:
    if path := row.get("client_secret_file"):
        try:
            return Path(path).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SetupError(f"{where} client_secret_file cannot be read: {error}") from error
    return str(row.get("client_secret", ""))


def _role(where: str, row: dict[str, Any]) -> dict[str, str]:
    _refuse_unknown(where, row, OF_ROLE)
    if set(row) != OF_ROLE or row["role"] not in ROLES:
        raise SetupError(f"{where} each role needs value, project (its address) and role: {', '.join(ROLES)}.")
    return {name: str(row[name]) for name in sorted(OF_ROLE)}


def _refuse_unknown(where: str, row: dict[str, Any], known: set[str]) -> None:
    if unknown := sorted(set(row) - known):
        raise SetupError(f'{where} unknown key "{unknown[0]}": the keys are {", ".join(sorted(known))}.')


def allauth_providers(providers: list[dict[str, Any]]) -> dict[str, Any]:
    """Return allauth's setting SOCIALACCOUNT_PROVIDERS."""
    apps: dict[str, list[dict[str, Any]]] = {"openid_connect": [], "github": []}
    for one in providers:
        settings = {"server_url": one["server"]} if one["kind"] == "openid" else {}
        if one["scopes"]:
            settings["scope"] = one["scopes"]
        app = {"name": one["name"], "client_id": one["client_id"], "secret": one["secret"], "settings": settings}
        apps["github" if one["kind"] == "github" else "openid_connect"].append(app | {"provider_id": one["id"]})
    return {kind: {"APPS": of_kind, "OAUTH_PKCE_ENABLED": True} for kind, of_kind in apps.items() if of_kind}
