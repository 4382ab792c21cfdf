"""What the benchmarks' command lines have in common. Standard library only."""

import argparse


def at_least_one(text: str) -> int:
    """An argument's type."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)
