"""What is measured: the server's process tree or a C floor, started on given cores and stopped without remains."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from perf import build, processes, wire


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Subject:
    """A running process tree that answers on `port`; `root` is its first process."""

    name: str
    port: int
    root: int

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def stop(self) -> None:
        raise NotImplementedError


class Floor(Subject):
    """A C program that listens on a free port, prints it, and answers a constant."""

    def __init__(self, program: str, arguments: list[str], cpu: int) -> None:
        self.name = f"C floor ({program})"
        self._process = subprocess.Popen(
            [str(build.program(program)), *arguments],
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {cpu}),
        )
        assert self._process.stdout is not None
        self.root = self._process.pid
        self.port = int(self._process.stdout.readline())

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()


class HttpFloor(Floor):
    """Answers `head_bytes` + `body_bytes` to every HTTP/1.1 request; `receive_bytes` of shared memory a connection."""

    def __init__(self, head_bytes: int, body_bytes: int, cpu: int, receive_bytes: int = 0) -> None:
        receive = [str(receive_bytes)] if receive_bytes else []
        super().__init__("http_floor", [str(head_bytes), str(body_bytes), *receive], cpu)


class GrpcFloor(Floor):
    """Answers the message in `reply` to every gRPC call."""

    def __init__(self, reply: Path, cpu: int) -> None:
        super().__init__("h2_floor", [str(reply)], cpu)


@dataclass(frozen=True)
class ModelCounts:
    """From GET /v2/models/M/stats: rows answered and runs of the model."""

    inference_count: int
    execution_count: int


class Headrace(Subject):
    """`headrace serve PATH` with its workers and executors, ready to answer.

    cpus None leaves the affinity alone. `start_to_ready_s` runs from before exec to the first 200 of /v2/health/ready.
    """

    def __init__(
        self,
        command: list[str],
        path: Path | None,
        log: Path,
        *,
        workers: int | None = 1,
        cpus: set[int] | None = None,
        ready_timeout_s: float = 60.0,
        extra: tuple[str, ...] = (),
    ) -> None:
        self.name = "headrace"
        self.port, self.metrics_port = free_port(), free_port()
        self._log = log
        arguments = [*command, "serve", *([str(path)] if path else []), "--host", "127.0.0.1"]
        arguments += ["--http-port", str(self.port), "--metrics-port", str(self.metrics_port)]
        arguments += ["--grpc-port", str(self.port)]
        arguments += ["--workers", str(workers)] if workers else []
        began = time.perf_counter()
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [*arguments, *extra],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=(lambda: os.sched_setaffinity(0, cpus)) if cpus else None,
            )
        self.root = self._process.pid
        try:
            self._wait_ready(ready_timeout_s)
        except BaseException:
            self.stop()
            raise
        self.start_to_ready_s = time.perf_counter() - began

    def _wait_ready(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                status = self._process.returncode
                raise RuntimeError(f"the server ended with {status} before it was ready:\n{self.tail()}")
            with contextlib.suppress(OSError, ValueError):
                if wire.get(self.port, "/v2/health/ready").status == 200:
                    return
            time.sleep(0.002)
        raise RuntimeError(f"the server was not ready within {timeout_s} s:\n{self.tail()}")

    def tail(self, line_count: int = 15) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-line_count:])

    def pids(self) -> list[int]:
        return processes.tree(self.root)

    def counts(self, model: str) -> ModelCounts:
        reply = wire.get(self.port, f"/v2/models/{model}/stats")
        if reply.status != 200:
            raise RuntimeError(f"GET /v2/models/{model}/stats: expected 200, got {reply.status}: {reply.body[:200]!r}")
        stats = json.loads(reply.body)["model_stats"][0]
        return ModelCounts(int(stats["inference_count"]), int(stats["execution_count"]))

    def stop(self) -> None:
        known = processes.tree(self.root)
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                print(f"warning: the server did not stop within 15 s of SIGTERM; killed\n{self.tail()}")
                self._process.kill()
                self._process.wait()
        table = processes.parents()
        for pid in known[1:]:  # only children that outlived their parent: adopted by another, with a name of ours
            if pid in table and processes.names([pid])[pid].startswith("headrace"):
                print(f"warning: process {pid} outlived the server; killed")
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
