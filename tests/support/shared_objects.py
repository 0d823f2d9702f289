"""POSIX shared memory objects of a test, and requests that name them: what a client on the server's host does."""

from __future__ import annotations

import contextlib
import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hpack

from tests.reference import infer_wire as wire_twin
from tests.support import http2_frames as h2
from tests.support.server import Answer, Server

FOLDER = Path("/dev/shm")


class SharedObject:
    """An object of its own name; `key` is what a client registers."""

    def __init__(self, size: int) -> None:
        self.key = f"/headrace-test-{os.getpid()}-{uuid.uuid4().hex[:12]}"
        self.path = FOLDER / self.key[1:]
        self.path.write_bytes(bytes(size))

    def write(self, at: int, data: bytes) -> None:
        with self.path.open("r+b") as file:
            file.seek(at)
            file.write(data)

    def read(self, at: int, size: int) -> bytes:
        with self.path.open("rb") as file:
            file.seek(at)
            return file.read(size)

    def cut(self, size: int) -> None:
        os.truncate(self.path, size)


@contextlib.contextmanager
def shared_object(size: int) -> Iterator[SharedObject]:
    made = SharedObject(size)
    try:
        yield made
    finally:
        made.path.unlink(missing_ok=True)


def base(name: str) -> str:
    return f"/v2/systemsharedmemory/region/{name}"


def register(server: Server, name: str, key: object, byte_size: object, offset: object = 0) -> Answer:
    return server.post(f"{base(name)}/register", {"key": key, "offset": offset, "byte_size": byte_size})


def unregister(server: Server, name: str = "") -> Answer:
    return server.post(f"{base(name)}/unregister" if name else "/v2/systemsharedmemory/unregister", {})


def place(region: object, byte_size: object, offset: object = 0) -> dict[str, Any]:
    """Parameters of a tensor in JSON."""
    said = {"shared_memory_region": region, "shared_memory_byte_size": byte_size}
    return {**said, "shared_memory_offset": offset} if offset else said


def set_place(tensor: Any, region: str, byte_size: int, offset: int = 0) -> None:
    """The same in a protobuf message."""
    tensor.parameters["shared_memory_region"].string_param = region
    tensor.parameters["shared_memory_byte_size"].int64_param = byte_size
    if offset:
        tensor.parameters["shared_memory_offset"].int64_param = offset


def grpc(server: Server, method: str, message: Any) -> tuple[list[h2.Frame], bytes]:
    """One unary call: its frames, and the reply message, empty when the call failed."""
    received = b""
    with socket.create_connection((server.host, server.port), timeout=10) as connection:
        call = h2.call(1, b"/inference.GRPCInferenceService/" + method.encode(), message.SerializeToString())
        connection.sendall(h2.PREFACE + h2.frame(h2.SETTINGS, 0, 0) + call)
        while True:
            part = connection.recv(1 << 16)
            assert part, f"closed after {received!r}"
            received += part
            frames = [frame for frame in h2.split_frames(received) if frame.stream == 1]
            if any(frame.flags & h2.END_STREAM for frame in frames):
                break
    return frames, b"".join(frame.payload for frame in frames if frame.kind == h2.DATA)[5:]


def grpc_infer(server: Server, message: Any) -> Any:
    """The reply of a ModelInfer call that must succeed."""
    frames, reply = grpc(server, "ModelInfer", message)
    assert reply, frames
    return wire_twin.RESPONSE.FromString(reply)


def grpc_refusal(server: Server, method: str, message: Any) -> tuple[int, str]:
    """Status and text of a call that must fail."""
    frames, _ = grpc(server, method, message)
    fields = {bytes(name): bytes(value) for name, value in hpack.Decoder().decode(frames[-1].payload, raw=True)}
    return int(fields[b"grpc-status"]), fields.get(b"grpc-message", b"").decode()
