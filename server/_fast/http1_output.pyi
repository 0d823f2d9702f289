"""The answering half of an HTTP/1.1 connection."""

from server._fast.frontend import Frontend, Peer

class Http1Output(Peer):
    """Base of Http1Connection."""

    def __init__(self, frontend: Frontend, *args: object) -> None: ...
    def pause_writing(self) -> None:
        """The transport holds bytes that the kernel does not take."""

    def resume_writing(self) -> None:
        """The kernel took them."""
