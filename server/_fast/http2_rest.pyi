"""REST over HTTP/2; the base of Http2Connection, tested through a server."""

from server._fast.h2_session import H2Session

class Http2Rest(H2Session):
    """A connection's REST streams."""

    def upgrade(self, settings: bytes, headers: list[tuple[bytes, bytes]], is_head: bool) -> bool:
        """Begins as RFC 7540 section 3.2 says: the request that came over HTTP/1.1 is stream 1.

        settings: the payload of a SETTINGS frame. headers: with the pseudo-headers, names in lower case. False: the
        settings are malformed, this object is of no use. Called before connection_made().
        """

    def answer_upgraded(self) -> None:
        """Answers stream 1; called once, behind connection_made()."""
