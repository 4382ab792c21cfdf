"""The peers' environments, under var/peers, each built by itself when it is first needed. Standard library only."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "var" / "peers"
TRANSFORMERS = ["torch==2.13.0", "transformers==5.23.0", "accelerate"]
REQUIREMENTS = {
    "trl-1.12": [*TRANSFORMERS, "trl==1.12.0"],  # the last with PPO; its transformers are also the peer in sampling
    "trl-1.16": [*TRANSFORMERS, "trl==1.16.0"],
}


def python_of(peer: str) -> Path:
    """The interpreter of a peer's environment, complete."""
    home = FOLDER / peer
    python, stamp, wanted = home / "bin" / "python", home / "installed", "\n".join(REQUIREMENTS[peer])
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"Building the environment of {peer} in {home.relative_to(ROOT)} (once)", flush=True)
        shutil.rmtree(home, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *REQUIREMENTS[peer]], check=True)
        stamp.write_text(wanted)
    return python
