"""Fills a job directory, runs a program on it, and watches it: a round's worker side.

`turn.run` runs a whole round. No database transaction is open while a program runs.
"""
