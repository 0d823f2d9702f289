"""X-Request-Timeout, slowly: the twin of server/_fast/request_timeout.pxd."""

from __future__ import annotations

import re
from decimal import Decimal

CENTURY_NS = 3_155_760_000_000_000_000
INVALID = -2
_UNITS_NS = {"": 10**9, "s": 10**9, "ms": 10**6, "us": 10**3}
_FORM = re.compile(rb"([0-9]{1,15}(?:\.[0-9]{1,15})?)(s|ms|us|)", re.ASCII)


def timeout_ns(text: bytes) -> int:
    """Nanoseconds, rounded down, at most a century; INVALID for what is no number with a unit."""
    match = _FORM.fullmatch(text)
    if match is None:
        return INVALID
    whole, _, fraction = match[1].decode().partition(".")
    # Nine digits behind the point are kept.
    number = Decimal(f"{whole}.{fraction[:9] or 0}")
    return min(int(number * _UNITS_NS[match[2].decode()]), CENTURY_NS)
