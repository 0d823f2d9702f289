"""curl: JSON, binary tensors, gRPC; over HTTP/1.1, HTTP/2 from the first byte, the upgrade to it, and Unix sockets."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from tests.conformance import zoo
from tests.support import commands, http2_frames
from tests.support.server import Server

pytestmark = pytest.mark.slow
#: Flag of curl -> the version of the answer to a POST. An upgrade is taken by a request without a body only.
VERSIONS = {"--http1.0": "1.1", "--http1.1": "1.1", "--http2": "1.1", "--http2-prior-knowledge": "2"}
READY = "/inference.GRPCInferenceService/ServerReady"


class Said(NamedTuple):
    """One answer as curl shows it: what was asked for with -w, all head and trailer fields, the body."""

    code: int
    version: str
    connects: int
    fields: str
    body: bytes


def curl(server: Server, tmp_path: Path, path: str, *arguments: str | Path, socket: bool = False) -> Said:
    """One request; `path` may be several, separated by spaces: then the last one's answer is returned."""
    fields = tmp_path / "fields"
    command = [commands.program("curl"), "--silent", "--show-error", "--noproxy", "*", "--max-time", "30"]
    if socket:
        command += ["--unix-socket", str(unix_path(server))]
    command += ["--dump-header", str(fields), "--write-out", "\\n%{http_code} %{http_version} %{num_connects}\\n"]
    bodies = [tmp_path / f"body{at}" for at in range(len(path.split()))]
    for one, body in zip(path.split(), bodies, strict=True):
        command += ["--output", str(body), server.url + one]
    printed = commands.run([*command, *arguments]).decode().split("\n")
    code, version, _ = [line for line in printed if line][-1].split()
    connects = sum(int(line.split()[2]) for line in printed if line)
    return Said(int(code), version, connects, fields.read_text(), bodies[-1].read_bytes())


def unix_path(server: Server) -> Path:
    (found,) = [word for word in server.output().split() if word.startswith("unix:")]
    return Path(found.removeprefix("unix:"))


@pytest.mark.parametrize("socket", [False, True], ids=["tcp", "unix"])
@pytest.mark.parametrize("flag", VERSIONS)
def test_json(field_server: Server, tmp_path: Path, flag: str, socket: bool) -> None:
    row = [0.5, -0.0, 1e-7]
    body = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": row}]}
    said = curl(field_server, tmp_path, "/v2/models/mnist/infer", flag, "--json", json.dumps(body), socket=socket)
    assert (said.code, said.version) == (200, VERSIONS[flag])
    (output,) = json.loads(said.body)["outputs"]
    expected = field_server.post("/v1/models/mnist:predict", {"instances": [row]}).json()
    assert output["data"] == expected["predictions"][0]
    assert "content-type: application/json" in said.fields.lower()


@pytest.mark.parametrize("flag", VERSIONS)
@pytest.mark.parametrize("rows", [1, 40])
def test_binary(field_server: Server, tmp_path: Path, flag: str, rows: int) -> None:
    """40 rows are 1.3 MB."""
    array = np.arange(rows * zoo.WIDE_WIDTH, dtype=np.float32).reshape(rows, -1)
    inputs = {
        "name": "x",
        "shape": list(array.shape),
        "datatype": "FP32",
        "parameters": {"binary_data_size": array.nbytes},
    }
    head = json.dumps({"inputs": [inputs], "parameters": {"binary_data_output": True}}).encode()
    file = tmp_path / "request"
    file.write_bytes(head + array.tobytes())
    length = f"Inference-Header-Content-Length: {len(head)}"
    said = curl(field_server, tmp_path, "/v2/models/wide/infer", flag, "-H", length, "--data-binary", f"@{file}")
    assert said.code == 200, said.body
    (field,) = [line for line in said.fields.splitlines() if line.lower().startswith("inference-header-content-length")]
    assert said.body[int(field.split(": ")[1]) :] == array.tobytes()


def test_expect_is_answered_before_the_body_comes(field_server: Server, tmp_path: Path) -> None:
    body = b'{"instances": [[1, 2, 3]]}'.ljust(2 << 20)
    (tmp_path / "request").write_bytes(body)
    said = curl(field_server, tmp_path, "/v1/models/mnist:predict", "--data-binary", f"@{tmp_path / 'request'}")
    assert said.code == 200 and said.fields.startswith("HTTP/1.1 100")


@pytest.mark.parametrize("flag", ["--http1.1", "--http2-prior-knowledge"])
def test_upload_of_unknown_length(field_server: Server, tmp_path: Path, flag: str) -> None:
    """From standard input: chunks, or frames without a content-length."""
    source = tmp_path / "request"
    source.write_bytes(b'{"instances": [[1, 2, 3], [4, 5, 6]]}')
    upload = ["-X", "POST", "-T", source, "-H", "Transfer-Encoding: chunked"]
    said = curl(field_server, tmp_path, "/v1/models/mnist:predict", flag, *upload)
    assert said.code == 200 and len(json.loads(said.body)["predictions"]) == 2


@pytest.mark.parametrize("flag", ["--http1.1", "--http2-prior-knowledge"])
def test_codings(field_server: Server, tmp_path: Path, flag: str) -> None:
    """A request in gzip, and an answer that curl decodes."""
    (tmp_path / "request").write_bytes(gzip.compress(json.dumps({"instances": [[1, 2, 3]] * 500}).encode()))
    coding = ["-H", "Content-Encoding: gzip", "--compressed", "--data-binary", f"@{tmp_path / 'request'}"]
    said = curl(field_server, tmp_path, "/v1/models/mnist:predict", flag, *coding)
    assert said.code == 200 and "content-encoding: deflate" in said.fields.lower()  # the first in curl's list
    assert len(json.loads(said.body)["predictions"]) == 500


@pytest.mark.parametrize(("flag", "version"), [("--http1.1", "1.1"), ("--http2", "2")])
@pytest.mark.parametrize("parallel", [[], ["--parallel", "--parallel-max", "6"]], ids=["serial", "parallel"])
def test_several_on_one_connection(
    field_server: Server, tmp_path: Path, flag: str, version: str, parallel: list[str]
) -> None:
    """Not from the first byte: curl 7.88 then cannot use a connection twice, with nghttpd neither."""
    path = "/v2 /v2/models/mnist /v2/health/live /v2/models/types/config /v1/models /v2/models/wide"
    said = curl(field_server, tmp_path, path, flag, *parallel)
    assert (said.code, said.version) == (200, version) and json.loads(said.body)["name"] == "wide"
    if not parallel:
        assert said.connects == 1


@pytest.mark.parametrize("flag", ["--http1.1", "--http2-prior-knowledge"])
def test_head_and_errors(field_server: Server, tmp_path: Path, flag: str) -> None:
    said = curl(field_server, tmp_path, "/v2", flag, "--head")
    assert said.code == 200 and b'"name"' not in said.body
    said = curl(field_server, tmp_path, "/v2/models/none/infer", flag, "--json", "{}")
    assert said.code == 404 and "error" in json.loads(said.body)
    assert curl(field_server, tmp_path, "/nowhere", flag).code == 404


@pytest.mark.parametrize("socket", [False, True], ids=["tcp", "unix"])
def test_grpc(field_server: Server, tmp_path: Path, socket: bool) -> None:
    """A gRPC call written by hand; the status comes in trailers, which curl writes behind the head."""
    (tmp_path / "request").write_bytes(http2_frames.message(b""))
    call = ["--http2-prior-knowledge", "-H", "Content-Type: application/grpc", "-H", "TE: trailers"]
    call += ["--data-binary", f"@{tmp_path / 'request'}"]
    said = curl(field_server, tmp_path, READY, *call, socket=socket)
    assert (said.code, said.body) == (200, http2_frames.message(b"\x08\x01"))
    assert "grpc-status: 0" in said.fields
    said = curl(field_server, tmp_path, READY.replace("Ready", "Nothing"), *call, socket=socket)
    assert said.code == 200 and "grpc-status: 12" in said.fields and said.body == b""
