"""h2load, nghttp2's load client: each request is answered 2xx, and all bodies together are as long as they should be.

It does not look into bodies. Each of its requests asks for the same, and gRPC calls count as successes by themselves.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from server.protocol import messages
from tests.conformance import zoo
from tests.support import commands, http2_frames
from tests.support.server import Server

pytestmark = pytest.mark.slow
REQUESTS = 400
_DATA = re.compile(rb"traffic: .* \((\d+)\) data")
_STATUS = re.compile(rb"status codes: (\d+) 2xx, 0 3xx, 0 4xx, 0 5xx")


class Load(NamedTuple):
    path: str
    fields: tuple[str, ...]
    body: bytes
    #: What every answer's body is.
    expected: bytes


def h2load(server: Server, folder: Path, load: Load, *flags: str) -> None:
    data = folder / "data"
    data.write_bytes(load.body)
    command: list[str | Path] = [commands.program("h2load"), "-n", str(REQUESTS), "-c", "4", "-m", "16", *flags]
    command += [part for field in load.fields for part in ("-H", field)]
    command += ["-d", data] if load.body else []
    printed = commands.run([*command, server.url + load.path])
    assert b"%d succeeded, 0 failed, 0 errored, 0 timeout" % REQUESTS in printed, printed.decode()
    (good,) = _STATUS.findall(printed)
    (received,) = _DATA.findall(printed)
    assert (int(good), int(received)) == (REQUESTS, REQUESTS * len(load.expected)), printed.decode()


def rest(server: Server, path: str, body: bytes, *fields: str) -> Load:
    """What the server answers to a request of its own, over HTTP/1.1."""
    headers = dict(field.split(": ") for field in fields)
    answer = server.request("POST" if body else "GET", path, body or None, headers)
    assert answer.status == 200, answer.body
    return Load(path, fields, body, answer.body)


def binary(server: Server, rows: int) -> Load:
    array = np.arange(rows * zoo.WIDE_WIDTH, dtype=np.float32)
    tensor = {"name": "x", "shape": [rows, zoo.WIDE_WIDTH], "datatype": "FP32"}
    tensor["parameters"] = {"binary_data_size": array.nbytes}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    length = f"Inference-Header-Content-Length: {len(head)}"
    load = rest(server, "/v2/models/wide/infer", head + array.tobytes(), length)
    assert load.expected.endswith(array.tobytes())
    return load


@pytest.mark.parametrize("flag", ["--h1", "--no-tls-proto=h2c"], ids=["http1", "http2"])
@pytest.mark.parametrize("name", ["metadata", "json", "predict", "binary", "large"])
def test_rest(field_server: Server, tmp_path: Path, name: str, flag: str) -> None:
    row = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}
    coded = "Content-Type: application/json"
    load = {
        "metadata": lambda: rest(field_server, "/v2/models/types", b""),
        "json": lambda: rest(field_server, "/v2/models/mnist/infer", json.dumps({"inputs": [row]}).encode(), coded),
        "predict": lambda: rest(field_server, "/v1/models/mnist:predict", b'{"instances": [[1, 2, 3]]}', coded),
        "binary": lambda: binary(field_server, 1),
        "large": lambda: binary(field_server, 5),
    }[name]()
    h2load(field_server, tmp_path, load, flag)


@pytest.mark.parametrize("rows", [1, 5])
def test_grpc(field_server: Server, tmp_path: Path, rows: int) -> None:
    array = np.arange(rows * zoo.WIDE_WIDTH, dtype=np.float32)
    request = messages.message_class("inference.ModelInferRequest")(
        model_name="wide", raw_input_contents=[array.tobytes()]
    )
    request.inputs.add(name="x", datatype="FP32", shape=[rows, zoo.WIDE_WIDTH])
    reply = messages.message_class("inference.ModelInferResponse")(
        model_name="wide", model_version="1", raw_output_contents=[array.tobytes()]
    )
    reply.outputs.add(name="y", datatype="FP32", shape=[rows, zoo.WIDE_WIDTH])
    call = ("Content-Type: application/grpc", "TE: trailers")
    before = successes(field_server)
    body, expected = (http2_frames.message(one.SerializeToString()) for one in (request, reply))
    h2load(field_server, tmp_path, Load("/inference.GRPCInferenceService/ModelInfer", call, body, expected))
    assert successes(field_server) - before == REQUESTS


def successes(server: Server) -> int:
    (stats,) = server.get("/v2/models/wide/stats").json()["model_stats"]
    return int(stats["inference_stats"]["success"]["count"])
