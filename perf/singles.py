"""Cells that are not rates: P6 latency, P12 idle, P13 system calls, P14 start, P15 memory."""

from __future__ import annotations

import dataclasses
import statistics
import time
from pathlib import Path

from perf import clients, processes, stats, syscalls, wire
from perf.clients import Load, Segment
from perf.ort_floor import OrtFloor
from perf.report import Cell
from perf.subjects import Headrace
from perf.throughput import CONNECTIONS, bad_answers, check_output, floor_like, measure_pairs, probe


def added_latency(key: str, server: Headrace, request: wire.Request, load: Load, blocks: int, model: OrtFloor) -> Cell:
    """P6: p50 at one connection less p50 of the C floor and the time of one run at batch 1; C client.

    The client spins: waking a sleeping client costs 20 to 50 µs in a virtual machine, varies, and is not the server's.
    """
    reply = probe(server, request)
    check_output(reply, model)
    seconds = float(load.segment_s)
    runs_us: list[float] = []

    with floor_like(reply, load) as floor:
        pairs = measure_pairs(
            lambda: clients.http_load(server, request, load, seconds=seconds, warm_up_s=0.3, spin=True),
            lambda: clients.http_load(floor, request, load, seconds=seconds, warm_up_s=0.3, spin=True),
            blocks,
            lambda: runs_us.append(model.run(1)["wall_p50_us"]),
        )
    run_us = statistics.median(runs_us)
    added = [a.p50_us - b.p50_us - run_us for a, b in zip(pairs.a, pairs.b, strict=True)]
    p50, floor_p50 = (statistics.median(segment.p50_us for segment in side) for side in (pairs.a, pairs.b))
    p99 = statistics.median(segment.p99_us for segment in pairs.a)
    bad = bad_answers(pairs.a)
    return Cell(
        key,
        statistics.median(added),
        f"p50 {p50:.1f} µs, p99 {p99:.0f} µs",
        f"p50 {floor_p50:.1f} + T(1) {run_us:.1f} µs",
        stats.median_interval(added),
        f"{bad} answers were not 200 or lost" if bad else "",
        bad,
        {"added_pairs_us": added, "t1_us": run_us, **pairs.details()},
    )


def idle(server: Headrace, load: Load, seconds: float) -> Cell:
    """P12: CPU time of the tree while nobody asks, as a share of one core."""
    time.sleep(1.0)
    cores = (load.server_cpu, load.client_cpu)
    before = processes.snapshot(server.root, cores)
    time.sleep(seconds)
    after = processes.snapshot(server.root, cores)
    share = processes.tree_cpu_ns(before, after) / (after.at_ns - before.at_ns) * 100
    names = processes.names(list(after.cpu_ns))
    by_process = {
        f"{names.get(pid, '?')} {pid}": (after.cpu_ns[pid] - before.cpu_ns.get(pid, 0)) / 1e6 for pid in after.cpu_ns
    }
    worst = max(by_process, key=lambda name: by_process[name])
    return Cell(
        "P12",
        share,
        f"{share:.3f} % of a core over {seconds:.0f} s",
        note=f"most of it: {worst.split()[0]} {by_process[worst]:.2f} ms" if by_process[worst] > 0 else "",
        details={"cpu_ms_by_process": by_process, "seconds": seconds},
    )


def system_calls(server: Headrace, request: wire.Request, load: Load) -> Cell:
    """P13: system calls of all processes of the server per answered request, under load."""
    segment: list[Segment] = []
    counted = syscalls.count(
        server.pids(), lambda: segment.append(clients.wrk(server, request, load, connections=CONNECTIONS, seconds=2))
    )
    requests = segment[0].request_count
    per_request = counted.total / requests
    top = sorted(counted.by_name.items(), key=lambda item: -item[1])[:6]
    return Cell(
        "P13",
        per_request,
        f"{counted.total:,} calls / {requests:,} requests",
        note=f"by {counted.method}: " + ", ".join(f"{name} {calls / requests:.2f}" for name, calls in top),
        details={
            "method": counted.method,
            "by_name_per_request": {name: calls / requests for name, calls in counted.by_name.items()},
            "segment": dataclasses.asdict(segment[0]),
        },
    )


def start(key: str, command: list[str], folder: Path, count: int) -> Cell:
    """P14: exec to the first 200 of /v2/health/ready, demo model, all cores, warm cache; median."""
    seconds = []
    for attempt in range(count + 1):
        with Headrace(command, None, folder / f"{key}.log", workers=None) as server:
            if attempt:  # the first start warms the page cache
                seconds.append(server.start_to_ready_s)
    return Cell(
        key,
        statistics.median(seconds),
        f"median {statistics.median(seconds):.3f} s of {count}, slowest {max(seconds):.3f} s",
        details={"seconds": seconds, "command": command},
    )


def memory(server: Headrace) -> Cell:
    """P15: PSS of the tree, ready, before any load."""
    by_process = processes.pss_bytes(server.pids())
    names = processes.names(list(by_process))
    total_mb = sum(by_process.values()) / 1e6
    parts = ", ".join(f"{names[pid]} {size / 1e6:.0f}" for pid, size in by_process.items())
    return Cell(
        "P15",
        total_mb,
        f"{total_mb:.1f} MB in {len(by_process)} processes",
        note=f"MB: {parts}",
        details={"pss_bytes": {f"{names[pid]} {pid}": size for pid, size in by_process.items()}},
    )
