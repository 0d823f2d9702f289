"""A model's file is replaced and nobody says so; then its executor dies. What lies there now is looked at like any
other version, never loaded into what the old one was planned for.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.faults import wait_until
from tests.support.onnx_writer import identity, write_repository
from tests.support.server import Answer, Server, running
from tests.support.wire import Wire, infer

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


@contextmanager
def asked(server: Server) -> Iterator[set[int]]:
    """Somebody asks all the time; the statuses of the answers."""
    statuses: set[int] = set()
    is_over = threading.Event()

    def ask_on() -> None:
        with Wire(server.host, server.port) as wire:
            while not is_over.is_set():
                statuses.add(wire.send(infer("m", "x", "FP32", [1, 4], [1, 2, 3, 4])).answer().status)

    asker = threading.Thread(target=ask_on)
    asker.start()
    try:
        yield statuses
    finally:
        is_over.set()
        asker.join()


def test_a_refused_model_is_never_an_unknown_one(tmp_path: Path) -> None:
    """Not in the moment either in which it is refused, or has a lane again."""
    good = identity("FP32", (-1, 4))
    write_repository(tmp_path, {"m": good})
    with running(tmp_path, "--workers", "1") as server, asked(server) as statuses:
        for _ in range(4):
            replace(tmp_path, good[:-1])
            (pid,) = server.pids("executor")
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: "model.onnx is not a readable ONNX file" in state(server)[1], "the refusal")
            replace(tmp_path, good)
            server.process.send_signal(signal.SIGHUP)
            wait_until(lambda: state(server)[0] == "READY", "the model")
    assert statuses == {200, 503}


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
