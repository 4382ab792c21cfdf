"""Learning from rankings: data, losses, calibration, reports."""
