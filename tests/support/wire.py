"""A raw HTTP/1.1 client for tests: sends bytes as they are and reads answers strictly, one after the other."""

from __future__ import annotations

import contextlib
import json
import socket
from types import TracebackType

from tests.support.server import Answer

LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n"
LIVE_BODY = b'{"live":true}'


def post(path: str, body: bytes, *lines: bytes) -> bytes:
    """A POST with its Content-Length."""
    head = [b"POST " + path.encode() + b" HTTP/1.1", b"Host: a", *lines, b"Content-Length: %d" % len(body), b"", b""]
    return b"\r\n".join(head) + body


def chunked(body: bytes, size: int) -> bytes:
    """A body in chunks of at most `size` bytes."""
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def infer(model: str, name: str, datatype: str, shape: list[int], data: list[float], identity: str = "") -> bytes:
    """A JSON inference request with one input."""
    value: dict[str, object] = {"inputs": [{"name": name, "datatype": datatype, "shape": shape, "data": data}]}
    if identity:
        value["id"] = identity
    return post(f"/v2/models/{model}/infer", json.dumps(value).encode(), b"Content-Type: application/json")


class Wire:
    """One connection. `answer` reads one answer, `end` proves that nothing but the end follows."""

    def __init__(self, host: str, port: int, timeout_s: float = 10, receive_bytes: int = 0) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(timeout_s)
        if receive_bytes:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        try:
            self.socket.connect((host, port))
        except OSError:
            self.socket.close()
            raise
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._input = b""

    def __enter__(self) -> Wire:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, data: bytes) -> Wire:
        self.socket.sendall(data)
        return self

    def send_in_bytes(self, data: bytes) -> Wire:
        """Each byte in a call of its own. The server may have answered and closed before the last."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for at in range(len(data)):
                self.socket.sendall(data[at : at + 1])
        return self

    def half_close(self) -> Wire:
        self.socket.shutdown(socket.SHUT_WR)
        return self

    def _more(self) -> bool:
        data = self.socket.recv(1 << 16)
        self._input += data
        return bool(data)

    def head(self) -> tuple[int, dict[str, str]]:
        """Status and fields of the next answer; names in lower case."""
        while (end := self._input.find(b"\r\n\r\n")) < 0:
            assert self._more(), f"expected an answer, the connection ended after {self._input!r}"
        lines = self._input[:end].decode("latin-1").split("\r\n")
        self._input = self._input[end + 4 :]
        version, status, _ = lines[0].split(" ", 2)
        assert version == "HTTP/1.1", lines[0]
        fields: dict[str, str] = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            assert name.lower() not in fields, f"{name} twice: {lines}"
            fields[name.lower()] = value.strip()
        return int(status), fields

    def answer(self, to_head: bool = False) -> Answer:
        """The next answer, complete; an interim one has no body."""
        status, fields = self.head()
        if status < 200:
            return Answer(status, fields, b"")
        count = 0 if to_head else int(fields["content-length"])
        while len(self._input) < count:
            assert self._more(), f"expected {count} bytes of body, got {len(self._input)}"
        body, self._input = self._input[:count], self._input[count:]
        return Answer(status, fields, body)

    def end(self) -> None:
        """The server closes with FIN and sends nothing more."""
        while self._more():
            pass
        assert self._input == b"", f"expected nothing but the end, got {self._input!r}"

    def silent(self, for_s: float = 0.1) -> None:
        """The server says nothing for a while."""
        before = self.socket.gettimeout()
        self.socket.settimeout(for_s)
        try:
            with contextlib.suppress(TimeoutError):
                assert not self._more(), f"expected silence, got {self._input!r}"
                raise AssertionError("expected an open connection, it has ended")
        finally:
            self.socket.settimeout(before)
