"""Cells of large requests: P8 (tensors of 1 MiB, binary and gRPC) and P9 (JSON numbers).

Their model keeps 10 columns of a wide row, so that it costs next to nothing: what is measured is how a large tensor
comes in.
"""

from __future__ import annotations

import json
import statistics
import subprocess
from collections.abc import Callable

from perf import build, clients, processes, stats, wire
from perf.clients import Load, Segment
from perf.grpc_cells import probe_grpc
from perf.ort_floor import OrtFloor
from perf.report import Cell
from perf.subjects import Floor, GrpcFloor, Headrace, HttpFloor
from perf.throughput import bad_answers, check_row, complaints, measure_pairs, probe
from tests.support.onnx_writer import Graph

#: FP32 values of one row: 1 MiB of tensor, and about 0.7 MB of JSON.
TENSOR_WIDTH, JSON_WIDTH = 262144, 65536
OUTPUT_WIDTH = 10
CONNECTIONS = 4
#: A row is large: few of them wait, and a batch is small.
SERVER_OPTIONS = ("--max-batch-size", "4", "--queue-rows", "32")


def first_columns(width: int) -> bytes:
    """`x` FP32 [-1, width] -> Slice -> `y` FP32 [-1, 10]."""
    graph = Graph("first_columns")
    graph.input("x", "FP32", [-1, width])
    for name, value in (("starts", 0), ("ends", OUTPUT_WIDTH), ("axes", 1)):
        graph.integers(name, [value])
    graph.node("Slice", ["x", "starts", "ends", "axes"], ["y"])
    graph.output("y", "FP32", [-1, OUTPUT_WIDTH])
    return graph.model()


def _tensor_cell(
    key: str, server: Headrace, floor: Floor, floor_name: str, blocks: int, on: Callable[[Headrace | Floor], Segment]
) -> Cell:
    """Bytes of tensor per CPU-second, server over floor."""
    on(server)
    on(floor)
    pairs = measure_pairs(lambda: on(server), lambda: on(floor), blocks, lambda: None)
    ratios = stats.pair_ratios([segment.cpu_us for segment in pairs.b], [segment.cpu_us for segment in pairs.a])
    server_us, floor_us = (statistics.median(segment.cpu_us for segment in side) for side in (pairs.a, pairs.b))
    size = 4 * TENSOR_WIDTH
    rate = statistics.median(segment.rate for segment in pairs.a)
    return Cell(
        key,
        statistics.median(ratios),
        f"{size / server_us / 1e3:.2f} GB per CPU-second, {server_us:.0f} µs CPU, {rate * size / 1e9:.2f} GB/s",
        f"{floor_name}: {size / floor_us / 1e3:.2f} GB, {floor_us:.0f} µs",
        stats.median_interval(ratios),
        complaints(pairs),
        bad_answers(pairs.a + pairs.b),
        pairs.details(),
    )


def tensors_http(server: Headrace, load: Load, blocks: int, model: OrtFloor) -> Cell:
    """P8: a binary tensor of 1 MiB against a C server that receives it into shared memory."""
    row = wire.input_row(TENSOR_WIDTH)
    request = wire.infer_binary("wide", row)
    reply = probe(server, request)
    check_row(wire.output_row(reply), row, model)
    receive_bytes = 2 * len(request.body)

    def on(subject: Headrace | Floor) -> Segment:
        return clients.http_load(subject, request, load, connections=CONNECTIONS, seconds=float(load.segment_s))

    with HttpFloor(reply.head_bytes, len(reply.body), load.server_cpu, receive_bytes) as floor:
        return _tensor_cell("P8", server, floor, "C receive", blocks, on)


def tensors_grpc(server: Headrace, load: Load, blocks: int, model: OrtFloor) -> Cell:
    """P8g: the same tensor by gRPC against libnghttp2 in C, whose data is copied into shared memory once."""
    row = wire.input_row(TENSOR_WIDTH)
    call = wire.infer_grpc("wide", row, OUTPUT_WIDTH)
    expected = probe_grpc(server, call, load, row, model)

    def on(subject: Headrace | Floor) -> Segment:
        seconds = float(load.segment_s)
        return clients.h2_load(subject, call, load, connections=CONNECTIONS, seconds=seconds, expected=expected)

    with GrpcFloor(expected, load.server_cpu) as floor:
        return _tensor_cell("P8g", server, floor, "C libnghttp2", blocks, on)


def json_numbers(server: Headrace, load: Load, blocks: int, model: OrtFloor) -> Cell:
    """P9: numbers read per CPU-second by the whole server against a bare std::from_chars loop over the same text."""
    row = wire.input_row(JSON_WIDTH)
    request = wire.infer_json("numbers", row)
    check_row(wire.output_row(probe(server, request)), row, model)
    text = load.folder / "numbers.json"
    text.write_text(json.dumps(row, separators=(",", ":")))
    seconds = float(load.segment_s)
    cores = (load.server_cpu, load.client_cpu)
    steals: list[tuple[float, float]] = []
    served: list[Segment] = []
    floors_ns: list[float] = []

    def on_server() -> None:
        served.append(clients.http_load(server, request, load, connections=CONNECTIONS, seconds=seconds))

    def on_floor() -> None:
        before = [processes.machine_times(core) for core in cores]
        command = ["taskset", "-c", str(load.server_cpu), str(build.program("float_floor")), str(text), "0.5"]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        after = [processes.machine_times(core) for core in cores]
        floors_ns.append(json.loads(output)["ns_per_number"])
        stolen = max(stats.steal_fraction(a, b) for a, b in zip(before, after, strict=True))
        steals.append((served[-1].steal, stolen))

    on_server()
    served.clear()
    for _ in range(2 * blocks):
        on_server()
        on_floor()
    kept = stats.keep_quiet_pairs(steals)
    ns = [segment.cpu_us * 1e3 / JSON_WIDTH for segment in served]
    ratios = [floors_ns[index] / ns[index] for index in kept]
    server_ns, floor_ns = statistics.median(ns), statistics.median(floors_ns)
    bad = bad_answers(served)
    return Cell(
        "P9",
        statistics.median(ratios),
        f"{1e3 / server_ns:.1f} Mfloat per CPU-second, {server_ns:.1f} ns a number with everything",
        f"from_chars: {1e3 / floor_ns:.1f} Mfloat/s, {floor_ns:.1f} ns",
        stats.median_interval(ratios),
        f"{len(request.body) / JSON_WIDTH:.1f} characters a number; receiving and routing them is in the figure",
        bad,
        {"ns_per_number": ns, "floor_ns_per_number": floors_ns, "pairs_dropped_for_steal": len(steals) - len(kept)},
    )
