"""A version that finds no memory beside the one that serves: refused, or loaded after that one has gone."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.support.faults import wait_until
from tests.support.hostile_models import external_tensor
from tests.support.onnx_writer import Graph, identity
from tests.support.server import Server, running

pytestmark = pytest.mark.slow

EXPLICIT = ("--workers", "1", "--model-control-mode", "explicit", "--load-model", "*")
REQUEST = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}


def put(root: Path, version: int, content: bytes, weights_bytes: int = 0, name: str = "m") -> None:
    folder = root / name / str(version)
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(content)
    if weights_bytes:
        with (folder / "w").open("wb") as file:
            file.truncate(weights_bytes)


def heavy() -> bytes:
    """Its weights are a file that is almost all hole: what the check goes by is its size."""
    graph = Graph("heavy")
    graph.input("x", "FP32", [-1, 4])
    graph.initializers += external_tensor("w", [4], {"location": "w", "length": "16"})
    graph.node("Add", ["x", "w"], ["y"])
    graph.output("y", "FP32", [-1, 4])
    return graph.model()


def load(server: Server) -> tuple[int, str]:
    answer = server.request("POST", "/v2/repository/models/m/load", b"{}", timeout_s=30)
    return answer.status, answer.body.decode()


def version_of(server: Server) -> str:
    answer = server.post("/v2/models/m/infer", REQUEST)
    return json.loads(answer.body)["model_version"] if answer.status == 200 else str(answer.status)


@pytest.mark.parametrize(("policy", "version"), [("refuse", "1"), ("unload-first", "404")])
def test_more_than_there_is(policy: str, version: str, tmp_path: Path) -> None:
    """4 TiB of weights fit on no host. Whoever asks for the old version to go first loses it to a model too large."""
    put(tmp_path, 1, identity())
    with running(tmp_path, *EXPLICIT, "--reload-without-room", policy) as server:
        put(tmp_path, 2, heavy(), 1 << 42)
        status, text = load(server)
        assert (status, "it needs about" in text) == (400, True), text
        assert "MiB are available" in text
        assert version_of(server) == (version if policy == "refuse" else "503")
        rows = {row["version"]: row["state"] for row in server.post("/v2/repository/index", {}).json()}
        assert rows["2"] == "UNAVAILABLE"
        # With room again it is loaded.
        with (tmp_path / "m" / "2" / "w").open("wb") as file:
            file.write(bytes(16))
        assert load(server) == (200, "")
        assert version_of(server) == "2"


def test_what_finds_no_memory_is_said_once(tmp_path: Path) -> None:
    """Each look finds other figures: they are no news."""
    put(tmp_path, 1, identity())
    polling = ("--workers", "1", "--model-control-mode", "poll", "--repository-poll-secs", "1")
    with running(tmp_path, *polling) as server:
        put(tmp_path, 2, heavy(), 1 << 42)
        server.wait_log('"model_refused"')
        # A look that finds less memory, and a model that shows when it has been.
        taken = os.urandom(16 << 20)
        put(tmp_path, 1, identity(), name="sign")
        wait_until(lambda: server.get("/v2/models/sign/ready").status == 200, "another look")
        assert (len(taken), server.log().count('"model_refused"')) == (16 << 20, 1)


def test_what_is_wanted_beside_a_version_does_not_go_first(tmp_path: Path) -> None:
    """Of a model of which all versions serve, a new one that is too large replaces none."""
    put(tmp_path, 1, identity())
    (tmp_path / "m" / "config.pbtxt").write_text("version_policy { all {} }")
    with running(tmp_path, *EXPLICIT, "--reload-without-room", "unload-first") as server:
        put(tmp_path, 2, heavy(), 1 << 42)
        status, text = load(server)
        assert (status, "version 2: it needs about" in text) == (400, True), text
        assert version_of(server) == "1"
        assert '"model_retired"' not in server.log()
