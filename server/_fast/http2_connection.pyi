"""HTTP/2 connections of a worker: gRPC and REST."""

from server._fast.frontend import Frontend
from server._fast.http2_rest import Http2Rest

class Http2Connection(Http2Rest):
    """`port` is "http", "grpc" or "metrics": which routes the handlers offer. max_age_ns and grace_ns 0: no limit."""

    def __init__(
        self,
        frontend: Frontend,
        port: str,
        max_age_ns: int = 0,
        grace_ns: int = 0,
        max_streams: int = 100,
        min_ping_ns: int = 10_000_000_000,
    ) -> None: ...
    def send_message(self, stream_id: int, message: bytes | None, status: int) -> None:
        """Appends a message to a gRPC reply; status >= 0 also ends it."""

    def fail_stream(self, stream_id: int, status: int, text: str) -> None:
        """Ends a gRPC call with a status other than OK."""

class StreamReplies:
    """What a handler of a streaming method answers through."""

    def __init__(self, connection: Http2Connection, stream_id: int) -> None: ...
    def send(self, message: bytes) -> None: ...
    def finish(self, status: int = 0, text: str = "") -> None: ...
