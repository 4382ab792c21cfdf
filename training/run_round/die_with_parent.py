"""Run a command that gets SIGTERM when its parent process dies, even by SIGKILL.

    python die_with_parent.py PARENT_PID COMMAND …

A worker that is killed cannot stop its program, so the kernel does it (Linux only; elsewhere the next worker that
claims the round ends the program). This is a program of its own because code between fork and exec is not safe in a
process with threads. Standard library only.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
NICENESS = 5  # requests of annotators on the same machine have priority


def main() -> None:
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit("error: the worker process died before its program started")
    os.nice(NICENESS)
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
