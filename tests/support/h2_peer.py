"""An HTTP/2 client that sends any bytes and says how the server took them, for tables of frames and reactions.

A reaction is one of `connection_error`, `stream_error`, `answered` and `accepted`: each is called with the peer after
the bytes were sent, reads what it needs, and fails with the frames it saw. Header blocks that come are decoded with
python-hyper's hpack, so that a broken one fails the test.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from enum import IntEnum
from types import TracebackType

import hpack

from tests.support import http2_frames as h2

PROBE = b"are you?"


class Code(IntEnum):
    """Error codes of RFC 9113 section 7."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11


class H2Peer:
    """A connected socket and all frames that came in; `fields` has the decoded header fields by stream."""

    def __init__(self, host: str, port: int, settings: bytes | None = b"", timeout_s: float = 5) -> None:
        self.socket = socket.create_connection((host, port), timeout=timeout_s)
        self.frames: list[h2.Frame] = []
        self.fields: dict[int, list[tuple[bytes, bytes]]] = {}
        self._decoder = hpack.Decoder()
        self._rest = b""
        if settings is not None:
            self.send(h2.PREFACE + h2.frame(h2.SETTINGS, 0, 0, settings))

    def __enter__(self) -> H2Peer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, data: bytes) -> H2Peer:
        self.socket.sendall(data)
        return self

    def find(self, kind: int, stream: int | None = None, flags: int = 0) -> h2.Frame | None:
        for frame in self.frames:
            if frame.kind == kind and stream in (None, frame.stream) and frame.flags & flags == flags:
                return frame
        return None

    def read(self) -> bool:
        """Takes what is there, at least a byte: False at the end of the connection."""
        try:
            data = self.socket.recv(1 << 16)
        except ConnectionResetError:
            return False
        self._rest += data
        for frame in h2.split_frames(self._rest):
            self._rest = self._rest[9 + len(frame.payload) :]
            self.frames.append(frame)
            if frame.kind == h2.HEADERS:
                decoded = self._decoder.decode(frame.payload, raw=True)
                self.fields.setdefault(frame.stream, []).extend((bytes(name), bytes(value)) for name, value in decoded)
        return bool(data)

    def wait(self, kind: int, stream: int | None = None, flags: int = 0) -> h2.Frame:
        """The first frame of this kind, waited for."""
        while True:
            found = self.find(kind, stream, flags)
            if found is not None:
                return found
            assert self.read(), f"expected frame {kind} on stream {stream}, the connection ended after {self.frames}"

    def ping(self) -> None:
        """The connection lives: a PING comes back."""
        self.send(h2.frame(h2.PING, 0, 0, PROBE))
        while not any(f.kind == h2.PING and f.flags & h2.ACK and f.payload == PROBE for f in self.frames):
            assert self.read(), f"expected the PING's ACK, the connection ended after {self.frames}"

    def field(self, stream: int, name: bytes) -> bytes | None:
        """The last value of a header field or trailer of a stream's answer."""
        return dict(self.fields.get(stream, [])).get(name)

    def body(self, stream: int) -> bytes:
        return b"".join(frame.payload for frame in self.frames if frame.kind == h2.DATA and frame.stream == stream)

    def answer(self, stream: int) -> bytes:
        """Body of a stream's whole answer."""
        while not any(f.stream == stream and f.kind in (h2.DATA, h2.HEADERS) and f.flags & 1 for f in self.frames):
            assert self.read(), f"expected the end of stream {stream}, the connection ended after {self.frames}"
        return self.body(stream)

    def goaway(self) -> tuple[int, int, bytes]:
        """Last stream, code and text of the GOAWAY."""
        payload = self.wait(h2.GOAWAY).payload
        last, code = struct.unpack(">II", payload[:8])
        return last, code, payload[8:]

    def end(self) -> None:
        """The server closes the connection."""
        while self.read():
            pass


Reaction = Callable[[H2Peer], None]


def connection_error(*codes: Code) -> Reaction:
    """GOAWAY with one of the codes, and the end of the connection."""

    def check(peer: H2Peer) -> None:
        _, code, text = peer.goaway()
        assert Code(code) in codes, f"expected {codes}, got {Code(code)!r} {text!r}"
        peer.end()

    return check


def stream_error(stream: int, *codes: Code) -> Reaction:
    """RST_STREAM with one of the codes; the connection lives."""

    def check(peer: H2Peer) -> None:
        code = Code(int.from_bytes(peer.wait(h2.RST_STREAM, stream).payload, "big"))
        assert code in codes, f"expected {codes}, got {code!r}"
        peer.ping()

    return check


def answered(stream: int, status: bytes = b"200") -> Reaction:
    """A whole answer of this status; the connection lives."""

    def check(peer: H2Peer) -> None:
        peer.answer(stream)
        assert peer.field(stream, b":status") == status, peer.fields
        peer.ping()

    return check


def accepted(peer: H2Peer) -> None:
    """Nothing happens: the connection lives, and no GOAWAY nor reset was sent."""
    peer.ping()
    assert peer.find(h2.GOAWAY) is None, peer.frames
    assert peer.find(h2.RST_STREAM) is None, peer.frames
