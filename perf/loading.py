"""P17: what requests of one model notice of another one of 200 MB that loads on the same core.

Beside it what they notice of a bare ONNX Runtime that loads the same file there, in the scheduling class that always
gives way: the kernel does not interrupt a process that reads four megabytes at a time.
"""

from __future__ import annotations

import array
import os
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

from perf import clients, stats, wire
from perf.clients import Load, Segment
from perf.report import Cell
from perf.subjects import Headrace
from perf.throughput import bad_answers, probe
from tests.support.onnx_writer import Graph

SERVER_OPTIONS = ("--model-control-mode", "explicit", "--load-model", "mlp")
HEAVY = "heavy"
WIDTH = 2048
#: 13 layers of 16 MiB each.
LAYERS = 13
#: What GNU cp writes at a time.
COPY_BYTES = 256 * 1024
#: Requests a second to the model beside it: a tenth of what the core can do, so that waiting shows and queues do not.
RATE = 2000.0
CONNECTIONS = 8


def heavy_model() -> bytes:
    """`x` FP32 [-1, 2048] through 13 matrices: 218 MB of weights, which ONNX Runtime packs anew when it loads them."""
    values = array.array("f", (0.01, -0.02, 0.03, 0.0))
    matrix = (values * (WIDTH * WIDTH // len(values))).tobytes()
    graph = Graph("heavy")
    graph.input("x", "FP32", [-1, WIDTH])
    for layer in range(LAYERS):
        graph.constant(f"w{layer}", "FP32", [WIDTH, WIDTH], matrix)
        graph.node("MatMul", [f"h{layer}" if layer else "x", f"w{layer}"], [f"h{layer + 1}"])
    graph.node("Identity", [f"h{LAYERS}"], ["y"])
    graph.output("y", "FP32", [-1, WIDTH])
    return graph.model()


def write_models(folder: Path, small: bytes) -> Path:
    """A repository with the small model and the heavy one, whose file was copied there some time ago.

    What is written at once lies in the page cache in pieces of megabytes and is read in one go; what is new is being
    written to the disk (ADR 21).
    """
    for name, content in (("mlp", small), (HEAVY, heavy_model())):
        (folder / name / "1").mkdir(parents=True)
        with (folder / name / "1" / "model.onnx").open("wb", buffering=0) as file:
            for start in range(0, len(content), COPY_BYTES):
                file.write(content[start : start + COPY_BYTES])
            os.fsync(file.fileno())
    return folder


def change(server: Headrace, call: str) -> float:
    """Loads or unloads the heavy model; how long that took, in seconds."""
    began = time.perf_counter()
    request = (
        f"POST /v2/repository/models/{HEAVY}/{call} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
        "Content-Length: 0\r\nConnection: close\r\n\r\n"
    )
    reply = wire.exchange(server.port, request.encode(), timeout_s=120.0)
    if reply.status != 200:
        raise RuntimeError(f"{call} of {HEAVY}: expected 200, got {reply.status}: {reply.body[:300]!r}")
    return time.perf_counter() - began


#: Loads the model named by its argument when it gets a line, and says when it is ready and when it is done.
_BARE_LOAD = """
import os, sys
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
print(flush=True)
sys.stdin.readline()
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
print(flush=True)
sys.stdin.readline()
"""


class BareLoad:
    """ONNX Runtime alone in a process of the idle class, on one core."""

    def __init__(self, model: Path, cpu: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _BARE_LOAD, str(model)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            preexec_fn=lambda: os.sched_setaffinity(0, {cpu}),
        )
        self._said()

    def _said(self) -> None:
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            raise RuntimeError("ONNX Runtime did not load the model")

    def load(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._said()

    def end(self) -> None:
        self._process.communicate()


def beside_a_load(server: Headrace, request: wire.Request, load: Load, heavy: Path, pair_count: int) -> Cell:
    """p99 while the heavy model loads over p99 just before, in windows as long as a load takes."""
    probe(server, request)
    process_count = len(server.pids())

    def unload() -> None:
        change(server, "unload")
        while len(server.pids()) > process_count:
            time.sleep(0.01)

    load_s = change(server, "load")
    unload()
    window_s = max(0.5, load_s)

    def window() -> Segment:
        return clients.http_load(server, request, load, connections=CONNECTIONS, seconds=window_s, rate=RATE)

    quiet: list[Segment] = []
    busy: list[Segment] = []
    bare: list[Segment] = []
    loads_s: list[float] = []
    window()
    for _ in range(pair_count):
        time.sleep(0.3)
        quiet.append(window())
        loading = threading.Thread(target=lambda: loads_s.append(change(server, "load")))
        loading.start()
        busy.append(window())
        loading.join()
        unload()
        other = BareLoad(heavy, load.server_cpu)
        loading = threading.Thread(target=other.load)
        loading.start()
        bare.append(window())
        loading.join()
        other.end()
    ratios = [a.p99_us / b.p99_us for a, b in zip(busy, quiet, strict=True)]
    before, during = (statistics.median(segment.p99_us for segment in side) for side in (quiet, busy))
    bare_ratio = statistics.median(a.p99_us / b.p99_us for a, b in zip(bare, quiet, strict=True))
    bad = bad_answers(quiet + busy)
    return Cell(
        "P17",
        statistics.median(ratios),
        f"p99 {during:.0f} µs while it loads",
        f"p99 {before:.0f} µs before",
        stats.median_interval(ratios),
        f"while ONNX Runtime alone loads it in the idle class {bare_ratio:.2f} x, "
        f"a load takes {statistics.median(loads_s):.2f} s" + (f", {bad} answers were not 200 or lost" if bad else ""),
        bad,
        {
            "ratios": ratios,
            "loads_s": loads_s,
            "before_us": [s.p99_us for s in quiet],
            "during_us": [s.p99_us for s in busy],
            "bare_us": [s.p99_us for s in bare],
        },
    )
