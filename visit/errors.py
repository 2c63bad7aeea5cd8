"""The one exception that is meant for users. It lives below everything, so that catching it imports nothing."""


class VisitError(Exception):
    """Something the user asked for cannot be done; the message says what must hold, what came, and what to do."""
