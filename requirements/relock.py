#!/usr/bin/env python3
"""Write requirements/lock: every package of each group with its version and hashes, for all platforms.

    .venv/bin/python requirements/relock.py            # after a change in requirements/*.txt
    .venv/bin/python requirements/relock.py --upgrade  # also take the newest versions of indirect dependencies

All groups are resolved together first, so that a package has one version whichever groups are installed.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
GROUPS = ("web", "learner", "postgres", "node", "dev")
COMPILE = [
    *(sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11"),
    # One version of a package for all Pythons; see learner.txt for torch.
    *("--fork-strategy", "fewest", "--generate-hashes", "--no-emit-package", "torch", "--no-annotate"),
    *("--custom-compile-command", ".venv/bin/python requirements/relock.py"),
]


def compile_lock(sources: list[Path], lock: Path, *options: str) -> None:
    # From the repository's root, where pyproject.toml says what torch needs.
    command = [*COMPILE, *options, "--output-file", str(lock), *(str(source) for source in sources)]
    subprocess.run(command, cwd=FOLDER.parent, check=True, stdout=subprocess.DEVNULL)


def main(options: list[str]) -> None:
    sources = [FOLDER / f"{group}.txt" for group in GROUPS]
    locks = [FOLDER / "lock" / f"{group}.txt" for group in GROUPS]
    with tempfile.TemporaryDirectory() as folder:
        together = Path(folder, "together.txt")
        # uv keeps the versions that stand in its output file.
        together.write_text("".join(lock.read_text() for lock in locks if lock.exists()))
        compile_lock(sources, together, *options)
        for source, lock in zip(sources, locks, strict=True):
            compile_lock([source], lock, "--constraints", str(together), *options)


if __name__ == "__main__":
    main(sys.argv[1:])
