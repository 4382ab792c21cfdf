"""REST API of rounds and checkpoints."""
