"""Rounds: settings, start, schedule, state machine, results."""
