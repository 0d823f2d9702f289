"""The way out of a connection."""

from server._fast.frontend import Frontend, Peer

class PeerOutput(Peer):
    """Base of the connections of every protocol."""

    def __init__(self, frontend: Frontend, *args: object) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...
