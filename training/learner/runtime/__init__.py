"""Job directory, settings, processes, optimizer: what every program needs."""
