"""KServe V2's model repository extension over HTTP/1.1, HTTP/2 and gRPC: states, errors, and who sees what when."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.demo import files
from tests.support.server import Server, running

MODEL = files.MODEL / "1" / "model.onnx"
IMAGE = {"inputs": [{"name": "image", "shape": [1, 64], "datatype": "FP32", "data": [0.0] * 64}]}


def put(repository: Path, name: str, version: int) -> Path:
    """A copy of the demo model; the file appears at once, as a careful deployment does it."""
    file = repository / name / str(version) / "model.onnx"
    file.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(MODEL, file.with_suffix(".part"))
    return file.with_suffix(".part").rename(file)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("repository")


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[Server]:
    put(repository, "first", 1)
    put(repository, "second", 1)
    with running(repository, "--workers", "2", "--model-control-mode", "explicit", "--load-model", "first") as server:
        yield server


def call(server: Server, path: str, body: object = None, *, http2: bool = False) -> tuple[int, str]:
    """A POST by curl: (status, body). A body of None is a GET."""
    command = ["curl", "-sS", "-w", "\n%{http_code}", f"http://{server.host}:{server.port}{path}"]
    command += ["--http2-prior-knowledge"] if http2 else []
    command += [] if body is None else ["-d", json.dumps(body) if body != "" else ""]
    text, _, status = subprocess.run(command, capture_output=True, text=True, check=True).stdout.rpartition("\n")
    return int(status), text


def index(server: Server) -> dict[tuple[str, str], tuple[str, str]]:
    status, text = call(server, "/v2/repository/index", {})
    assert status == 200
    return {(row["name"], row["version"]): (row["state"], row["reason"]) for row in json.loads(text)}


@pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])
def test_load_and_unload(server: Server, http2: bool) -> None:
    text = "Request for unknown model: 'second' is not found; it is not loaded: POST /v2/repository/models/second/load"
    unknown = {"error": text}
    assert index(server) == {("first", "1"): ("READY", ""), ("second", "1"): ("UNAVAILABLE", "unloaded")}
    status, text = call(server, "/v2/models/second/infer", IMAGE, http2=http2)
    assert (status, json.loads(text)) == (404, unknown)
    # Again and again, as the workers take turns: once load has answered, every worker serves the model.
    for _ in range(4):
        assert call(server, "/v2/repository/models/second/load", "", http2=http2) == (200, "")
        assert all(call(server, "/v2/models/second/infer", IMAGE, http2=http2)[0] == 200 for _ in range(6))
        assert index(server)["second", "1"] == ("READY", "")
        assert call(server, "/v2/repository/models/second/load", {"parameters": {}}, http2=http2) == (200, "")
        assert call(server, "/v2/repository/models/second/unload", "", http2=http2) == (200, "")
        for _ in range(6):
            status, text = call(server, "/v2/models/second/infer", IMAGE, http2=http2)
            assert (status, json.loads(text)) == (404, unknown)
    assert json.loads(call(server, "/v2/repository/index", {"ready": True})[1]) == [
        {"name": "first", "version": "1", "state": "READY", "reason": ""}
    ]


def test_errors_say_what_is_wrong(server: Server, repository: Path) -> None:
    status, text = call(server, "/v2/repository/models/nothing/load", "")
    assert status == 500
    assert json.loads(text)["error"].startswith(
        "failed to load 'nothing', failed to poll from model repository; there is "
    )
    status, text = call(server, "/v2/repository/models/nothing/unload", "")
    assert status == 404
    status, text = call(server, "/v2/repository/models/first/load", {"parameters": {"file:1/model.onnx": "AA=="}})
    assert (status, "files are taken from the repository only" in text) == (501, True)
    assert call(server, "/v2/repository/models/first/load", [])[0] == 400
    assert call(server, "/v2/repository/other/models/first/load", "")[0] == 501


def test_a_broken_version_leaves_the_old_one_serving(server: Server, repository: Path) -> None:
    broken = repository / "first" / "2" / "model.onnx"
    broken.parent.mkdir()
    try:
        for text, reason in (
            (MODEL.read_bytes()[:5000], "truncated or damaged"),
            (b"", "empty"),
        ):
            broken.write_bytes(text)
            status, answer = call(server, "/v2/repository/models/first/load", "")
            assert status == 400
            assert "load failed for model 'first': version 2: " in answer
            assert reason in answer
            assert str(repository) not in answer
            assert call(server, "/v2/models/first/infer", IMAGE)[0] == 200
            assert index(server)["first", "1"] == ("READY", "")
            assert index(server)["first", "2"][0] == "UNAVAILABLE"
        broken.unlink()
        put(repository, "first", 2)
        assert call(server, "/v2/repository/models/first/load", "") == (200, "")
        assert json.loads(call(server, "/v2/models/first")[1])["versions"] == ["2"]
        assert ("first", "1") not in index(server)
    finally:
        shutil.rmtree(broken.parent)
    assert call(server, "/v2/repository/models/first/load", "") == (200, "")
    assert json.loads(call(server, "/v2/models/first")[1])["versions"] == ["1"]


def test_without_explicit_control_nothing_can_be_changed(repository: Path) -> None:
    with running(repository / "first", "--workers", "1") as server:
        status, text = call(server, "/v2/repository/models/first/unload", "")
        assert status == 503
        assert "--model-control-mode explicit" in text
