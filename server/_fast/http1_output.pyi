"""The answering half of an HTTP/1.1 connection."""

from server._fast.frontend import Frontend
from server._fast.peer_output import PeerOutput

class Http1Output(PeerOutput):
    """Base of Http1Connection."""

    def __init__(self, frontend: Frontend, *args: object) -> None: ...
