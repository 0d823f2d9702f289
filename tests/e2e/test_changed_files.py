"""A model's file is replaced and nobody says so; then its executor dies. What lies there now is looked at like any
other version, never loaded into what the old one was planned for.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support.faults import wait_until
from tests.support.onnx_writer import identity, write_repository
from tests.support.server import Answer, Server, running

pytestmark = pytest.mark.slow


def ask(server: Server, *data: float) -> Answer:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, len(data)], "data": data}
    return server.post("/v2/models/m/infer", {"inputs": [tensor]})


def replace(repository: Path, content: bytes) -> None:
    (repository / "new").write_bytes(content)
    (repository / "new").rename(repository / "m/1/model.onnx")


def state(server: Server) -> tuple[str, str]:
    (row,) = (row for row in server.post("/v2/repository/index", {}).json() if row["name"] == "m")
    return row["state"], row["reason"]


@pytest.mark.parametrize("executors", ["per-model", "shared"])
def test_after_a_crash_counts_what_lies_there_now(tmp_path: Path, executors: str) -> None:
    write_repository(tmp_path, {"m": identity("FP32", (-1, 4)), "other": identity()})
    with running(tmp_path, "--workers", "1", "--executors", executors) as server:
        replace(tmp_path, identity("FP32", (-1, 5)))
        assert ask(server, 1, 2, 3, 4).status == 200
        for pid in server.pids("executor"):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: ask(server, 1, 2, 3, 4, 5).status == 200, "the model with five columns")
        assert "Expected [-1,5], got [1,4]" in ask(server, 1, 2, 3, 4).json()["error"]
        assert "model.onnx has changed since the model was looked at" in server.log()

        replace(tmp_path, identity("FP32", (-1, 6))[:-1])
        for pid in server.pids("executor"):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: "model.onnx is not a readable ONNX file" in state(server)[1], "the refusal")
        assert state(server)[0] == "UNAVAILABLE"
        assert ask(server, 1, 2, 3, 4, 5).status == 503

        replace(tmp_path, identity("FP32", (-1, 6)))
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: ask(server, 1, 2, 3, 4, 5, 6).status == 200, "the model with six columns")
