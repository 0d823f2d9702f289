"""The load clients, on their own core: wrk (Debian package, scripts in perf/wrk), our C clients of HTTP/1.1 and gRPC.

The C clients check every answer and can run an open loop: `rate` calls a second fall due whatever the server does.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from perf import build, processes, stats
from perf.subjects import Subject
from perf.wire import Call, Request

SCRIPTS = Path(__file__).resolve().parent / "wrk"


@dataclass(frozen=True)
class Load:
    """Where and how long: cores of server and client, a folder for files, the length of one segment."""

    server_cpu: int
    client_cpu: int
    folder: Path
    segment_s: int


@dataclass(frozen=True)
class Segment:
    """One stretch of load on one subject; bytes are per answered request, as the client sent and received them."""

    request_count: int
    seconds: float
    rate: float
    cpu_us: float
    server_busy: float
    client_busy: float
    steal: float
    p50_us: float
    p99_us: float
    not_200: int
    error_count: int
    mean_us: float = 0.0
    bytes_out: float = 0.0
    bytes_in: float = 0.0


def wrk(subject: Subject, request: Request, load: Load, *, connections: int, seconds: int | None = None) -> Segment:
    """wrk with one thread, closed loop; the CPU time is that of the subject's whole tree from before to after."""
    binary = shutil.which("wrk")
    if binary is None:
        raise RuntimeError("wrk is not installed: apt-get install wrk")
    arguments = [binary, "-t1", f"-c{connections}", f"-d{seconds or load.segment_s}s", "--timeout", "5s"]
    arguments += ["-s", str(SCRIPTS / request.script), f"http://127.0.0.1:{subject.port}{request.path}"]
    arguments += ["--", *request.script_arguments(load.folder)]
    return _measure(subject, arguments, load)


def http_load(
    subject: Subject,
    request: Request,
    load: Load,
    *,
    connections: int = 1,
    seconds: float = 1.0,
    warm_up_s: float = 0.0,
    pipeline: int = 1,
    request_count: int | None = None,
    spin: bool = False,
    rate: float = 0.0,
) -> Segment:
    """The C client: exact latencies, every status checked. `spin`: it polls instead of sleeping between answers."""
    file = load.folder / f"{request.name}.request"
    file.write_bytes(request.raw(subject.port))
    arguments = [str(build.program("http_load")), "-p", str(subject.port), "-r", str(file), "-c", str(connections)]
    arguments += ["-P", str(pipeline), "-w", str(warm_up_s), "-R", str(rate), *(["-s"] if spin else [])]
    arguments += ["-n", str(request_count)] if request_count else ["-d", str(seconds)]
    return _measure(subject, arguments, load)


def h2_load(
    subject: Subject,
    call: Call,
    load: Load,
    *,
    connections: int = 1,
    streams: int = 1,
    seconds: float = 1.0,
    warm_up_s: float = 0.0,
    request_count: int | None = None,
    expected: Path | None = None,
    first_reply: Path | None = None,
    rate: float = 0.0,
) -> Segment:
    """The gRPC client; with `expected` every reply must be that message, its FP32 outputs within 1e-4."""
    file = load.folder / f"{call.name}.message"
    file.write_bytes(call.message)
    arguments = [str(build.program("h2_load")), "-p", str(subject.port), "-u", call.path, "-r", str(file)]
    arguments += ["-c", str(connections), "-m", str(streams), "-w", str(warm_up_s), "-R", str(rate)]
    arguments += ["-n", str(request_count)] if request_count else ["-d", str(seconds)]
    arguments += ["-e", str(expected), "-f", str(call.output_width)] if expected else []
    arguments += ["-o", str(first_reply)] if first_reply else []
    return _measure(subject, arguments, load)


def _measure(subject: Subject, arguments: list[str], load: Load) -> Segment:
    cores = (load.server_cpu, load.client_cpu)
    before = processes.snapshot(subject.root, cores)
    client = subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: os.sched_setaffinity(0, {load.client_cpu}),
    )
    assert client.stdout is not None and client.stderr is not None
    output, complaints = client.stdout.read(), client.stderr.read()
    _, _, usage = os.wait4(client.pid, 0)
    client.returncode = 0
    time.sleep(0.02)  # closing the connections is part of the server's work; its threads sleep when read
    after = processes.snapshot(subject.root, cores)
    client.stdout.close()
    client.stderr.close()
    lines = output.decode().strip().splitlines()
    if not lines or not lines[-1].startswith("{"):
        raise RuntimeError(f"{arguments[0]} gave no result: {output[-500:]!r} {complaints[-500:]!r}")
    result = json.loads(lines[-1])
    took_ns = result["seconds"] * 1e9
    cpu_ns = processes.tree_cpu_ns(before, after)
    errors = sum(result.get(key, 0) for key in ("connect_errors", "read_errors", "write_errors", "timeouts"))
    return Segment(
        request_count=result["requests"],
        seconds=result["seconds"],
        rate=result["requests"] / result["seconds"],
        cpu_us=stats.per_request_us(cpu_ns, result.get("sent", result["requests"])),
        server_busy=cpu_ns / took_ns,
        client_busy=(usage.ru_utime + usage.ru_stime) / result["seconds"],
        steal=max(stats.steal_fraction(before.machine[core], after.machine[core]) for core in cores),
        p50_us=result["p50_us"],
        p99_us=result["p99_us"],
        not_200=result["not_200"],
        error_count=errors + result.get("lost", 0) + result.get("wrong_body", 0),
        mean_us=result.get("mean_us", 0.0),
        bytes_out=result.get("bytes_sent", 0) / max(1, result["requests"]),
        bytes_in=result.get("bytes_received", 0) / max(1, result["requests"]),
    )
