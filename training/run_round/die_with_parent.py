"""Runs a command that gets SIGTERM when the process that asked for it dies, however it dies.

    python leash.py PARENT_PID COMMAND …

A worker that is killed outright cannot stop the program it watches, so the kernel does (Linux only; elsewhere the
worker that claims the round next ends what it finds). A program of its own, since code between fork and exec is not
safe in a process with threads. Standard library only.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
NICENESS = 5  # on a machine that also serves pages, an annotator's key press goes first


def main() -> None:
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit("error: the worker died before its program started")
    os.nice(NICENESS)
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
