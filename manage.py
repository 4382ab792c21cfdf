#!/usr/bin/env python3
"""Django's manage.py, which first installs what the command needs. Try `python3 manage.py demo`."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 (this line runs under any Python 3)
    sys.exit("error: Accord needs Python 3.11 or newer, and this is " + sys.version.split()[0] + ".")

from config.runtime.bootstrap import main

if __name__ == "__main__":
    sys.exit(main(sys.argv))
