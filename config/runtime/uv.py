"""uv as the installer of locked packages, with the settings of pip. Standard library only.

uv needs a small part of the time of pip. It is used only for packages that are checked by hash, so that it
installs the same files as pip whatever index they come from. It reads none of pip's settings: the known ones are
translated here, and with any other one pip is used.
"""

import ast
import re
from pathlib import Path

from config.runtime.errors import SetupError

# Settings of pip by the variable of uv that has the same meaning, and the separator between several values.
TRANSLATED = {
    "index-url": ("UV_INDEX_URL", ""),
    "extra-index-url": ("UV_EXTRA_INDEX_URL", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "trusted-host": ("UV_INSECURE_HOST", " "),
    "constraint": ("UV_CONSTRAINT", " "),
    "timeout": ("UV_HTTP_TIMEOUT", ""),
    "default-timeout": ("UV_HTTP_TIMEOUT", ""),
    "cert": ("SSL_CERT_FILE", ""),
    "client-cert": ("SSL_CLIENT_CERT", ""),
    "proxy": ("ALL_PROXY", ""),
    "cache-dir": ("UV_CACHE_DIR", ""),
}
# Settings that do not change which files are installed, or where from.
IGNORED = {
    "disable-pip-version-check", "no-python-version-warning", "no-warn-script-location", "root-user-action",
    "require-virtualenv", "break-system-packages", "config-file", "no-input", "no-color", "progress-bar", "quiet",
    "verbose", "no-compile", "prefer-binary", "retries", "no-cache-dir",
}  # fmt: skip
SECTIONS = ("global", "install", ":env:")  # of pip's configuration, in ascending precedence


def environment(pip_config: str) -> dict[str, str] | None:
    """Return the variables for uv that correspond to the output of `pip config list`.

    None means that a setting has no known counterpart. Addresses go into the environment and not into arguments,
    because they may contain passwords and other users can read the arguments of a process.
    """
    settings = effective_settings(pip_config)
    # Without UV_NO_CONFIG uv would read pyproject.toml, which describes the CPU build of torch. pip takes the best
    # version of all indexes; uv would only look at the first index that has the package.
    variables = {"UV_NO_CONFIG": "1", "UV_NO_PROGRESS": "1", "UV_INDEX_STRATEGY": "unsafe-best-match"}
    for name, value in settings.items():
        if name in IGNORED:
            continue
        if name not in TRANSLATED:
            return None
        variable, separator = TRANSLATED[name]
        values = value.split()
        if len(values) > 1 and not separator:
            return None
        variables[variable] = separator.join(values)
    if settings.get("no-cache-dir", "") not in ("", "0", "false", "no", "off"):
        variables["UV_NO_CACHE"] = "1"
    return variables


def effective_settings(pip_config: str) -> dict[str, str]:
    """Return pip's settings for `pip install` by name; pip ignores empty values."""
    entries = re.findall(r"^([^.\n]+)\.([\w-]+)=(.*)$", pip_config, re.MULTILINE)
    settings: dict[str, str] = {}
    for section in SECTIONS:
        for place, name, literal in entries:
            if place == section and (value := str(ast.literal_eval(literal))):
                settings[name.replace("_", "-")] = value.lower() if name == "no-cache-dir" else value
    return settings


def locked_requirement(lock: Path) -> str:
    """Return uv's own entry of a lock file: the version with its hashes."""
    entry = re.search(r"^uv==(?:.*\\\n)*.*\n", lock.read_text(), re.MULTILINE)
    if entry is None:
        raise SetupError(f"{lock} does not list uv: run requirements/relock.py.")
    return entry[0]
