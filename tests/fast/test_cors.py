"""Cross-origin requests, on a front end in this process: nothing when off, the same on both HTTP versions when on."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence

import pytest
import uvloop

from server._fast.frontend import Frontend
from server._fast.http1_connection import Http1Connection
from server._fast.http2_connection import Http2Connection
from server._fast.layout import Control
from tests.support.http2_frames import DATA, END_STREAM, HEADERS, PREFACE, SETTINGS, frame, headers, split_frames

A, B = "https://a.example", "http://b.example:8080"


@pytest.fixture(scope="module", autouse=True)
def _libuv() -> None:
    """The first loop of a process makes a pipe that stays: it is nobody's leak."""
    uvloop.new_event_loop().close()


class Echo:
    """Handlers that know one path."""

    def handle(
        self, method: str, path: str, query: str, fields: Mapping[str, str], body: bytes, port: str
    ) -> tuple[int, bytes, str, tuple[tuple[str, str], ...]]:
        if method == "OPTIONS":
            return 405, b"{}", "application/json", (("Allow", "HEAD"),)
        return 200, b"{}", "application/json", ()


async def talk(data: bytes, origins: Sequence[str], is_complete: str) -> bytes:
    """What the server answers to these bytes, up to the end or to the last frame of stream 1."""
    loop = asyncio.get_running_loop()
    bell = os.eventfd(0, os.EFD_NONBLOCK)
    frontend = Frontend(
        loop,
        Control.create(1, 0),
        0,
        bell,
        max_body_bytes=1000,
        max_held_bytes=1000,
        head_timeout_ns=10**9,
        idle_timeout_ns=10**9,
        cors_origins=origins,
    )
    frontend.start(Echo(), lambda: None, Http2Connection)
    server = await loop.create_server(lambda: Http1Connection(frontend, "http"), "127.0.0.1", 0)
    try:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(data)
        if is_complete == "end":
            writer.write_eof()
            received = await reader.read()
        else:
            received = b""
            while not any(one.stream == 1 and one.flags & END_STREAM for one in split_frames(received)):
                received += await reader.read(65536)
        writer.close()
        await writer.wait_closed()
    finally:
        server.close()
        await server.wait_closed()
        while frontend.peers:
            await asyncio.sleep(0)
        os.close(bell)
    return received


def http1(method: str, origin: str | None, origins: Sequence[str]) -> dict[str, str]:
    line = f"Origin: {origin}\r\n" if origin is not None else ""
    data = f"{method} /v2 HTTP/1.1\r\nHost: a\r\n{line}\r\n".encode()
    status, *lines = uvloop.run(talk(data, origins, "end")).partition(b"\r\n\r\n")[0].decode().split("\r\n")
    fields = [(name.lower(), value) for name, _, value in (line.partition(": ") for line in lines)]
    assert len(dict(fields)) == len(fields)
    return {"status": status.split()[1], **dict(fields)}


def allowed(origin: str) -> dict[str, str]:
    vary = {} if origin == "*" else {"vary": "Origin"}
    return {
        "access-control-allow-origin": origin,
        "access-control-expose-headers": "Inference-Header-Content-Length",
        **vary,
    }


PLAIN = {"status": "200", "content-type": "application/json", "content-length": "2"}
NO_OPTIONS = {"status": "405", "content-type": "application/json", "content-length": "2", "allow": "HEAD"}


@pytest.mark.parametrize(
    ("origins", "origin", "named"),
    [
        ((), A, None),
        ((A,), None, None),
        ((A,), A, A),
        ((A, B), B, B),
        ((A,), B, None),
        ((A,), A + "x", None),
        ((A,), A[:-1], None),
        ((A,), "null", None),
        ((A,), "", None),
        ((A,), f"{A}\r\nOrigin: {A}", None),
        (("*",), B, "*"),
        (("*",), "null", "*"),
        (("*",), None, None),
    ],
)
def test_who_may(origins: Sequence[str], origin: str | None, named: str | None) -> None:
    fields = allowed(named) if named else {}
    assert http1("GET", origin, origins) == PLAIN | fields
    answer = http1("OPTIONS", origin, origins)
    if not named:
        assert answer == NO_OPTIONS
        return
    assert answer == {
        "status": "200",
        "content-length": "0",
        "access-control-allow-methods": "GET, HEAD, POST",
        "access-control-allow-headers": "*, Authorization",
        "access-control-max-age": "600",
        **fields,
    }


@pytest.mark.parametrize(("origins", "is_named"), [((), False), ((A,), True), ((B,), False), (("*",), True)])
@pytest.mark.parametrize("method", [b"GET", b"OPTIONS"])
def test_http_2(origins: Sequence[str], is_named: bool, method: bytes) -> None:
    fields = [(b":method", method), (b":scheme", b"http"), (b":path", b"/v2"), (b":authority", b"a")]
    data = PREFACE + frame(SETTINGS, 0, 0) + headers(1, [*fields, (b"origin", A.encode())], end=True)
    frames = [one for one in split_frames(uvloop.run(talk(data, origins, "stream"))) if one.stream == 1]
    block = b"".join(one.payload for one in frames if one.kind == HEADERS)
    body = b"".join(one.payload for one in frames if one.kind == DATA)
    # Field names are in HPACK's static table (20) or Huffman coded: the table's index says that the field is there.
    indexed = bytes([0x40 | 20]) in block or bytes([0x0F, 5]) in block
    assert indexed == is_named
    assert body == (b"" if is_named and method == b"OPTIONS" else b"{}")
