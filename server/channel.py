"""Messages between the supervisor and a worker: JSON documents, with descriptors beside them, over a socket pair.

One message is one packet: it comes whole or not at all. A long document travels in a memfd of its own, so its size has
no limit but memory; a short one without descriptors needs none. Sending never waits: what the other side does not take
yet is kept and sent by flush(). One thread per end. Both ends are ours and of the same build, so documents are not
checked.
"""

from __future__ import annotations

import json
import os
import socket
from collections import deque
from collections.abc import Sequence
from typing import Any

#: The kernel passes at most 253 descriptors with a message.
MAX_DESCRIPTORS = 250
#: Documents up to this size go in the packet itself.
INLINE_BYTES = 16384
_IN_MEMFD = b"memfd"

Document = dict[str, Any]


class ChannelClosed(Exception):
    """The other end has gone."""


class Channel:
    """One end. `fileno()` is readable when receive() has something to give."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._end = end
        self._waiting: deque[tuple[bytes, list[int]]] = deque()

    def fileno(self) -> int:
        return self._end.fileno()

    def send(self, document: Document, descriptors: Sequence[int] = ()) -> None:
        """Sends a message, or keeps it until flush(). The descriptors stay the caller's. Raises OSError when the
        process has no descriptor left.
        """
        if len(descriptors) > MAX_DESCRIPTORS:
            raise ValueError(f"{len(descriptors)} descriptors: at most {MAX_DESCRIPTORS} go with a message")
        text = json.dumps(document, separators=(",", ":")).encode()
        kept = []
        try:
            if len(text) > INLINE_BYTES:
                kept.append(os.memfd_create("headrace-message", os.MFD_CLOEXEC))
                with os.fdopen(kept[0], "wb", closefd=False) as file:
                    file.write(text)
                text = b""
            kept += [os.dup(fd) for fd in descriptors]
        except OSError:
            _close_all(kept)
            raise
        self._waiting.append((text, kept))
        self.flush()

    def flush(self) -> bool:
        """Sends what waits, as far as the other side takes it; whether nothing is left."""
        while self._waiting:
            text, descriptors = self._waiting[0]
            try:
                socket.send_fds(self._end, [text or _IN_MEMFD], descriptors)
            except BlockingIOError:
                return False
            except OSError:
                # The other end has gone: its death is told elsewhere, and nobody will read this.
                pass
            self._waiting.popleft()
            _close_all(descriptors)
        return True

    def receive(self) -> tuple[Document, list[int]] | None:
        """The next message and its descriptors, which are the caller's now; None when there is none yet.

        Raises ChannelClosed when the other end has gone, or when this process has no descriptors left for those that
        came: then what this end knows is no longer complete.
        """
        try:
            text, descriptors, flags, _ = socket.recv_fds(self._end, INLINE_BYTES, MAX_DESCRIPTORS + 1)
        except BlockingIOError:
            return None
        except ConnectionResetError:
            raise ChannelClosed from None
        if not text or flags & socket.MSG_CTRUNC:
            _close_all(descriptors)
            raise ChannelClosed
        for fd in descriptors:
            os.set_inheritable(fd, False)
        if text == _IN_MEMFD:
            with os.fdopen(descriptors.pop(0), "rb") as file:
                file.seek(0)
                text = file.read()
        return json.loads(text), descriptors

    def close(self) -> None:
        """Closes this end; messages that wait are dropped."""
        for _, descriptors in self._waiting:
            _close_all(descriptors)
        self._waiting.clear()
        self._end.close()


def pair() -> tuple[Channel, Channel]:
    """Both ends of a new channel."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    return Channel(ours), Channel(theirs)


def _close_all(descriptors: Sequence[int]) -> None:
    for fd in descriptors:
        os.close(fd)
