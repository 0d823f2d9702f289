"""`headrace load`, `unload` and `ps` against a server, as a user calls them."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.onnx_writer import identity, write_repository
from tests.support.server import Server, executable, running

pytestmark = pytest.mark.slow


def headrace(*arguments: str) -> tuple[int, str, str]:
    done = subprocess.run([*executable(), *arguments], capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_repository(tmp_path_factory.mktemp("models"), {"first": identity(), "second": identity()})
    (root / "broken" / "1").mkdir(parents=True)
    (root / "broken" / "1" / "model.onnx").write_bytes(identity()[:40])
    return root


@pytest.fixture(scope="module")
def uds() -> Iterator[str]:
    """A path that is short enough for a socket."""
    with tempfile.TemporaryDirectory() as folder:
        yield f"{folder}/s"


@pytest.fixture(scope="module")
def server(repository: Path, uds: str) -> Iterator[Server]:
    control = ("--model-control-mode", "explicit", "--load-model", "first")
    with running(repository, "--workers", "2", "--uds", uds, *control) as server:
        yield server


def test_models_come_and_go(server: Server) -> None:
    url = ("--url", server.url)
    # What nobody has asked for is nobody's trouble, broken or not.
    assert "broken" not in server.log() + server.output()
    assert headrace("load", "second", *url) == (0, "loaded second version 1: READY\n", "")
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}
    for _ in range(3):
        assert server.post("/v2/models/second/infer", body).status == 200
    code, out, err = headrace("ps", *url, "--json")
    assert (code, err) == (0, "")
    rows = {row["model"]: row for row in json.loads(out)}
    assert list(rows) == ["broken", "first", "second"]
    second = rows["second"]
    assert (second["version"], second["state"], second["device"], second["requests"]) == ("1", "READY", "cpu", 3)
    assert (second["failed"], second["reason"]) == (0, "")
    assert second["memory_bytes"] > 1 << 20
    assert second["mean_ms"] > 0
    assert rows["first"]["mean_ms"] is None
    assert (rows["broken"]["state"], rows["broken"]["reason"]) == ("UNAVAILABLE", "unloaded")

    code, out, _ = headrace("ps", "second", *url)
    heading, line = out.splitlines()
    assert heading.split() == ["model", "version", "state", "device", "requests", "failed", "mean", "memory"]
    assert line.split()[:6] == ["second", "1", "READY", "cpu", "3", "0"]

    assert headrace("unload", "second", *url) == (0, "unloaded second version 1\n", "")
    assert server.post("/v2/models/second/infer", body).status == 404
    assert json.loads(headrace("ps", "second", *url, "--json")[1])[0]["state"] == "UNAVAILABLE"


def test_over_a_unix_socket(server: Server, uds: str) -> None:
    url = f"unix:{uds}"
    code, out, err = headrace("load", "first", "--url", url, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == [{"name": "first", "version": "1", "state": "READY", "reason": ""}]
    assert headrace("ps", "--url", f"unix://{uds}")[0] == 0
    code, _, err = headrace("infer", "first", "--random", "--url", url)
    assert (code, err) == (0, "")


def test_a_configuration_comes_along(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"max_batch_size": 5}))
    assert headrace("load", "first", "--config", str(file), "--url", server.url)[0] == 0
    assert server.get("/v2/models/first/config").json()["max_batch_size"] == 5
    assert headrace("load", "first", "--url", server.url)[0] == 0
    assert server.get("/v2/models/first/config").json()["max_batch_size"] == 64


def test_what_goes_wrong_is_said(server: Server, tmp_path: Path) -> None:
    url = ("--url", server.url)
    for arguments, code, text in (
        (("load", "broken"), 65, "load failed for model 'broken': version 1: model.onnx is not a readable ONNX file"),
        (("load", "nothing"), 66, "not found (500): failed to load 'nothing'"),
        (("unload", "nothing"), 66, "not found (404): failed to unload 'nothing'"),
        (("load", "first", "--config", str(tmp_path / "none")), 66, "No such file"),
        (("ps", "frist"), 66, "the server has no model 'frist': did you mean first?"),
    ):
        status, out, err = headrace(*arguments, *url)
        assert (status, out) == (code, ""), err
        assert text in err
        assert err.count("\n") == 1
    status, _, err = headrace("ps", "--url", f"unix:{tmp_path}/none")
    assert (status, "cannot be reached (No such file or directory)" in err) == (69, True)
    with running("--workers", "1") as fixed:
        status, _, err = headrace("unload", "digits", "--url", fixed.url)
        assert (status, "start the server with --model-control-mode explicit" in err) == (78, True)


def test_models_may_come_later(tmp_path: Path) -> None:
    control = ("--model-control-mode", "explicit", "--load-model", "*")
    with running(tmp_path, "--workers", "1", *control) as server:
        assert '"repository_empty"' in server.log()
        assert server.get("/v2/health/ready").status == 200
        assert server.post("/v2/repository/index", {}).json() == []
        write_repository(tmp_path, {"late": identity()})
        assert headrace("load", "late", "--url", server.url)[0] == 0
        assert server.get("/v2/models/late/ready").status == 200
