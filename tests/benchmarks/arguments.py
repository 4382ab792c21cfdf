"""Argument types of the benchmarks' command lines. Standard library only."""

import argparse


def at_least_one(text: str) -> int:
    """Parse a whole number of at least 1, as an argparse type."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)
