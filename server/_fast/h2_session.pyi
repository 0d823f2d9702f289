"""The framing half of an HTTP/2 connection."""

import asyncio

from server._fast.frontend import Frontend
from server._fast.peer_output import PeerOutput

class H2Session(PeerOutput, asyncio.BufferedProtocol):
    """Base of Http2Connection. max_age_ns and grace_ns 0: no limit."""

    def __init__(
        self,
        frontend: Frontend,
        port: str,
        max_age_ns: int = 0,
        grace_ns: int = 0,
        max_streams: int = 100,
        min_ping_ns: int = 10_000_000_000,
    ) -> None: ...
    def receive(self, data: bytes) -> None:
        """What was received before this protocol took the transport."""
