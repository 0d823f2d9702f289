"""`--device fastest` moves models with the load while they are served: CPU and OpenVINO, told what their runs take."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_devices import ANY_PORT, DIGITS, OPENVINO, ROOT, ROWS, nodes, probabilities
from tests.support import clients
from tests.support.faults import wait_until
from tests.support.server import Server, running_command

pytestmark = pytest.mark.slow

#: The whole server, but for the measurement, whose result would be this host's, and with less patience. The CPU runs
#: one row sooner and 100 rows a second, OpenVINO twice as many.
SERVER = """
import os, sys, time
from server.executor import fastest_device, process
from server.executor.backend import LoadError
from server.models import live_load
from server.supervisor import move_policy, placer

MS = 1_000_000
CELLS = {
    "cpu": [(1, 10 * MS), (8, 80 * MS), (64, 640 * MS)],
    "openvino:CPU": [(1, 40 * MS), (8, 71 * MS), (64, 320 * MS)],
}
fastest_device._measure = lambda backend, *others: CELLS[backend.assignment.device]
placer.LOOK_NS, placer.MOVING_NS, move_policy.REST_NS = 300 * MS, 20 * MS, 100 * MS
load_on = process._load_on

def load_there(plan, place, *others):
    if place.device == "openvino:CPU":
        if os.environ["THERE"] == "broken":
            raise LoadError("it is broken")
        time.sleep(2)
    return load_on(plan, place, *others)

if "TWO_UNITS" in os.environ:
    live_load.unit_of = lambda device: device
if "THERE" in os.environ:
    process._load_on = load_there

from server.cli import main
sys.exit(main(sys.argv[1:]))
"""


@contextmanager
def server_of(tmp_path: Path, **environment: str) -> Iterator[Server]:
    python = clients.python("openvino")
    (tmp_path / "told.py").write_text(SERVER)
    for name, config in (("digits", ""), ("own", "instance_group { kind: KIND_CPU }")):
        (tmp_path / "models" / name / "1").mkdir(parents=True)
        (tmp_path / "models" / name / "1" / "model.onnx").write_bytes(DIGITS.read_bytes())
        (tmp_path / "models" / name / "config.pbtxt").write_text(config)
    command = [python, str(tmp_path / "told.py"), "serve", str(tmp_path / "models"), "--device", "fastest", *ANY_PORT]
    with running_command(tmp_path, *command, environment={"PYTHONPATH": str(ROOT), **environment}) as server:
        yield server


@contextmanager
def asked(server: Server, rows: int, pause_s: float) -> Iterator[None]:
    """Somebody asks again and again, and is always answered, with the same."""
    expected = probabilities(server, ROWS)[: 10 * rows]
    wrong: list[object] = []
    is_over = threading.Event()

    def ask() -> None:
        while not is_over.wait(pause_s):
            try:
                found = probabilities(server, ROWS[:rows])
                if found != pytest.approx(expected, rel=1e-3, abs=1e-6):
                    wrong.append(found)
            except Exception as error:
                wrong.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
    assert not wrong, wrong[:3]


def events(server: Server, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.log().splitlines() if f'"event":"{name}"' in line]


def on_openvino(server: Server) -> set[int]:
    """Processes that have or had a model there."""
    return {one["pid"] for one in events(server, "model_placed") if one["device"] == "openvino:CPU"}


def wait_for(server: Server, name: str, count: int) -> None:
    until = time.monotonic() + 30
    while len(events(server, name)) < count:
        if time.monotonic() > until:
            raise server.failed(f"expected {count} times {name}")
        time.sleep(0.02)


def test_a_model_goes_to_where_the_demand_can_be_met_and_back(tmp_path: Path) -> None:
    with server_of(tmp_path) as server:
        assert list(nodes(server, "digits")) == [("cpu", "CPUExecutionProvider")]
        with asked(server, rows=9, pause_s=0.001):
            wait_for(server, "model_moved", 1)
            assert list(nodes(server, "digits")) == [("openvino:CPU", OPENVINO)]
        with asked(server, rows=1, pause_s=0.1):
            wait_for(server, "model_moved", 2)
            assert list(nodes(server, "digits")) == [("cpu", "CPUExecutionProvider")]
        there, back = events(server, "model_moved")
        assert (there["model"], there["from_device"], there["device"]) == ("digits", "cpu", "openvino:CPU")
        assert (back["model"], back["from_device"], back["device"]) == ("digits", "openvino:CPU", "cpu")
        assert "times what it can run" in there["msg"] and there["rows_per_s"]
        assert re.fullmatch(r"a request: about [\d.]+ ms; where it was: about [\d.]+ ms", back["msg"])
        assert list(nodes(server, "own")) == [("cpu", "CPUExecutionProvider")]
        assert len(server.pids("executor")) == 2


def test_a_device_that_does_not_take_a_model_is_left_alone(tmp_path: Path) -> None:
    with server_of(tmp_path, THERE="broken") as server:
        with asked(server, rows=9, pause_s=0.001):
            wait_for(server, "move_failed", 1)
            wait_for(server, "model_unloaded", 1)
        (failed,) = events(server, "move_failed")
        assert (failed["model"], failed["device"], failed["msg"]) == ("digits", "openvino:CPU", "it is broken")
        assert list(nodes(server, "digits")) == [("cpu", "CPUExecutionProvider")]
        assert not events(server, "model_moved") and server.get("/v2/models/digits/ready").status == 200


def test_a_model_gets_a_second_device_and_loses_it(tmp_path: Path) -> None:
    """As if OpenVINO computed on hardware of its own; a new process has both again."""
    both = {("cpu", "CPUExecutionProvider"), ("openvino:CPU", OPENVINO)}
    with server_of(tmp_path, TWO_UNITS="1") as server:
        with asked(server, rows=9, pause_s=0.001):
            wait_for(server, "model_moved", 1)
            assert set(nodes(server, "digits")) == both
            (executor,) = on_openvino(server)
            os.kill(executor, signal.SIGKILL)
            wait_until(lambda: len(on_openvino(server)) == 2, "a new process that has the model there")
            assert set(nodes(server, "digits")) == both
        with asked(server, rows=1, pause_s=0.1):
            wait_for(server, "model_moved", 2)
            assert list(nodes(server, "digits")) == [("cpu", "CPUExecutionProvider")]
        assert [one["device"] for one in events(server, "model_moved")] == ["cpu, openvino:CPU", "cpu"]
        assert not events(server, "move_failed")


def test_files_that_change_while_it_moves_are_placed_by_the_demand(tmp_path: Path) -> None:
    with server_of(tmp_path, THERE="slow") as server:
        with asked(server, rows=9, pause_s=0.001):
            wait_for(server, "model_loading", 1)
            (tmp_path / "models" / "digits" / "config.pbtxt").write_text("dynamic_batching { }\n")
            server.process.send_signal(signal.SIGHUP)
            # The one that served, and the one that it was to become.
            wait_for(server, "model_unloaded", 2)
        first, second = events(server, "device_measured")
        assert (first["device"], first["rows_per_s"]) == ("cpu", {})
        assert second["device"] == "openvino:CPU" and list(second["rows_per_s"]) == ["digits:1"]
        assert list(nodes(server, "digits")) == [("openvino:CPU", OPENVINO)]
        assert not events(server, "model_moved") and len(server.pids("executor")) == 2
