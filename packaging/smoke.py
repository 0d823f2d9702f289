"""Proves that the executable needs nothing but itself.

Copies it alone into an empty directory and starts it there with an empty environment (no PATH, so no Python): it
serves the demo model with 2 workers, answers over HTTP, survives the death of an executor and of a worker, and stops.
After that nothing is left: no process, no port, no unpacked directory, no shared memory.

    python packaging/smoke.py dist/headrace
"""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.server import Server

MODEL = "/v2/models/digits"
WORKERS = 2
#: An empty 8x8 picture but for one bright column: any input will do, the answer's form is what is looked at.
IMAGE = [16.0 if index % 8 == 4 else 0.0 for index in range(64)]


def infer(server: Server) -> None:
    """One request with two rows; both answers are probabilities with the label of the largest."""
    asked = {"inputs": [{"name": "image", "datatype": "FP32", "shape": [2, 64], "data": IMAGE + IMAGE}]}
    answer = server.post(f"{MODEL}/infer", asked)
    assert answer.status == 200, f"expected 200, got {answer.status}: {answer.body!r}"
    outputs: dict[str, dict[str, Any]] = {output["name"]: output for output in answer.json()["outputs"]}
    assert outputs["probabilities"]["shape"] == [2, 10], outputs
    for row in range(2):
        probabilities = outputs["probabilities"]["data"][row * 10 : row * 10 + 10]
        assert math.isclose(sum(probabilities), 1, rel_tol=1e-4), probabilities
        assert outputs["label"]["data"][row] == max(range(10), key=probabilities.__getitem__), outputs


def infer_when_back(server: Server, patience_ns: int = 20_000_000_000) -> None:
    """The same, allowing 503 for as long as a replacement takes to start."""
    deadline = time.monotonic_ns() + patience_ns
    while True:
        try:
            return infer(server)
        except (AssertionError, OSError):
            if time.monotonic_ns() > deadline:
                raise
            time.sleep(0.05)


class Checks:
    """Runs named checks in order; the first that fails ends the run."""

    def __init__(self) -> None:
        self.passed = 0
        self.failed = 0

    def run(self, name: str, action: Callable[[], Any]) -> Any:
        begin = time.monotonic_ns()
        try:
            result = action()
        except BaseException:
            self.failed += 1
            print(f"FAILED  {name}", flush=True)
            raise
        self.passed += 1
        print(f"ok      {name} ({(time.monotonic_ns() - begin) // 1_000_000} ms)", flush=True)
        return result


def version_is_printed(program: Path, temporary: Path) -> None:
    done = subprocess.run(
        [program, "--version"], env={"TMPDIR": str(temporary)}, capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.startswith("headrace "), f"expected 'headrace VERSION', got {done.stdout!r}"


def other_names_are_known(program: Path, temporary: Path) -> None:
    """Called as another server it takes that one's command line, files of text protobuf included."""
    for name, arguments, code, said in (
        ("tritonserver", ["--version"], 0, "NVIDIA Triton Inference Server: headrace "),
        ("tensorflow_model_server", ["--model_config_file=models"], 64, "expected the text of a ModelServerConfig"),
    ):
        link, models = temporary / name, temporary / "models"
        link.symlink_to(program)
        models.write_text("no such field", encoding="utf-8")
        done = subprocess.run(
            [link, *arguments],
            cwd=temporary,
            env={"TMPDIR": str(temporary)},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        link.unlink()
        models.unlink()
        output = done.stdout + done.stderr
        assert (done.returncode, said in output) == (code, True), f"expected {code} and {said!r}, got {done}"


def replaced(server: Server, role: str, count: int) -> None:
    """Kills one process of a kind and waits for its replacement."""
    victims = server.pids(role)
    assert len(victims) == count, f"expected {count} {role} processes, found {server.processes()}"
    os.kill(victims[0], signal.SIGKILL)
    server.wait_replaced(role, victims[0], count)


def nothing_left(server: Server, folder: Path, temporary: Path, shared_memory: set[str]) -> None:
    server.assert_nothing_left()
    left = [str(path) for path in temporary.iterdir()]
    assert not left, f"expected an empty temporary directory, found {left}"
    made = {path.name for path in folder.iterdir()} - {"headrace", temporary.name}
    assert not made, f"expected nothing written beside the executable, found {made}"
    more = set(os.listdir("/dev/shm")) - shared_memory
    assert not more, f"expected no shared memory by name, found {more}"


def smoke(program: Path, checks: Checks) -> None:
    with tempfile.TemporaryDirectory(prefix="headrace-smoke-") as scratch, tempfile.TemporaryDirectory() as output:
        folder, temporary = Path(scratch), Path(scratch) / "tmp"
        temporary.mkdir()
        alone = folder / "headrace"
        shutil.copy2(program, alone)
        shared_memory = set(os.listdir("/dev/shm"))
        checks.run("prints its version", lambda: version_is_printed(alone, temporary))
        checks.run("takes the names of others", lambda: other_names_are_known(alone, temporary))
        command = [str(alone), "serve", "--workers", str(WORKERS), "--http-port", "0", "--metrics-port", "0"]
        server = Server(command, {"TMPDIR": str(temporary)}, Path(output), directory=folder)
        try:
            checks.run("starts and is ready", server.wait_ready)
            checks.run("answers an infer request", lambda: infer(server))
            checks.run("replaces a killed executor", lambda: replaced(server, "executor", 1))
            checks.run("answers again", lambda: infer_when_back(server))
            checks.run("replaces a killed worker", lambda: replaced(server, "worker", WORKERS))
            checks.run("answers again", lambda: infer_when_back(server))
            checks.run("stops on SIGTERM with exit code 0", server.stop)
            checks.run("leaves nothing behind", lambda: nothing_left(server, folder, temporary, shared_memory))
        finally:
            server.kill()


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: smoke.py EXECUTABLE", file=sys.stderr)
        return 64
    program = Path(sys.argv[1]).resolve()
    checks = Checks()
    try:
        smoke(program, checks)
    finally:
        print(f"{program.name}: {program.stat().st_size / 1e6:.1f} MB")
        print(f"smoke: {checks.passed} passed, {checks.failed} failed", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
