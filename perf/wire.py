"""The requests of the cells: what goes on the wire, for wrk and for the C clients alike."""

from __future__ import annotations

import json
import random
import socket
import struct
from dataclasses import dataclass, field
from pathlib import Path

INPUT_WIDTH = 64


@dataclass(frozen=True)
class Request:
    """One constant HTTP/1.1 request and the wrk script that sends it."""

    name: str
    script: str
    path: str
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    json_bytes: int = -1

    def raw(self, port: int) -> bytes:
        """The request as wrk sends it."""
        lines = [f"{'POST' if self.body else 'GET'} {self.path} HTTP/1.1", f"Host: 127.0.0.1:{port}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        if self.body:
            lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join([*lines, "", ""]).encode() + self.body

    def script_arguments(self, folder: Path) -> list[str]:
        """Arguments of the wrk script; the body goes through a file in `folder`."""
        if not self.body:
            return []
        file = folder / f"{self.name}.body"
        file.write_bytes(self.body)
        return [str(file)] if self.json_bytes < 0 else [str(file), str(self.json_bytes)]


@dataclass(frozen=True)
class Call:
    """One constant gRPC call: its message without the 5-byte prefix; the reply ends with `output_width` FP32 values."""

    name: str
    path: str
    message: bytes
    output_width: int


def input_row(width: int = INPUT_WIDTH, seed: int = 7) -> list[float]:
    """FP32 values in [0, 1), as the shortest text that reads back to the same FP32 (7 to 9 digits)."""
    rng = random.Random(seed)
    singles = struct.unpack(f"<{width}f", struct.pack(f"<{width}f", *(rng.random() for _ in range(width))))
    return [shortest_single(value) for value in singles]


def shortest_single(value: float) -> float:
    for digits in range(6, 10):
        text = f"{value:.{digits}g}"
        if struct.pack("<f", float(text)) == struct.pack("<f", value):
            return float(text)
    return value


def health() -> Request:
    return Request("health", "health.lua", "/v2/health/live")


def infer_json(model: str, row: list[float] | None = None) -> Request:
    row = row or input_row()
    tensor = {"name": "x", "shape": [1, len(row)], "datatype": "FP32", "data": row}
    body = json.dumps({"inputs": [tensor]}, separators=(",", ":")).encode()
    return Request(
        f"json_{model}", "infer_json.lua", f"/v2/models/{model}/infer", body, {"Content-Type": "application/json"}
    )


def infer_binary(model: str, row: list[float] | None = None) -> Request:
    row = row or input_row()
    raw = struct.pack(f"<{len(row)}f", *row)
    tensor = {
        "name": "x",
        "shape": [1, len(row)],
        "datatype": "FP32",
        "parameters": {"binary_data_size": len(raw)},
    }
    outputs = [{"name": "y", "parameters": {"binary_data": True}}]
    head = json.dumps({"inputs": [tensor], "outputs": outputs}, separators=(",", ":")).encode()
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    return Request(
        f"binary_{model}", "infer_binary.lua", f"/v2/models/{model}/infer", head + raw, headers, json_bytes=len(head)
    )


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def infer_grpc(model: str, row: list[float] | None = None, output_width: int = 10) -> Call:
    """ModelInferRequest (model_name = 1, inputs = 5, raw_input_contents = 7): name = 1, datatype = 2, shape = 3."""
    row = row or input_row()
    shape = _varint(1) + _varint(len(row))
    tensor = _field(1, b"x") + _field(2, b"FP32") + _field(3, shape)
    message = _field(1, model.encode()) + _field(5, tensor) + _field(7, struct.pack(f"<{len(row)}f", *row))
    return Call(f"grpc_{model}", "/inference.GRPCInferenceService/ModelInfer", message, output_width)


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes
    head_bytes: int


def exchange(port: int, request: bytes, timeout_s: float = 5.0) -> Reply:
    """One request on a fresh connection; raises OSError or ValueError when no whole answer comes."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as peer:
        peer.sendall(request)
        data = b""
        while b"\r\n\r\n" not in data:
            data += _receive(peer, data)
        head, _, body = data.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        while len(body) < int(headers.get("content-length", "0")):
            body += _receive(peer, body)
        return Reply(int(lines[0].split()[1]), headers, body, len(head) + 4)


def _receive(peer: socket.socket, so_far: bytes) -> bytes:
    piece = peer.recv(1 << 20)
    if not piece:
        raise ConnectionError(f"the server closed the connection after {len(so_far)} bytes of the answer")
    return piece


def get(port: int, path: str, timeout_s: float = 5.0) -> Reply:
    return exchange(port, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode(), timeout_s)


def output_of_message(message: bytes, width: int) -> list[float]:
    """The values of the only output of a ModelInferResponse: its last field is the raw contents."""
    return list(struct.unpack(f"<{width}f", message[-4 * width :]))


def output_row(reply: Reply) -> list[float]:
    """The values of the only output, from a JSON or a binary reply to one row."""
    json_bytes = reply.headers.get("inference-header-content-length")
    if json_bytes is None:
        values: list[float] = json.loads(reply.body)["outputs"][0]["data"]
        return values
    raw = reply.body[int(json_bytes) :]
    return list(struct.unpack(f"<{len(raw) // 4}f", raw))
