"""An HTTP/1.1 connection of a worker, driven by uvloop as an asyncio.BufferedProtocol."""

import asyncio

from server._fast.frontend import Frontend
from server._fast.http1_input import Http1Input

class Http1Connection(Http1Input, asyncio.BufferedProtocol):
    """`port` is "http" or "metrics": which routes the handlers offer."""

    def __init__(self, frontend: Frontend, port: str) -> None: ...
