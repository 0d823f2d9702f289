"""What an HTTP/1.1 connection answers."""

from server._fast.http1_output import Http1Output

class Http1Answer(Http1Output):
    """Base of Http1Connection."""
