"""A lane's door in a worker."""

class LaneAdmission:
    """Base of LaneClient."""

    #: Of requests that ask for none, where the model has no default, in microseconds; 0: they wait as long as it takes.
    fallback_timeout_us: int

def request_timeout(text: bytes) -> int:
    """X-Request-Timeout in ns, -2 when it cannot be read."""
