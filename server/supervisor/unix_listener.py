"""Unix-domain sockets: one listening socket that all workers accept on, and its path in the file system.

A path that an earlier server left behind is replaced, one that somebody listens on is not. The directory is locked from
the look at the path until this server listens, so two servers that start at once cannot both take it.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from server.errors import ConfigurationError

FLAG = "--uds"
#: Read and write for this user and this group.
MODE = 0o660


def open_unix_listeners(path: str, count: int, backlog: int) -> list[socket.socket]:
    """`count` descriptors of one socket that listens at `path`, which is removed when this process exits.

    Raises ConfigurationError; its text says what is in the way and what to do.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        with _locked(path):
            _clear(path)
            # By the mask and not by chmod: at no time may others connect.
            mask = os.umask(0o777 & ~MODE)
            try:
                listener.bind(path)
            finally:
                os.umask(mask)
            _remove_at_exit(path)
            listener.listen(backlog)
        # Each worker closes its own descriptor; connections go to whichever accepts first.
        return [listener.dup() for _ in range(count)]
    except OSError as error:
        raise ConfigurationError(_refused(error, path), key=FLAG) from None
    finally:
        listener.close()


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    folder = os.open(Path(path).parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _clear(path: str) -> None:
    """Removes a socket that nobody listens on; anything else at the path is an error."""
    try:
        kind = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise ConfigurationError(f"{path} exists and is not a socket; remove it or choose another path", key=FLAG)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        code = probe.connect_ex(path)
    if code == errno.ECONNREFUSED:
        os.unlink(path)
    elif code in (0, errno.EAGAIN, errno.EINPROGRESS):
        raise ConfigurationError(f"another server listens on {path}; stop it or choose another path", key=FLAG)
    elif code != errno.ENOENT:
        raise OSError(code, os.strerror(code))


def _remove_at_exit(path: str) -> None:
    """When this process exits (its children leave another way) and the path is still this socket's."""
    absolute = os.path.abspath(path)
    found = os.lstat(path)
    owner = os.getpid()

    def remove() -> None:
        with contextlib.suppress(OSError):
            now = os.lstat(absolute)
            if os.getpid() == owner and (now.st_dev, now.st_ino) == (found.st_dev, found.st_ino):
                os.unlink(absolute)

    atexit.register(remove)


def _refused(error: OSError, path: str) -> str:
    folder = Path(path).parent
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return f"{folder} is not a directory; create it or choose another path for the socket"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return (
            f"{path} may not be created by this user (uid {os.getuid()}); choose a directory where it may, "
            f"or chown {folder}"
        )
    return f"cannot listen on {path}: {error.strerror}"
