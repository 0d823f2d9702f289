"""A version that does not answer its golden requests as written there never serves; the one before it serves on."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import pytest

from tests.support.onnx_writer import Graph
from tests.support.server import Server, running

pytestmark = pytest.mark.slow

REQUEST = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [2.0]}]}


def times(factor: float) -> bytes:
    """y = factor * x."""
    graph = Graph("times")
    graph.input("x", "FP32", [-1, 1])
    graph.constant("factor", "FP32", [1], struct.pack("<f", factor))
    graph.node("Mul", ["x", "factor"], ["y"])
    graph.output("y", "FP32", [-1, 1])
    return graph.model()


def put(root: Path, version: int, factor: float) -> None:
    (root / "m" / str(version)).mkdir(parents=True, exist_ok=True)
    (root / "m" / str(version) / "model.onnx").write_bytes(times(factor))


def answer(server: Server) -> tuple[str, float]:
    document = server.post("/v2/models/m/infer", REQUEST).json()
    return document["model_version"], document["outputs"][0]["data"][0]


def load(server: Server) -> tuple[int, str]:
    reply = server.post("/v2/repository/models/m/load", {})
    return reply.status, reply.body.decode()


def states(server: Server) -> dict[str, tuple[str, str]]:
    rows = server.post("/v2/repository/index", {}).json()
    return {row["version"]: (row["state"], row["reason"]) for row in rows}


def test_a_version_that_answers_otherwise_is_refused(tmp_path: Path) -> None:
    put(tmp_path, 1, 3.0)
    golden = tmp_path / "m" / "golden"
    with running(tmp_path, "--workers", "1", "--model-control-mode", "explicit", "--load-model", "*") as server:
        # The way that the documentation shows: what the server says now is what it has to say from now on.
        reply = server.post("/v2/models/m/infer", REQUEST)
        golden.mkdir()
        (golden / "two.request.json").write_text(json.dumps(REQUEST))
        (golden / "two.response.json").write_bytes(reply.body)
        assert load(server) == (200, "")
        server.wait_log("golden_passed")

        put(tmp_path, 2, 3.5)
        status, text = load(server)
        reason = "golden/two: output 'y' at [0, 0]: expected 6, got 7 (1 of 1 differ; allowed: rtol 0.001, atol 1e-05)"
        assert (status, reason in text) == (400, True), text
        assert states(server) == {"1": ("READY", ""), "2": ("UNAVAILABLE", reason)}
        assert answer(server) == ("1", 6.0)
        server.wait_log(reason)

        # A model of which other answers are right brings its own.
        (golden / "two.response.json").rename(golden / "kept")
        shutil.copytree(golden, tmp_path / "m" / "2" / "golden")
        own = json.loads(reply.body)
        own["outputs"][0]["data"] = [7.0]
        (tmp_path / "m" / "2" / "golden" / "two.response.json").write_text(json.dumps(own))
        (golden / "kept").rename(golden / "two.response.json")
        assert load(server) == (200, "")
        assert answer(server) == ("2", 7.0)


def test_a_server_does_not_become_ready_with_a_model_that_fails_its_check(tmp_path: Path) -> None:
    """At start, too; its neighbour serves."""
    put(tmp_path, 1, 3.0)
    (tmp_path / "other" / "1").mkdir(parents=True)
    (tmp_path / "other" / "1" / "model.onnx").write_bytes(times(2.0))
    golden = tmp_path / "m" / "golden"
    golden.mkdir()
    (golden / "two.request.json").write_text(json.dumps(REQUEST))
    with running(tmp_path, "--workers", "1") as server:
        reason = "golden: found: two.request.json without two.response.json; expected: the answer beside it"
        rows = {row["name"]: (row["state"], row["reason"]) for row in server.post("/v2/repository/index", {}).json()}
        assert rows == {"m": ("UNAVAILABLE", reason), "other": ("READY", "")}
        assert server.post("/v2/models/other/infer", REQUEST).json()["outputs"][0]["data"] == [4.0]
