"""Environments of the peers in var/peers, each built when it is first needed. Standard library only."""

import re
import shutil
import sys
import venv
from pathlib import Path

from config.runtime.errors import SetupError
from config.runtime.packages import run_installer, say

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "var" / "peers"
TRANSFORMERS = ["torch==2.13.0", "transformers==5.23.0", "accelerate==1.15.0"]
OURSELVES = ""  # both sides of the benchmark are Accord
REQUIREMENTS = {
    "trl-1.12": [*TRANSFORMERS, "trl==1.12.0"],  # the last with PPO; its transformers are also the peer in sampling
    "trl-1.16": [*TRANSFORMERS, "trl==1.16.0"],
    "arena-rank-0.1": ["arena-rank==0.1.1", "statsmodels==0.15.0"],
    "label-studio-1.23": ["label-studio==1.23.2", "gunicorn==23.0.0"],
}


def python_of(peer: str) -> Path:
    """Return the interpreter of a peer's environment, built if necessary. Raises SetupError if that fails."""
    if peer == OURSELVES:
        return Path(sys.executable)
    home, wanted = FOLDER / peer, "\n".join(REQUIREMENTS[peer])
    python, stamp = home / "bin" / "python", home / "installed"
    if not stamp.exists() or stamp.read_text() != wanted:
        say(f"building the environment of {peer} in {home.relative_to(ROOT)} (a few minutes, once)")
        build(home, python, REQUIREMENTS[peer])
        stamp.write_text(wanted)
    return python


def build(home: Path, python: Path, requirements: list[str]) -> None:
    shutil.rmtree(home, ignore_errors=True)
    try:
        venv.create(home, with_pip=True, symlinks=True)
    except OSError as error:
        raise SetupError(f"could not make {home.relative_to(ROOT)} ({error.strerror}).") from error
    arguments = ["install", "--disable-pip-version-check", "--progress-bar", "off", *requirements]
    run_installer([str(python), "-m", "pip", *arguments], "pip", re.compile(r"Collecting (\S+)|(Installing) collected"))
