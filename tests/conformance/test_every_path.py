"""Every datatype through every protocol: an identity model gives back each bit, or the protocol's own refusal comes."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

from server.protocol.datatypes import BY_NAME
from tests.conformance.onnx_reference import extremes, without_payloads
from tests.conformance.v2_client import BINARY_LENGTH, Array, from_json_values, json_values
from tests.reference import bytes_form
from tests.reference import infer_wire as v2
from tests.reference import tensor_proto as tfs
from tests.support import http2_frames as h2
from tests.support import onnx_writer
from tests.support.h2_peer import H2Peer
from tests.support.onnx_writer import ELEMENT_TYPES
from tests.support.server import Server, running

pytestmark = pytest.mark.slow
SHAPE = (5, 8)
COUNT = SHAPE[0] * SHAPE[1]
INFER = b"/inference.GRPCInferenceService/ModelInfer"
PREDICT = b"/tensorflow.serving.PredictionService/Predict"
#: Datatype -> field of InferTensorContents; the others have none.
CONTENTS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "INT64": "int64_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
TEXTS = ["", "a", "é", "日本語 \U0001f600", "x" * 15, 'quote " back \\ line \n', "a\0b\0", "]}[,"]
NO_TEXT = [b"\xff", b"\xc3", b"\0", b"\xed\xa0\x80", bytes(range(256)), b"\xff" * 100, b"", b"\x80" * 17]
STRINGS = [one.encode() for one in TEXTS] * 5
BINARY = (NO_TEXT * 5)[:COUNT]


class Outcome(NamedTuple):
    """The elements in the binary form of the V2 protocol, or the status and text of the refusal."""

    data: bytes
    status: int = 0
    text: str = ""


@pytest.fixture(scope="module")
def identities(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A model per datatype, of its name: `x` -> `y_bytes`, so that TensorFlow's JSON has base64 for strings."""
    models = {}
    for name in ELEMENT_TYPES:
        graph = onnx_writer.Graph("identity")
        graph.input("x", name, [-1, SHAPE[1]])
        graph.node("Identity", ["x"], ["y_bytes"])
        graph.output("y_bytes", name, [-1, SHAPE[1]])
        models[name] = graph.model()
    root = onnx_writer.write_repository(tmp_path_factory.mktemp("identities"), models)
    with running(root, "--workers", "1") as server:
        yield server


def rest(server: Server, path: str, document: Any, behind: bytes = b"") -> tuple[int, dict[str, str], bytes]:
    head = json.dumps(document).encode()
    headers = {BINARY_LENGTH: str(len(head))} if behind else {}
    answer = server.request("POST", path, head + behind, headers)
    return answer.status, answer.headers, answer.body


def v2_document(datatype: str, **more: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "x", "datatype": datatype, "shape": list(SHAPE), **more}]}


def rest_json(server: Server, datatype: str, data: bytes) -> Outcome:
    if datatype == "BYTES":
        values: list[Any] = [one.decode() for one in bytes_form.unpack(data) or []]
    else:
        values = json_values(datatype, array_of(datatype, data))
    status, _, body = rest(server, f"/v2/models/{datatype}/infer", v2_document(datatype, data=values))
    document = json.loads(body)
    if status != 200:
        return Outcome(b"", status, document["error"])
    (output,) = document["outputs"]
    assert (output["datatype"], output["shape"]) == (datatype, list(SHAPE))
    if datatype == "BYTES":
        return Outcome(bytes_form.pack([one.encode() for one in output["data"]]))
    return Outcome(from_json_values(datatype, output["data"], SHAPE).tobytes())


def rest_binary(server: Server, datatype: str, data: bytes) -> Outcome:
    document = v2_document(datatype, parameters={"binary_data_size": len(data)})
    document["outputs"] = [{"name": "y_bytes", "parameters": {"binary_data": True}}]
    status, headers, body = rest(server, f"/v2/models/{datatype}/infer", document, data)
    if status != 200:
        return Outcome(b"", status, json.loads(body)["error"])
    length = int(headers[BINARY_LENGTH.lower()])
    (output,) = json.loads(body[:length])["outputs"]
    assert (output["datatype"], output["shape"]) == (datatype, list(SHAPE))
    return Outcome(body[length:])


def call(server: Server, path: bytes, message: Any) -> tuple[int, str, bytes]:
    """One unary gRPC call: status, text, the reply."""
    with H2Peer(server.host, server.port) as peer:
        body = peer.send(h2.call(1, path, message.SerializeToString())).answer(1)
        return int(peer.field(1, b"grpc-status") or -1), (peer.field(1, b"grpc-message") or b"").decode(), body[5:]


def v2_call(server: Server, datatype: str, request: Any) -> Outcome:
    status, text, body = call(server, INFER, request)
    if status:
        return Outcome(b"", status, text)
    reply = v2.RESPONSE.FromString(body)
    assert (reply.outputs[0].datatype, list(reply.outputs[0].shape)) == (datatype, list(SHAPE))
    return Outcome(reply.raw_output_contents[0])


def grpc_raw(server: Server, datatype: str, data: bytes) -> Outcome:
    request = v2.REQUEST(model_name=datatype, raw_input_contents=[data])
    request.inputs.add(name="x", datatype=datatype, shape=SHAPE)
    return v2_call(server, datatype, request)


def varint(value: int) -> bytes:
    made = bytearray()
    while value > 127:
        made.append(value & 127 | 128)
        value >>= 7
    return bytes([*made, value])


def add_values(message: Any, field: str, datatype: str, data: bytes) -> None:
    """Elements of a repeated field; floats as their bytes, since Python's numbers do not keep the payloads of NaNs."""
    if datatype == "BYTES":
        getattr(message, field).extend(bytes_form.unpack(data) or [])
    elif datatype in ("FP32", "FP64"):
        number = message.DESCRIPTOR.fields_by_name[field].number
        message.MergeFromString(bytes([number << 3 | 2]) + varint(len(data)) + data)
    else:
        bits = "UINT16" if field == "half_val" else datatype
        getattr(message, field).extend(array_of(bits, data).ravel().tolist())


def grpc_typed(server: Server, datatype: str, data: bytes) -> Outcome:
    """FP16 and BF16 have no field: as the numbers that they are, which is what a client might try."""
    request = v2.REQUEST(model_name=datatype)
    tensor = request.inputs.add(name="x", datatype=datatype, shape=SHAPE)
    if datatype in CONTENTS:
        add_values(tensor.contents, CONTENTS[datatype], datatype, data)
    else:
        tensor.contents.fp32_contents.extend([1.0] * COUNT)
    return v2_call(server, datatype, request)


def tfs_rest(server: Server, datatype: str, data: bytes, *, column: bool = False) -> Outcome:
    if datatype == "BYTES":
        values: list[Any] = [{"b64": base64.b64encode(one).decode()} for one in bytes_form.unpack(data) or []]
    else:
        values = json_values(datatype, array_of(datatype, data))
    rows = [values[at : at + SHAPE[1]] for at in range(0, COUNT, SHAPE[1])]
    status, _, body = rest(server, f"/v1/models/{datatype}:predict", {"inputs" if column else "instances": rows})
    document = json.loads(body)
    if status != 200:
        return Outcome(b"", status, document["error"])
    found = [one for row in document["outputs" if column else "predictions"] for one in row]
    if datatype == "BYTES":
        return Outcome(bytes_form.pack([base64.b64decode(one["b64"]) for one in found]))
    return Outcome(from_json_values(datatype, found, SHAPE).tobytes())


def tfs_rest_column(server: Server, datatype: str, data: bytes) -> Outcome:
    return tfs_rest(server, datatype, data, column=True)


def tfs_grpc(server: Server, datatype: str, data: bytes, *, content: bool = True) -> Outcome:
    request = tfs.REQUEST()
    request.model_spec.name = datatype
    tensor = request.inputs["x"]
    tensor.dtype = tfs.NUMBERS[datatype]
    for size in SHAPE:
        tensor.tensor_shape.dim.add(size=size)
    field = tfs.TYPES[tensor.dtype][1]
    if content:
        tensor.tensor_content = data
    else:
        add_values(tensor, field, datatype, data)
    status, text, body = call(server, PREDICT, request)
    if status:
        return Outcome(b"", status, text)
    output = tfs.RESPONSE.FromString(body).outputs["y_bytes"]
    assert (output.dtype, [dim.size for dim in output.tensor_shape.dim]) == (tensor.dtype, list(SHAPE))
    return Outcome(output.tensor_content or packed_values(output, field, datatype))


def packed_values(tensor: Any, field: str, datatype: str) -> bytes:
    if datatype == "BYTES":
        return bytes_form.pack(list(getattr(tensor, field)))
    if datatype in ("FP32", "FP64"):
        # The bytes of the packed field: all that the message has besides datatype and shape.
        alone = type(tensor)()
        alone.CopyFrom(tensor)
        for other in ("dtype", "tensor_shape"):
            alone.ClearField(other)
        raw = alone.SerializeToString()
        return bytes(raw[len(raw) - COUNT * BY_NAME[datatype].size_bytes :])
    bits = np.dtype(np.uint16 if field == "half_val" else BY_NAME[datatype].numpy)
    return np.array(getattr(tensor, field), bits).tobytes()


def tfs_grpc_values(server: Server, datatype: str, data: bytes) -> Outcome:
    return tfs_grpc(server, datatype, data, content=False)


def array_of(datatype: str, data: bytes) -> Array:
    return np.frombuffer(data, BY_NAME[datatype].numpy).reshape(SHAPE)


PATHS: dict[str, Callable[[Server, str, bytes], Outcome]] = {
    "REST JSON": rest_json,
    "REST binary": rest_binary,
    "gRPC raw": grpc_raw,
    "gRPC typed": grpc_typed,
    "TFS REST rows": tfs_rest,
    "TFS REST columns": tfs_rest_column,
    "TFS gRPC content": tfs_grpc,
    "TFS gRPC values": tfs_grpc_values,
}
INVALID_ARGUMENT = 3
#: (path, datatype) -> (status, text) of what a protocol has no form for.
REFUSED = {
    **{
        ("gRPC typed", name): (
            INVALID_ARGUMENT,
            f"unexpected explicit tensor data for input tensor 'x' for model '{name}'",
        )
        for name in ("FP16", "BF16")
    },
    ("TFS gRPC content", "BYTES"): (INVALID_ARGUMENT, "the values are not in the field of DT_STRING"),
}


@pytest.mark.parametrize("datatype", ELEMENT_TYPES)
@pytest.mark.parametrize("path", PATHS)
def test_an_identity_gives_back_every_bit(identities: Server, path: str, datatype: str) -> None:
    if datatype == "BYTES":
        data = bytes_form.pack(STRINGS if path == "REST JSON" else BINARY)
    else:
        values = extremes(datatype, COUNT, seed=11)
        if path in ("REST JSON", "TFS REST rows", "TFS REST columns"):
            values = without_payloads(datatype, values)
        data = values.tobytes()
    outcome = PATHS[path](identities, datatype, data)
    if (path, datatype) in REFUSED:
        status, text = REFUSED[path, datatype]
        assert outcome.status == status and text in outcome.text, outcome
        assert outcome.data == b""
    else:
        assert outcome.status == 0, outcome
        assert outcome.data == data
