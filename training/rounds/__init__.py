"""Rounds: settings, state machine, results."""
