"""Hands a model's file to ONNX Runtime through a pipe.

ONNX Runtime reads four MiB with each call, and the kernel lets nobody else on the core while it copies out of a large
piece of its page cache. A pipe holds 64 KiB: a read gets no more, and waits in between (ADR 22).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from server._fast.file_feed import feed

_OPEN_FILES = Path("/proc/self/fd")


@contextmanager
def piped(path: Path) -> Iterator[Path]:
    """A path under which the block may read the file once, from its start to its end; `path` itself where that cannot
    be. Raises OSError if the file cannot be read, whatever the block made of what it got.
    """
    if not _OPEN_FILES.is_dir():
        yield path
        return
    codes: list[int] = []
    with ExitStack() as stack:
        source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, source)
        begun = os.eventfd(0, os.EFD_CLOEXEC)
        stack.callback(os.close, begun)
        output, input_ = os.pipe2(os.O_CLOEXEC)
        feeder = threading.Thread(target=lambda: codes.append(feed(source, input_, begun)), daemon=True)
        try:
            feeder.start()
        except RuntimeError:
            os.close(input_)
            os.close(output)
            raise
        stack.callback(feeder.join)
        # One that waits for more sees that nobody reads any more.
        stack.callback(os.close, output)
        os.eventfd_read(begun)
        yield _OPEN_FILES / str(output)
    if any(codes):
        raise OSError(codes[0], os.strerror(codes[0]), str(path))
