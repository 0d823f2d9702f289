"""HTTP/2 streams."""

class H2Stream:
    """One request and its reply."""
