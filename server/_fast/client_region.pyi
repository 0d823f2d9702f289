"""Shared memory that a client registered."""

class ClientRegion:
    """`byte_size` bytes at `offset` of the object behind a descriptor, which is this object's from now on; its name is
    UTF-8.
    """

    name: bytes
    byte_size: int
    def __init__(self, fd: int, name: bytes, offset: int, byte_size: int) -> None: ...
    def read(self, offset: int, n: int) -> bytes:
        """n bytes at an offset in the region. ValueError outside of it, OSError if the object has become too short."""
