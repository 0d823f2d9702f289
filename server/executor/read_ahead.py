"""Brings the files of a model into the page cache in small steps, before ONNX Runtime reads or maps them.

By itself the kernel reads a cold file ahead in windows of megabytes, and lets nobody else on the core while it sets one
up: answers of other models are 10 ms late again and again (ADR 21). A file that is there already costs a few calls.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

STEP_BYTES = 256 * 1024
#: So much is under way at a time: storage that answers late is busy all the time.
WINDOW_BYTES = 8 * STEP_BYTES
#: What is beyond that may be gone from the page cache before it is used.
MAX_FILE_BYTES = 4 << 30


def read_ahead(paths: Iterable[Path]) -> None:
    """A file that cannot be read is left to those who need it."""
    for path in paths:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            _read_ahead(descriptor)
        except OSError:
            continue
        finally:
            os.close(descriptor)


def _read_ahead(descriptor: int) -> None:
    size = min(os.fstat(descriptor).st_size, MAX_FILE_BYTES)
    # Of what is waited for below the kernel shall bring no more than that.
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
    for start in range(0, size + WINDOW_BYTES, STEP_BYTES):
        if start < size:
            os.posix_fadvise(descriptor, start, STEP_BYTES, os.POSIX_FADV_WILLNEED)
        if start >= WINDOW_BYTES:
            os.pread(descriptor, 1, min(start - WINDOW_BYTES + STEP_BYTES, size) - 1)
