"""Cells of gRPC: P4 (eta against a C floor on libnghttp2) and P5 (gRPC against our own HTTP/1.1)."""

from __future__ import annotations

import statistics
from pathlib import Path

from perf import clients, stats, wire
from perf.clients import Load, Segment
from perf.ort_floor import OrtFloor
from perf.report import Cell
from perf.subjects import GrpcFloor, Headrace
from perf.throughput import (
    Batches,
    bad_answers,
    check_output,
    check_row,
    complaints,
    eta_cell,
    measure_pairs,
    probe,
)

CONNECTIONS, STREAMS = 16, 16


def probe_grpc(
    server: Headrace, call: wire.Call, load: Load, row: list[float] | None = None, model: OrtFloor | None = None
) -> Path:
    """Asks once; the file that holds the reply's message, checked against ONNX Runtime in process."""
    file = load.folder / f"{call.name}.reply"
    segment = clients.h2_load(server, call, load, request_count=1, first_reply=file)
    if bad_answers([segment]):
        raise RuntimeError(f"{call.path}: the call failed; `h2_load` says why above")
    if model is not None:
        check_row(wire.output_of_message(file.read_bytes(), call.output_width), row or wire.input_row(), model)
    return file


def eta_grpc(server: Headrace, call: wire.Call, load: Load, blocks: int, model: OrtFloor) -> Cell:
    """P4: 16 connections of 16 streams; every reply of both sides is compared with the one that was checked."""
    expected = probe_grpc(server, call, load, model=model)
    batches = Batches(server, call.name.partition("_")[2])
    ort_us: list[float] = []
    seconds = float(load.segment_s)

    def on(subject: Headrace | GrpcFloor, length_s: float = seconds) -> Segment:
        return clients.h2_load(
            subject, call, load, connections=CONNECTIONS, streams=STREAMS, seconds=length_s, expected=expected
        )

    with GrpcFloor(expected, load.server_cpu) as floor:
        on(server, 1.0)
        on(floor, 1.0)
        pairs = measure_pairs(
            lambda: batches.during(lambda: on(server)),
            lambda: on(floor),
            blocks,
            lambda: ort_us.append(model.cpu_us(batches.median)),
        )
    sizes = {"request_bytes": pairs.a[0].bytes_out, "reply_bytes": pairs.a[0].bytes_in}
    return eta_cell("P4", pairs, batches.median, ort_us, [], "h2_load", sizes)


def against_http(
    server: Headrace, call: wire.Call, request: wire.Request, load: Load, blocks: int, model: OrtFloor
) -> Cell:
    """P5: calls per CPU-second, gRPC 16 × 16 against HTTP/1.1 binary with as many requests in flight."""
    check_output(probe(server, request), model)
    expected = probe_grpc(server, call, load, model=model)
    seconds = float(load.segment_s)
    in_flight = CONNECTIONS * STREAMS

    def on_grpc() -> Segment:
        return clients.h2_load(
            server, call, load, connections=CONNECTIONS, streams=STREAMS, seconds=seconds, expected=expected
        )

    fewer: list[Segment] = []
    pairs = measure_pairs(
        on_grpc,
        lambda: clients.http_load(server, request, load, connections=in_flight, seconds=seconds),
        blocks,
        lambda: fewer.append(clients.http_load(server, request, load, connections=64, seconds=1.0)),
    )
    ratios = stats.pair_ratios([segment.cpu_us for segment in pairs.b], [segment.cpu_us for segment in pairs.a])
    grpc_us, http_us = (statistics.median(segment.cpu_us for segment in side) for side in (pairs.a, pairs.b))
    fewer_us = statistics.median(segment.cpu_us for segment in fewer)
    note = f"HTTP with 64 connections: {fewer_us:.2f} µs, {fewer_us / grpc_us:.2f}x"
    return Cell(
        "P5",
        statistics.median(ratios),
        f"gRPC {grpc_us:.2f} µs CPU a call",
        f"HTTP/1.1 binary, {in_flight} connections: {http_us:.2f} µs",
        stats.median_interval(ratios),
        "; ".join(filter(None, (complaints(pairs), note))),
        bad_answers(pairs.a + pairs.b + fewer),
        pairs.details(),
    )
