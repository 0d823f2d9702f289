"""Sends numbered requests over all protocols at once: `python -m tests.support.mixed_driver HOST PORT COUNT`.

Request n carries n in its tensor, and its answer must carry what the model makes of n: an answer of another request or
another protocol, is a mistake. Models: `sum` (add_sub), `vary` (INT64 [-1, -1] identity), `upper` (upper_case). Prints
a JSON object: answers by protocol, the first mistakes, seconds. A process of its own, because grpcio keeps threads.
"""

from __future__ import annotations

import http.client
import itertools
import json
import struct
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import grpc
import numpy as np

from server.protocol import messages
from tests.reference import bytes_form
from tests.support import http2_frames as h2
from tests.support.h2_peer import H2Peer

WIDTH = 16
#: Calls of one thread that are on their way at a time, where the protocol lets them.
WINDOW = 16
MODELS = ("sum", "vary", "upper")
V2 = "/inference.GRPCInferenceService/"


class Numbered:
    """Inputs and expected output of request n: model by turns, rows and columns vary."""

    def __init__(self, number: int) -> None:
        self.model = MODELS[number % 3]
        self.rows = 1 + number // 3 % 3
        self.expected: Any
        if self.model == "sum":
            first = np.full((self.rows, WIDTH), number, np.float32)
            second = np.arange(self.rows * WIDTH, dtype=np.float32).reshape(self.rows, WIDTH)
            self.inputs: dict[str, tuple[str, Any]] = {"INPUT0": ("FP32", first), "INPUT1": ("FP32", second)}
            self.output, self.expected = "OUTPUT0", first + second
        elif self.model == "vary":
            array = np.arange(self.rows * (1 + number % 7), dtype=np.int64).reshape(self.rows, -1) + 1000 * number
            self.inputs = {"x": ("INT64", array)}
            self.output, self.expected = "y", array
        else:
            texts = [f"number {number} é {row}" for row in range(self.rows)]
            self.inputs = {"text": ("BYTES", np.array(texts, object))}
            self.output = "upper"
            self.expected = np.array([f"NUMBER {number} é {row}" for row in range(self.rows)], object)

    def is_json(self, values: Any) -> bool:
        """Whether nested or flat values are the expected ones."""
        return bool(np.array_equal(np.array(values, self.expected.dtype).ravel(), self.expected.ravel()))

    def is_binary(self, data: bytes) -> bool:
        return data == binary(self.expected)

    def document(self, *, as_binary: bool = False) -> tuple[dict[str, Any], bytes]:
        inputs, behind = [], b""
        for name, (datatype, array) in self.inputs.items():
            one: dict[str, Any] = {"name": name, "datatype": datatype, "shape": list(array.shape)}
            data = binary(array)
            if as_binary:
                one["parameters"] = {"binary_data_size": len(data)}
                behind += data
            else:
                one["data"] = array.ravel().tolist()
            inputs.append(one)
        wanted = {"name": self.output, "parameters": {"binary_data": as_binary}}
        return {"inputs": inputs, "outputs": [wanted]}, behind

    def message(self) -> bytes:
        request = messages.message_class("inference.ModelInferRequest")(model_name=self.model)
        for name, (datatype, array) in self.inputs.items():
            request.inputs.add(name=name, datatype=datatype, shape=array.shape)
            request.raw_input_contents.append(binary(array))
        request.outputs.add(name=self.output)
        return bytes(request.SerializeToString())

    def is_response(self, response: Any) -> bool:
        return self.is_binary(response.raw_output_contents[0])

    def predict(self) -> bytes:
        request = messages.message_class("tensorflow.serving.PredictRequest")()
        request.model_spec.name = self.model
        for name, (datatype, array) in self.inputs.items():
            tensor = request.inputs[name]
            tensor.dtype = {"FP32": 1, "INT64": 9, "BYTES": 7}[datatype]
            for size in array.shape:
                tensor.tensor_shape.dim.add(size=size)
            if datatype == "BYTES":
                tensor.string_val.extend(one.encode() for one in array)
            else:
                tensor.tensor_content = array.tobytes()
        return bytes(request.SerializeToString())

    def is_prediction(self, data: bytes) -> bool:
        reply = messages.message_class("tensorflow.serving.PredictResponse").FromString(data)
        tensor = reply.outputs[self.output]
        values = {1: tensor.float_val, 9: tensor.int64_val, 7: [one.decode() for one in tensor.string_val]}
        return self.is_json(list(values[tensor.dtype]))

    def rows_document(self) -> dict[str, Any]:
        names = list(self.inputs)
        rows = zip(*(array.tolist() for _, array in self.inputs.values()), strict=True)
        return {"instances": [dict(zip(names, row, strict=True)) for row in rows]}

    def is_predictions(self, document: Any) -> bool:
        rows = document["predictions"]
        return self.is_json([row[self.output] if isinstance(row, dict) else row for row in rows])


def binary(array: Any) -> bytes:
    """The V2 protocol's binary form."""
    if array.dtype == object:
        return bytes_form.pack([one.encode() for one in array])
    return bytes(array.tobytes())


class Client(threading.Thread):
    """One protocol: takes numbers until there are no more. A subclass sends and checks WINDOW of them at a time."""

    def __init__(self, address: tuple[str, int], numbers: Iterator[int]) -> None:
        super().__init__()
        self.address = address
        self.numbers = numbers
        self.right = 0
        self.mistakes: list[str] = []

    def run(self) -> None:
        try:
            with self.connect() as connection:
                while taken := list(itertools.islice(self.numbers, WINDOW)):
                    requests = [Numbered(number) for number in taken]
                    for number, is_right in zip(taken, self.exchange(connection, requests), strict=True):
                        self.right += is_right
                        if not is_right:
                            self.mistakes.append(f"{type(self).__name__}: request {number}")
        except Exception as error:
            self.mistakes.append(f"{type(self).__name__}: {error!r}")

    def connect(self) -> Any:
        raise NotImplementedError

    def exchange(self, connection: Any, requests: Sequence[Numbered]) -> list[bool]:
        raise NotImplementedError


class _Closing(http.client.HTTPConnection):
    def __enter__(self) -> _Closing:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class RestJson(Client):
    """HTTP/1.1, one at a time on a connection that stays."""

    def connect(self) -> Any:
        return _Closing(*self.address, timeout=30)

    def exchange(self, connection: Any, requests: Sequence[Numbered]) -> list[bool]:
        return [self.one(connection, request) for request in requests]

    def post(self, connection: Any, path: str, body: bytes, headers: dict[str, str] | None = None) -> Any:
        connection.request("POST", path, body, headers or {})
        answer = connection.getresponse()
        data = answer.read()
        if answer.status != 200:
            raise ValueError(f"{path}: {answer.status} {data[:200]!r}")
        return answer.headers, data

    def one(self, connection: Any, request: Numbered) -> bool:
        body = json.dumps(request.document()[0]).encode()
        _, data = self.post(connection, f"/v2/models/{request.model}/infer", body)
        return request.is_json(json.loads(data)["outputs"][0]["data"])


class RestBinary(RestJson):
    def one(self, connection: Any, request: Numbered) -> bool:
        document, behind = request.document(as_binary=True)
        head = json.dumps(document).encode()
        name = "Inference-Header-Content-Length"
        headers, data = self.post(
            connection, f"/v2/models/{request.model}/infer", head + behind, {name: str(len(head))}
        )
        return request.is_binary(data[int(headers[name]) :])


class TfsRest(RestJson):
    """Rows to the version that is named."""

    path = "/v1/models/{}/versions/1:predict"

    def one(self, connection: Any, request: Numbered) -> bool:
        body = json.dumps(request.rows_document()).encode()
        _, data = self.post(connection, self.path.format(request.model), body)
        return request.is_predictions(json.loads(data))


class KserveV1(TfsRest):
    path = "/v1/models/{}:predict"


class Http2Rest(Client):
    """WINDOW streams at a time on one connection."""

    def connect(self) -> Any:
        self.stream = -1
        return H2Peer(*self.address, timeout_s=30)

    def exchange(self, connection: Any, requests: Sequence[Numbered]) -> list[bool]:
        streams = []
        for request in requests:
            self.stream += 2
            streams.append(self.stream)
            path = f"/v2/models/{request.model}/infer".encode()
            fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b":authority", b"a")]
            body = json.dumps(request.document()[0]).encode()
            connection.send(h2.headers(self.stream, fields) + h2.frame(h2.DATA, h2.END_STREAM, self.stream, body))
        found = [json.loads(connection.answer(stream)) for stream in streams]
        taken = sum(len(frame.payload) for frame in connection.frames if frame.kind == h2.DATA)
        connection.send(h2.frame(h2.WINDOW_UPDATE, 0, 0, struct.pack(">I", taken)))
        connection.frames.clear()
        return [
            request.is_json(document["outputs"][0]["data"]) for request, document in zip(requests, found, strict=True)
        ]


class GrpcUnary(Client):
    path = V2 + "ModelInfer"

    def connect(self) -> Any:
        options = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
        return grpc.insecure_channel("{}:{}".format(*self.address), options)

    def exchange(self, connection: Any, requests: Sequence[Numbered]) -> list[bool]:
        ask = connection.unary_unary(self.path)
        calls = [ask.future(self.encode(request), timeout=30) for request in requests]
        return [self.is_right(request, call.result()) for request, call in zip(requests, calls, strict=True)]

    def encode(self, request: Numbered) -> bytes:
        return request.message()

    def is_right(self, request: Numbered, data: bytes) -> bool:
        return request.is_response(messages.message_class("inference.ModelInferResponse").FromString(data))


class TfsGrpc(GrpcUnary):
    path = "/tensorflow.serving.PredictionService/Predict"

    def encode(self, request: Numbered) -> bytes:
        return request.predict()

    def is_right(self, request: Numbered, data: bytes) -> bool:
        return request.is_prediction(data)


class GrpcStream(GrpcUnary):
    """A stream for each WINDOW; its replies come in the order of the requests."""

    path = V2 + "ModelStreamInfer"

    def exchange(self, connection: Any, requests: Sequence[Numbered]) -> list[bool]:
        sent = [request.message() for request in requests]
        replies = connection.stream_stream(self.path)(iter(sent), timeout=30)
        return [self.is_right(request, data) for request, data in zip(requests, replies, strict=True)]

    def is_right(self, request: Numbered, data: bytes) -> bool:
        reply = messages.message_class("inference.ModelStreamInferResponse").FromString(data)
        return not reply.error_message and request.is_response(reply.infer_response)


PROTOCOLS: tuple[type[Client], ...] = (
    RestJson,
    RestBinary,
    TfsRest,
    KserveV1,
    Http2Rest,
    GrpcUnary,
    GrpcStream,
    TfsGrpc,
)


def main(host: str, port: int, count: int) -> None:
    share = count // len(PROTOCOLS)
    began_ns = time.monotonic_ns()
    threads = [kind((host, port), iter(range(at * share, (at + 1) * share))) for at, kind in enumerate(PROTOCOLS)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    result = {
        "right": {type(one).__name__: one.right for one in threads},
        "mistakes": [text for one in threads for text in one.mistakes][:20],
        "seconds": (time.monotonic_ns() - began_ns) / 1e9,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
