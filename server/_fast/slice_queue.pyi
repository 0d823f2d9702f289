"""Long work on the event loop, in slices."""

import asyncio
from collections.abc import Callable

class SliceQueue:
    """Runs one slice of whoever waits longest, once in each turn of the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None: ...
    def __len__(self) -> int: ...
    def put(self, work: Callable[[], bool]) -> None:
        """Calls work() again and again, with turns of the loop between, until it returns False."""

    def run(self) -> None:
        """One slice."""
