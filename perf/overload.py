"""P11: what is answered in time when more is asked than the server can do, by an open loop.

Capacity is the rate of a closed loop, measured in turns with it. Requests with a deadline of 100 ms (X-Request-Timeout)
fall due at a multiple of it, by Poisson's law, for patient clients and for clients that give up at the deadline and
connect again; an answer counts if it is 200 and within 100 ms of when its request was due. P11a: a model of about 1 ms
an item, where refusing is cheap. P11b: the MLP, where it costs nearly what serving does.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
from dataclasses import dataclass
from typing import Any

from perf import build, clients, processes
from perf.clients import Load
from perf.report import Cell
from perf.subjects import Headrace
from perf.wire import Request, get

DEADLINE_MS = 100
#: Layers of 512 x 512 that take about a millisecond an item in a batch.
LAYERS = 200
WARM_UP_S = 1.0
#: A closed loop answers whole batches: in a second of 16 batches of 64 rows one more or less is 6 % of its rate.
CAPACITY_FACTOR = 4
#: Capacity and overload are measured in turns, for both change with whatever else the machine does.
ROUNDS = 3
#: A client that sends so late has measured itself.
MAX_SEND_LAG_US = 10_000


@dataclass(frozen=True)
class Pattern:
    """How clients reach the server: in the closed loop connections with `pipeline` requests each, in the open loop
    `open_connections`, of requests that are due together up to `burst` on one.
    """

    connections: int
    pipeline: int
    open_connections: int
    burst: int


#: One request at a time on each connection.
SLOW = Pattern(128, 1, 512, 1)
#: As behind a proxy: one core cannot make twice of what the server answers with a write for each request.
FAST = Pattern(128, 4, 128, 4)


def capacity(server: Headrace, request: Request, load: Load, pattern: Pattern) -> float:
    """Requests per second in a closed loop, without deadlines."""
    segment = clients.http_load(
        server,
        request,
        load,
        connections=pattern.connections,
        pipeline=pattern.pipeline,
        seconds=float(CAPACITY_FACTOR * load.segment_s),
        warm_up_s=0.3,
    )
    return segment.rate


def with_deadline(request: Request) -> Request:
    headers = {**request.headers, "X-Request-Timeout": f"{DEADLINE_MS}ms"}
    return Request(f"{request.name}_deadline", request.script, request.path, request.body, headers, request.json_bytes)


def open_loop(
    server: Headrace, request: Request, load: Load, pattern: Pattern, rate: float, *, gives_up: bool
) -> dict[str, Any]:
    """One run of the C client: its line of JSON."""
    file = load.folder / f"{request.name}.request"
    file.write_bytes(request.raw(server.port))
    arguments = [str(build.program("open_loop")), "-p", str(server.port), "-r", str(file), "-R", f"{rate:.1f}"]
    arguments += ["-c", str(pattern.open_connections), "-b", str(pattern.burst), "-D", str(DEADLINE_MS)]
    arguments += ["-w", str(WARM_UP_S), "-d", str(2 * load.segment_s), *(["-g"] if gives_up else [])]
    done = subprocess.run(
        arguments,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, {load.client_cpu}),
    )
    if done.returncode or not done.stdout.startswith("{"):
        raise RuntimeError(f"open_loop gave no result: {done.stdout[-300:]!r} {done.stderr[-300:]!r}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def counters(server: Headrace) -> tuple[float, float, float]:
    """Rows whose run began after their deadline, whose run ended after it, and all rows that were answered."""
    page = get(server.metrics_port, "/metrics").body.decode()
    names = ("headrace_late_executions_total", "headrace_outlived_executions_total", "headrace_inferences_total")
    late, outlived, rows = (
        sum(float(line.rsplit(" ", 1)[1]) for line in page.splitlines() if line.startswith(name + "{"))
        for name in names
    )
    return late, outlived, rows


@dataclass
class Rounds:
    """What overload() measured, round by round; names are those of the clients."""

    peaks: list[float]
    runs: dict[str, list[dict[str, Any]]]

    def goodput(self, number: int) -> float:
        """In one round, of the clients that got less."""
        return min(float(runs[number]["goodput"]) for runs in self.runs.values())

    def ratios(self) -> list[float]:
        return [self.goodput(number) / peak for number, peak in enumerate(self.peaks)]

    def all(self) -> list[dict[str, Any]]:
        return [run for runs in self.runs.values() for run in runs]

    def notes(self) -> list[str]:
        refused_p99_ms = statistics.median(run["refused_p99_us"] for run in self.all()) / 1e3
        recovery_ms = max(run["recovery_ms"] if run["recovery_ms"] >= 0 else 5000.0 for run in self.all())
        of_peak = {
            name: statistics.median(run["goodput"] / peak for run, peak in zip(runs, self.peaks, strict=True))
            for name, runs in self.runs.items()
        }
        notes = [*(f"{name} {ratio:.2f}" for name, ratio in of_peak.items())]
        notes += [f"refusals p99 {refused_p99_ms:.1f} ms", f"back to normal after {recovery_ms:.0f} ms"]
        unsent = sum(run["unsent"] for run in self.all()) / sum(run["offered"] for run in self.all())
        if unsent:
            notes.append(f"{unsent:.1%} not sent, for 512 others waited on the connection")
        if any(run["send_lag_p99_us"] > MAX_SEND_LAG_US for run in self.all()):
            notes.append("THE CLIENT WAS LATE: its figures are its own")
        return notes


def overload(key: str, server: Headrace, request: Request, load: Load, pattern: Pattern, factor: float) -> Cell:
    """Goodput at `factor` times the capacity over that capacity; the worse of patient and impatient clients."""
    measured = Rounds([], {"patient": [], "give up": []})
    capacity(server, request, load, pattern)
    before_bytes = sum(processes.pss_bytes(server.pids()).values())
    before = counters(server)
    for _ in range(ROUNDS):
        measured.peaks.append(capacity(server, request, load, pattern))
        for name, runs in measured.runs.items():
            rate = factor * measured.peaks[-1]
            runs.append(open_loop(server, with_deadline(request), load, pattern, rate, gives_up=name == "give up"))
    late, outlived, rows = (after - then for after, then in zip(counters(server), before, strict=True))
    time.sleep(1.5)  # what a burst needed is given back at the worker's next tick
    after_bytes = sum(processes.pss_bytes(server.pids()).values())
    served_p99_ms = statistics.median(run["served_p99_us"] for run in measured.all()) / 1e3
    notes = [
        *measured.notes(),
        f"begun after their deadline {late / max(1.0, rows):.2%} of rows",
        f"ended after it {outlived / max(1.0, rows):.2%}",
        f"memory {after_bytes / before_bytes - 1:+.0%}",
    ]
    if served_p99_ms > DEADLINE_MS:
        notes.append(f"p99 of answers {served_p99_ms:.0f} ms is above the deadline")
    ratios = measured.ratios()
    middle = ratios.index(statistics.median(ratios))
    return Cell(
        key,
        ratios[middle],
        f"{measured.goodput(middle):,.0f}/s in time at {factor:g}x, p99 {served_p99_ms:.0f} ms",
        f"closed-loop peak {measured.peaks[middle]:,.0f}/s",
        (min(ratios), max(ratios)),
        note=", ".join(notes),
        bad_answers=sum(int(run["other"]) + int(run["lost"]) + int(run["unanswered"]) for run in measured.all()),
        details={
            "peaks": measured.peaks,
            "runs": measured.runs,
            "memory_bytes": [before_bytes, after_bytes],
            "late_rows": late,
            "outlived_rows": outlived,
            "answered_rows": rows,
        },
    )
