"""Tensors in clients' shared memory."""

from server._fast.client_region import ClientRegion

def read(region: ClientRegion, offset: int, byte_size: int, datatype: str, element_count: int) -> bytes:
    """The elements of an input as they would stand in a slab. Raises InferRefused."""
