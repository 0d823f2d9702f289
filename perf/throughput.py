"""Cells of CPU per request: P1, P2, P3 (eta against the C floor), P7 (heavy model) and P10 (two workers)."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from perf import clients, stats, wire
from perf.clients import Load, Segment
from perf.ort_floor import OrtFloor
from perf.report import Cell
from perf.subjects import Headrace, HttpFloor, Subject

CONNECTIONS = 64
#: More connections than a batch has rows, so that the next batch can form while one runs.
HEAVY_CONNECTIONS = 128
HEAVY_BATCH = 64


@dataclass(frozen=True)
class Pairs:
    """Neighbouring segments of A and B in the order of measurement, without the pairs disturbed by steal."""

    a: list[Segment]
    b: list[Segment]
    dropped: int

    def details(self) -> dict[str, Any]:
        return {
            "a": [dataclasses.asdict(segment) for segment in self.a],
            "b": [dataclasses.asdict(segment) for segment in self.b],
            "pairs_dropped_for_steal": self.dropped,
        }


def measure_pairs(
    measure_a: Callable[[], Segment], measure_b: Callable[[], Segment], block_count: int, between: Callable[[], None]
) -> Pairs:
    """`block_count` blocks in the order A B (between) B A: two pairs each."""
    a: list[Segment] = []
    b: list[Segment] = []
    for _ in range(block_count):
        a.append(measure_a())
        b.append(measure_b())
        between()
        b.append(measure_b())
        a.append(measure_a())
    kept = stats.keep_quiet_pairs([(one.steal, two.steal) for one, two in zip(a, b, strict=True)])
    return Pairs([a[index] for index in kept], [b[index] for index in kept], len(a) - len(kept))


def floor_like(reply: wire.Reply, load: Load) -> HttpFloor:
    """A C floor that answers as many bytes as the server did."""
    return HttpFloor(reply.head_bytes, len(reply.body), load.server_cpu)


def probe(server: Headrace, request: wire.Request) -> wire.Reply:
    reply = wire.exchange(server.port, request.raw(server.port))
    if reply.status != 200:
        raise RuntimeError(f"{request.path}: expected 200, got {reply.status}: {reply.body[:300]!r}")
    return reply


def check_output(reply: wire.Reply, model: OrtFloor) -> None:
    """A fast wrong answer is no result: the served row must be that of ONNX Runtime in process."""
    check_row(wire.output_row(reply), wire.input_row(), model)


def check_row(served: list[float], row: list[float], model: OrtFloor) -> None:
    expected = model.output(row)
    if len(served) != len(expected) or any(abs(a - b) > 1e-4 for a, b in zip(served, expected, strict=True)):
        raise RuntimeError(f"the server answered {served}, ONNX Runtime in process {expected}")


def warm_up(subject: Subject, request: wire.Request, load: Load) -> None:
    clients.wrk(subject, request, load, connections=CONNECTIONS, seconds=1)


def bad_answers(segments: list[Segment]) -> int:
    return sum(segment.not_200 + segment.error_count for segment in segments)


def complaints(pairs: Pairs) -> str:
    """What makes a cell doubtful, in words."""
    notes = []
    bad = bad_answers(pairs.a + pairs.b)
    if bad:
        notes.append(f"{bad} answers were not 200 or lost")
    if pairs.dropped:
        notes.append(f"{pairs.dropped} pairs dropped for steal")
    if statistics.median(segment.client_busy for segment in pairs.a) > 0.95:
        notes.append("the client's core was full while loading the server")
    return ", ".join(notes)


class Batches:
    """The mean batches that a server formed, one figure a segment; without a model they are 1."""

    def __init__(self, server: Headrace, model: str | None) -> None:
        self._server, self._model = server, model
        self.means: list[float] = []

    def during(self, measure: Callable[[], Segment]) -> Segment:
        if self._model is None:
            return measure()
        before = self._server.counts(self._model)
        segment = measure()
        after = self._server.counts(self._model)
        runs = after.execution_count - before.execution_count
        self.means.append((after.inference_count - before.inference_count) / runs if runs else 1.0)
        return segment

    @property
    def median(self) -> float:
        return statistics.median(self.means) if self.means else 1.0


def eta_cell(
    key: str, pairs: Pairs, batch: float, ort_us: list[float], full: list[Segment], client: str, details: dict[str, Any]
) -> Cell:
    """eta with both terms; `full`: the floor under a client that fills its core, where `client` does not."""
    run_us = statistics.median(ort_us) if ort_us else 0.0
    etas = [stats.efficiency(b.cpu_us, run_us, batch, a.cpu_us) for a, b in zip(pairs.a, pairs.b, strict=True)]
    sock_us = statistics.median(segment.cpu_us for segment in pairs.b)
    server_us = statistics.median(segment.cpu_us for segment in pairs.a)
    rate = statistics.median(segment.rate for segment in pairs.a)
    busy = statistics.median(segment.server_busy for segment in pairs.a)
    floor_busy = statistics.median(segment.server_busy for segment in pairs.b)
    note = f"{client} filled {floor_busy:.0%} of the floor's core"
    if full:
        full_us = statistics.median(segment.cpu_us for segment in full)
        full_eta = stats.efficiency(full_us, run_us, batch, server_us)
        note += f"; filled by the C client: {full_us:.2f} µs, eta {full_eta:.2f}"
        details = {
            "c_sock_full_core_us": full_us,
            "full_core": [dataclasses.asdict(segment) for segment in full],
            **details,
        }
    return Cell(
        key,
        statistics.median(etas),
        f"{server_us:.2f} µs CPU, {rate:,.0f}/s ({busy:.0%} of a core)",
        f"sock {sock_us:.2f}" + (f" + ort {run_us:.1f}/{batch:.1f}" if ort_us else "") + " µs",
        stats.median_interval(etas),
        "; ".join(filter(None, (complaints(pairs), note))),
        bad_answers(pairs.a + pairs.b),
        {
            "cpu_us": server_us,
            "c_sock_us": sock_us,
            "c_ort_us_per_batch": run_us,
            "mean_batch": batch,
            "eta_pairs": etas,
            "rate": rate,
            **details,
            **pairs.details(),
        },
    )


def eta_http(
    key: str, server: Headrace, request: wire.Request, load: Load, blocks: int, model: OrtFloor | None
) -> Cell:
    """P1 (no model), P2, P3: eta with both terms, floor and server in the same block."""
    reply = probe(server, request)
    if model is not None:
        check_output(reply, model)
    batches = Batches(server, request.path.split("/")[3] if model is not None else None)
    ort_us: list[float] = []
    full: list[Segment] = []

    def measure_floors() -> None:
        if model is not None:
            ort_us.append(model.cpu_us(batches.median))
        full.append(clients.http_load(floor, request, load, connections=CONNECTIONS, seconds=1))

    with floor_like(reply, load) as floor:
        warm_up(server, request, load)
        warm_up(floor, request, load)
        pairs = measure_pairs(
            lambda: batches.during(lambda: clients.wrk(server, request, load, connections=CONNECTIONS)),
            lambda: clients.wrk(floor, request, load, connections=CONNECTIONS),
            blocks,
            measure_floors,
        )
    sizes = {"request_bytes": len(request.raw(server.port)), "reply_bytes": reply.head_bytes + len(reply.body)}
    return eta_cell(key, pairs, batches.median, ort_us, full, "wrk", sizes)


def heavy_model(server: Headrace, request: wire.Request, load: Load, blocks: int, model: OrtFloor) -> Cell:
    """P7: rows per second through the server against a bare loop at the largest batch, on the same core."""
    check_output(probe(server, request), model)
    clients.wrk(server, request, load, connections=HEAVY_CONNECTIONS, seconds=1)
    model.run(HEAVY_BATCH)
    name = request.path.split("/")[3]
    served: list[Segment] = []
    loops: list[float] = []
    batches = Batches(server, name)

    def on_server() -> None:
        served.append(batches.during(lambda: clients.wrk(server, request, load, connections=HEAVY_CONNECTIONS)))

    def on_loop() -> None:
        loops.append(HEAVY_BATCH / model.run(HEAVY_BATCH, float(load.segment_s))["wall_us"] * 1e6)

    for _ in range(blocks):
        on_server()
        on_loop()
        on_loop()
        on_server()
    ratios = stats.pair_ratios([segment.rate for segment in served], loops)
    item_us = 1e6 / statistics.median(loops)
    rate = statistics.median(segment.rate for segment in served)
    cpu_us = statistics.median(segment.cpu_us for segment in served)
    return Cell(
        "P7",
        statistics.median(ratios),
        f"{rate:,.0f}/s, {cpu_us:.1f} µs CPU, mean batch {batches.median:.1f}",
        f"loop at {HEAVY_BATCH}: {1e6 / item_us:,.0f}/s, {item_us:.1f} µs",
        stats.median_interval(ratios),
        f"{HEAVY_CONNECTIONS} connections; loop / CPU-µs per request = {item_us / cpu_us:.3f}",
        bad_answers(served),
        {
            "segments": [dataclasses.asdict(segment) for segment in served],
            "loop_rates": loops,
            "mean_batches": batches.means,
        },
    )


def two_workers(one: Headrace, two: Headrace, request: wire.Request, load: Load, blocks: int) -> Cell:
    """P10: the same load on the same core; what a second worker adds to the CPU cost of a request."""
    for server in (one, two):
        probe(server, request)
        warm_up(server, request, load)
    pairs = measure_pairs(
        lambda: clients.wrk(two, request, load, connections=CONNECTIONS),
        lambda: clients.wrk(one, request, load, connections=CONNECTIONS),
        blocks,
        lambda: time.sleep(0.05),
    )
    ratios = stats.pair_ratios([segment.cpu_us for segment in pairs.a], [segment.cpu_us for segment in pairs.b])
    medians = [statistics.median(segment.cpu_us for segment in side) for side in (pairs.a, pairs.b)]
    return Cell(
        "P10",
        statistics.median(ratios),
        f"2 workers {medians[0]:.2f} µs CPU",
        f"1 worker {medians[1]:.2f} µs",
        stats.median_interval(ratios),
        complaints(pairs),
        bad_answers(pairs.a + pairs.b),
        pairs.details(),
    )
