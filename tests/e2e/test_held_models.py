"""An executor that dies again and again is started ever more seldom. Requests wait for a restart that is due at once;
in a longer pause they are refused, those that came before among them: nobody waits for a model that may not come back.
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
from tests.support.hostile_models import endless
from tests.support.onnx_writer import identity, write_repository
from tests.support.server import Server, running
from tests.support.wire import Wire, infer

pytestmark = pytest.mark.slow

FOR_EVER = 10**12


@contextmanager
def dying(server: Server) -> Iterator[None]:
    """Every executor is killed as soon as it is there."""
    is_over = threading.Event()

    def kill() -> None:
        while not is_over.wait(0.01):
            for pid in server.pids("executor"):
                os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        yield
    finally:
        is_over.set()
        killer.join()


@pytest.mark.parametrize(("executors", "is_busy"), [("per-model", False), ("shared", False), ("shared", True)])
def test_nobody_waits_for_a_model_that_is_held_back(tmp_path: Path, executors: str, is_busy: bool) -> None:
    """is_busy: a batch runs when the executor dies, so that a shared one suspects its model."""
    write_repository(tmp_path, {"m": endless() if is_busy else identity("INT64", (-1, 1))})
    number, serial = FOR_EVER if is_busy else 3, 0
    question = infer("m", "x", "INT64", [1, 1], [number])
    with running(tmp_path, "--workers", "1", "--executors", executors) as server:
        with Wire(server.host, server.port, timeout_s=30) as wire, dying(server):
            waited = wire.send(question).answer()
            while waited.status in (200, 500):
                # It was served in between, or has killed two executors and is not run again: then another one.
                serial += 1
                waited = wire.send(infer("m", "x", "INT64", [1, 1], [number + serial])).answer()
            assert (waited.status, "while the request waited" in waited.json()["error"]) == (503, True), waited.body
            answer = wire.send(question).answer()
            assert (answer.status, "it is started again in" in answer.json()["error"]) == (503, True), answer.body
            assert answer.headers["retry-after"] == waited.headers["retry-after"] == "1"
        wait_until(lambda: server.get("/v2/models/m/ready").status == 200, "the end of the pause", 40)
        with Wire(server.host, server.port) as wire:
            assert wire.send(infer("m", "x", "INT64", [1, 1], [3])).answer().status == 200
