"""A plain V2 client over http.client: says exactly what a test wants, also what no client library would send."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from server.protocol.datatypes import BY_NAME
from tests.support.server import Answer

Array = np.ndarray[Any, Any]
BINARY_LENGTH = "Inference-Header-Content-Length"


class Tensor(NamedTuple):
    """An input. BF16 is carried as its bits (uint16)."""

    name: str
    datatype: str
    array: Array
    binary: bool = True


class Reply(NamedTuple):
    """A decoded answer: the JSON document, and the outputs by name whatever way they came."""

    answer: Answer
    document: dict[str, Any]
    outputs: dict[str, Array]


def json_values(datatype: str, array: Array) -> list[Any]:
    """A tensor's elements, flat, as JSON numbers; NaN and infinities as Python's json writes them."""
    if datatype == "BF16":
        array = (array.astype(np.uint32) << 16).view(np.float32)
    return list(array.reshape(-1).tolist())


def from_json_values(datatype: str, values: Sequence[Any], shape: Sequence[int]) -> Array:
    """The reverse of json_values: rounds to nearest even, as reading a number does."""
    if datatype == "BF16":
        bits = np.array(values, np.float32).view(np.uint32).astype(np.uint64)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        is_nan = (bits & 0x7FFFFFFF) > 0x7F800000
        return np.where(is_nan, np.uint16(0x7FC0), rounded.astype(np.uint16)).reshape(shape)
    return np.array(values, np.dtype(BY_NAME[datatype].numpy)).reshape(shape)


def encode(
    tensors: Iterable[Tensor],
    *,
    outputs: Sequence[str | tuple[str, bool]] | None = None,
    parameters: Mapping[str, Any] | None = None,
    identifier: str | None = None,
) -> tuple[bytes, dict[str, str]]:
    """Body and header fields of an infer request; `outputs` names, or (name, binary_data)."""
    document: dict[str, Any] = {} if identifier is None else {"id": identifier}
    if parameters:
        document["parameters"] = dict(parameters)
    inputs, sections = [], []
    for tensor in tensors:
        one: dict[str, Any] = {"name": tensor.name, "shape": list(tensor.array.shape), "datatype": tensor.datatype}
        if tensor.binary:
            sections.append(tensor.array.tobytes())
            one["parameters"] = {"binary_data_size": len(sections[-1])}
        else:
            one["data"] = json_values(tensor.datatype, tensor.array)
        inputs.append(one)
    document["inputs"] = inputs
    if outputs is not None:
        document["outputs"] = [
            {"name": one} if isinstance(one, str) else {"name": one[0], "parameters": {"binary_data": one[1]}}
            for one in outputs
        ]
    head = json.dumps(document).encode()
    return head + b"".join(sections), {BINARY_LENGTH: str(len(head))} if sections else {}


def decode(answer: Answer) -> Reply:
    """Checks the framing of an answer's sections on the way."""
    length = answer.headers.get(BINARY_LENGTH.lower())
    head = answer.body if length is None else answer.body[: int(length)]
    rest = answer.body[len(head) :]
    document = json.loads(head)
    outputs = {}
    for one in document.get("outputs", ()):
        size = one.get("parameters", {}).get("binary_data_size")
        if size is None:
            outputs[one["name"]] = from_json_values(one["datatype"], one["data"], one["shape"])
        else:
            assert "data" not in one
            raw, rest = rest[:size], rest[size:]
            outputs[one["name"]] = np.frombuffer(raw, BY_NAME[one["datatype"]].numpy).reshape(one["shape"])
    assert not rest, f"{len(rest)} bytes behind the last output"
    if answer.status == 200:
        kind = "application/json" if length is None else "application/octet-stream"
        assert answer.headers["content-type"] == kind
    return Reply(answer, document, outputs)


class Client:
    """One keep-alive connection."""

    def __init__(self, host: str, port: int, timeout_s: float = 20) -> None:
        self._connection = http.client.HTTPConnection(host, port, timeout=timeout_s)

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        self._connection.request(method, path, body, dict(headers or {}))
        reply = self._connection.getresponse()
        fields = {name.lower(): value for name, value in reply.getheaders()}
        return Answer(reply.status, fields, reply.read())

    def get(self, path: str) -> Any:
        """The JSON document of a GET that must succeed."""
        answer = self.send("GET", path)
        assert answer.status == 200, answer
        return answer.json()

    def post(self, model: str, body: bytes, headers: Mapping[str, str] | None = None) -> Answer:
        """An infer request of whatever bytes."""
        return self.send("POST", f"/v2/models/{model}/infer", body, headers)

    def infer(self, model: str, tensors: Iterable[Tensor], **options: Any) -> Reply:
        """An infer request that must succeed; options as of encode()."""
        answer = self.post(model, *encode(tensors, **options))
        assert answer.status == 200, answer
        return decode(answer)
