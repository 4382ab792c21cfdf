"""The error of a start that cannot go on. Standard library only: it is needed before Django is installed."""


class SetupError(Exception):
    """Accord cannot start or go on; the message is one sentence for the operator, printed without a traceback."""
