"""Hands a model's file to ONNX Runtime through a pipe.

ONNX Runtime reads four MiB with each call, and the kernel lets nobody else on the core while it copies out of a large
piece of its page cache. A pipe holds 64 KiB: a read gets no more, and waits in between (ADR 22). The pages themselves
go into the pipe, not copies of them.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: A pipe's size as the system makes it.
STEP_BYTES = 64 * 1024
_OPEN_FILES = Path("/proc/self/fd")


@contextmanager
def piped(path: Path) -> Iterator[Path]:
    """A path under which the block may read the file once, from its start to its end; `path` itself where that cannot
    be. Raises OSError if the file cannot be read, whatever the block made of what it got.
    """
    if not _OPEN_FILES.is_dir():
        yield path
        return
    source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    output, input_ = os.pipe2(os.O_CLOEXEC)
    failures: list[OSError] = []

    def feed() -> None:
        try:
            _copy(source, input_)
        except BrokenPipeError:
            # The block has seen enough.
            pass
        except OSError as error:
            failures.append(error)
        finally:
            os.close(input_)

    feeder = threading.Thread(target=feed, name="model-file", daemon=True)
    feeder.start()
    try:
        yield _OPEN_FILES / str(output)
    finally:
        os.close(output)
        feeder.join()
        os.close(source)
        if failures:
            raise failures[0]


def _copy(source: int, output: int) -> None:
    position = 0
    while count := _step(source, output, position):
        position += count


def _step(source: int, output: int, position: int) -> int:
    """The next bytes of the file go into the pipe; how many, 0 at its end."""
    try:
        return os.splice(source, output, STEP_BYTES, offset_src=position)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS):
            raise
    # A file system, or a sandbox, without splice().
    return os.write(output, os.pread(source, STEP_BYTES, position))
