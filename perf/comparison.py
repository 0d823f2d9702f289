"""The table gRPC against REST: the same model, the same row, equal load, three ways to ask.

Closed loop: as many requests in flight on each side. Open loop: one rate for all three, half of what the slowest can
do, latencies from the moment a request was due; the client polls, so its own waking up is not in them.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from perf import clients, wire
from perf.clients import Load, Segment
from perf.grpc_cells import probe_grpc
from perf.ort_floor import OrtFloor
from perf.subjects import Headrace
from perf.throughput import bad_answers, check_output, probe

#: In flight: 64 connections of HTTP/1.1, 4 of gRPC with 16 streams.
CONNECTIONS, GRPC_CONNECTIONS, STREAMS = 64, 4, 16
OPEN_SHARE = 0.5
HEADERS = ("loop", "protocol", "QPS", "mean µs", "p99 µs", "bytes out", "bytes in", "CPU-µs a call", "bad")


@dataclass(frozen=True)
class Row:
    """One protocol under one kind of load: medians over its segments."""

    loop: str
    protocol: str
    segments: list[Segment] = field(default_factory=list)

    def median(self, figure: str) -> float:
        return float(statistics.median(getattr(segment, figure) for segment in self.segments))

    def texts(self) -> tuple[str, ...]:
        return (
            self.loop,
            self.protocol,
            f"{self.median('rate'):,.0f}",
            f"{self.median('mean_us'):,.0f}",
            f"{self.median('p99_us'):,.0f}",
            f"{self.median('bytes_out'):,.0f}",
            f"{self.median('bytes_in'):,.0f}",
            f"{self.median('cpu_us'):.2f}",
            str(bad_answers(self.segments)),
        )


def table(rows: list[Row]) -> str:
    lines = [HEADERS, *(row.texts() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADERS))]
    texts = []
    for line in lines:
        left = [line[column].ljust(widths[column]) for column in (0, 1)]
        texts.append("  ".join(left + [line[column].rjust(widths[column]) for column in range(2, len(HEADERS))]))
    texts.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(texts)


def record(rows: list[Row]) -> list[dict[str, Any]]:
    figures = ("rate", "mean_us", "p50_us", "p99_us", "bytes_out", "bytes_in", "cpu_us", "client_busy", "server_busy")
    return [
        {
            "loop": row.loop,
            "protocol": row.protocol,
            "bad_answers": bad_answers(row.segments),
            **{figure: row.median(figure) for figure in figures},
            "segments": [dataclasses.asdict(segment) for segment in row.segments],
        }
        for row in rows
    ]


def measure(server: Headrace, load: Load, blocks: int, model: OrtFloor) -> list[Row]:
    """Rounds over the three protocols, in turning order; first closed, then open."""
    binary, json_request, call = wire.infer_binary("mlp"), wire.infer_json("mlp"), wire.infer_grpc("mlp")
    for request in (binary, json_request):
        check_output(probe(server, request), model)
    expected = probe_grpc(server, call, load, model=model)
    seconds = float(load.segment_s)

    def http(request: wire.Request, rate: float) -> Segment:
        return clients.http_load(
            server, request, load, connections=CONNECTIONS, seconds=seconds, warm_up_s=0.3, rate=rate
        )

    def grpc(rate: float) -> Segment:
        return clients.h2_load(
            server,
            call,
            load,
            connections=GRPC_CONNECTIONS,
            streams=STREAMS,
            seconds=seconds,
            warm_up_s=0.3,
            expected=expected,
            rate=rate,
        )

    protocols: dict[str, Callable[[float], Segment]] = {
        "gRPC": grpc,
        "REST binary": lambda rate: http(binary, rate),
        "REST JSON": lambda rate: http(json_request, rate),
    }
    names = list(protocols)

    def rounds(loop: str, rate: float) -> list[Row]:
        rows = {name: Row(loop, name) for name in names}
        for turn in range(2 * blocks):
            for name in names[turn % 3 :] + names[: turn % 3]:
                rows[name].segments.append(protocols[name](rate))
        return list(rows.values())

    closed = rounds(f"closed, {CONNECTIONS} in flight", 0.0)
    rate = OPEN_SHARE * min(row.median("rate") for row in closed)
    return closed + rounds(f"open, {rate:,.0f}/s", rate)
