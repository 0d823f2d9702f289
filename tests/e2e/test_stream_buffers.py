"""Streams hand their buffers on: whatever size came before and beside, each call is answered from its own bytes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from perf import build, wire
from tests.support.onnx_writer import Graph, write_repository
from tests.support.server import running

pytestmark = pytest.mark.slow

#: FP32 values of a row: one that fits a small buffer, one that needs a large one, one larger than any that is kept.
WIDTHS = {"narrow": 64, "wide": 1 << 18, "widest": 5 << 18}
SAMPLE_COUNT = 16


def samples(width: int) -> bytes:
    """`x` FP32 [-1, width] -> every (width / 16)th column: a byte of another call anywhere would show."""
    graph = Graph("samples")
    graph.input("x", "FP32", [-1, width])
    for name, value in (("starts", 0), ("ends", width), ("axes", 1), ("steps", width // SAMPLE_COUNT)):
        graph.integers(name, [value])
    graph.node("Slice", ["x", "starts", "ends", "axes", "steps"], ["y"])
    graph.output("y", "FP32", [-1, SAMPLE_COUNT])
    return graph.model()


def test_calls_of_all_sizes_at_once_get_their_own_answers(tmp_path: Path) -> None:
    models = write_repository(tmp_path / "models", {name: samples(width) for name, width in WIDTHS.items()})
    options = ("--workers", "1", "--max-batch-size", "2", "--queue-rows", "32")
    with running(models, *options) as server:
        clients = []
        for seed, (name, width) in enumerate([*WIDTHS.items(), *list(WIDTHS.items())[:2]]):
            row = wire.input_row(width, seed)
            call = wire.infer_grpc(name, row, SAMPLE_COUNT)
            request, first = (tmp_path / f"{seed}.{kind}" for kind in ("request", "reply"))
            request.write_bytes(call.message)
            command = [str(build.program("h2_load")), "-p", str(server.port), "-u", call.path, "-r", str(request)]
            subprocess.run([*command, "-n", "1", "-o", str(first)], check=True, capture_output=True)
            served = wire.output_of_message(first.read_bytes(), SAMPLE_COUNT)
            assert served == pytest.approx(row[:: width // SAMPLE_COUNT], abs=1e-7)
            count = "60" if name != "narrow" else "2000"
            check = ["-e", str(first), "-f", str(SAMPLE_COUNT), "-c", "2", "-m", "2", "-n", count]
            clients.append(subprocess.Popen([*command, *check], stdout=subprocess.PIPE, text=True))
        for client in clients:
            output, _ = client.communicate(timeout=60)
            result = json.loads(output)
            assert (result["not_200"], result["wrong_body"], result["lost"]) == (0, 0, 0), result
            assert result["requests"] == result["sent"] > 0
