"""Replies that are compressed; for C users only, tested through a server."""

class Packing:
    """A reply that is being compressed."""
