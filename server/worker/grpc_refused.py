"""How a handler of a gRPC method refuses a call."""


class GrpcRefused(Exception):
    """Ends the call with this status and this text for the client."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
