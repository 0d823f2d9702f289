"""Bodies that are received into the rows they are for; for C users only, tested through a server."""

class RowBody:
    """The rows that a connection's request is being received into."""
