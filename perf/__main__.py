"""`python -m perf`: measures the cells of the performance targets and prints them beside their floors.

    python -m perf [--quick | --full] [--cells P1,P2,...] [--command "dist/headrace"]

Core 0 runs the server's whole tree (or the floor), core 1 the load. The exit status is 0 also when a target is missed:
the table says MISSED.
"""

from __future__ import annotations

import argparse
import functools
import json
import shlex
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from perf import (
    build,
    comparison,
    grpc_cells,
    large,
    loading,
    overload,
    processes,
    report,
    singles,
    throughput,
    wire,
)
from perf.clients import Load
from perf.ort_floor import OrtFloor
from perf.report import Cell
from perf.subjects import Headrace
from tests.support import onnx_writer

SERVER_CPU, CLIENT_CPU = 0, 1
#: A row of the heavy model costs about 25 times the socket work of its request.
HEAVY_LAYERS = 32
COMPARISON = "GRPC_VS_REST"
#: In the order in which they are reported.
ALL_CELLS = (*(f"P{n}" for n in range(1, 11)), "P11A", "P11B", *(f"P{n}" for n in (12, 13, 14, 15, 17)), COMPARISON)
#: name -> (seconds of a segment, blocks of four segments, idle seconds, starts)
MODES = {"quick": (1, 1, 5.0, 3), "default": (2, 3, 10.0, 5), "full": (5, 5, 10.0, 5)}


class Session:
    """One run: its folder, its models, the cells measured so far."""

    def __init__(self, command: list[str], mode: str, wanted: set[str], folder: Path) -> None:
        self.command, self.wanted, self.folder = command, wanted, folder
        segment_s, self.blocks, self.idle_s, self.start_count = MODES[mode]
        self.load = Load(SERVER_CPU, CLIENT_CPU, folder, segment_s)
        self.models = onnx_writer.write_repository(folder / "mlp_only", {"mlp": onnx_writer.mlp()})
        heavy = onnx_writer.heavy(layers=HEAVY_LAYERS)
        self.heavy_models = onnx_writer.write_repository(folder / "heavy_only", {"heavy": heavy})
        wide = {"wide": large.first_columns(large.TENSOR_WIDTH), "numbers": large.first_columns(large.JSON_WIDTH)}
        self.large_models = onnx_writer.write_repository(folder / "large_only", wide)
        self.cells: list[Cell] = []
        self.comparison: list[comparison.Row] = []

    def wants(self, *keys: str) -> bool:
        return any(key in self.wanted for key in keys)

    def measure(self, key: str, target: str, what: Callable[[], Cell]) -> None:
        """One cell; if it cannot be measured the others still are."""
        if not self.wants(key):
            return
        try:
            cell = what()
        except (RuntimeError, OSError, ValueError, KeyError) as error:
            cell = Cell(target, None, "-", note=str(error), details={"traceback": traceback.format_exc()})
        self.cells.append(cell)
        print(report.line(cell), flush=True)

    def server(self, models: Path, workers: int = 1, extra: tuple[str, ...] = ()) -> Headrace:
        log = self.folder / f"server_{models.name}_{workers}.log"
        return Headrace(self.command, models, log, workers=workers, cpus={SERVER_CPU}, extra=extra)

    def run(self) -> None:
        for part, keys in (
            (self.small_model, ("P1", "P2", "P3", "P4", "P5", "P6", "P10", "P12", "P13", "P15", COMPARISON)),
            (self.heavy_model, ("P7",)),
            (self.large_tensors, ("P8", "P9")),
            (self.loads, ("P17",)),
            (self.slow_model, ("P11A",)),
            (self.cheap_model, ("P11B",)),
            (self.starts, ("P14",)),
        ):
            if self.wants(*keys):
                try:
                    part()
                except (RuntimeError, OSError, ValueError) as error:
                    print(f"{', '.join(key for key in keys if self.wants(key))}: not measured: {error}", flush=True)
                    measured = {cell.key for cell in self.cells}
                    missing = [key for key in keys if self.wants(key) and key not in measured and key in report.TARGETS]
                    self.cells += [Cell(key, None, "-", note=str(error)) for key in missing]

    def small_model(self) -> None:
        load, blocks = self.load, self.blocks
        json_request, binary_request = wire.infer_json("mlp"), wire.infer_binary("mlp")
        mlp_file = self.models / "mlp" / "1" / "model.onnx"
        with self.server(self.models) as server, OrtFloor(mlp_file, SERVER_CPU) as model:
            model.run(1)
            time.sleep(0.5)
            self.measure("P15", "P15", lambda: singles.memory(server))
            self.measure("P1", "P1", lambda: throughput.eta_http("P1", server, wire.health(), load, blocks, None))
            self.measure("P2", "P2", lambda: throughput.eta_http("P2", server, binary_request, load, blocks, model))
            self.measure("P3", "P3", lambda: throughput.eta_http("P3", server, json_request, load, blocks, model))
            call = wire.infer_grpc("mlp")
            self.measure("P4", "P4", lambda: grpc_cells.eta_grpc(server, call, load, blocks, model))
            self.measure("P5", "P5", lambda: grpc_cells.against_http(server, call, binary_request, load, blocks, model))
            if self.wants(COMPARISON):
                self.comparison = comparison.measure(server, load, blocks, model)
            self.measure("P6", "P6", lambda: singles.added_latency("P6", server, binary_request, load, blocks, model))
            self.measure("P6", "P6j", lambda: singles.added_latency("P6j", server, json_request, load, blocks, model))
            self.measure("P13", "P13", lambda: singles.system_calls(server, binary_request, load))
            self.measure("P12", "P12", lambda: singles.idle(server, load, self.idle_s))
            if self.wants("P10"):
                with self.server(self.models, workers=2) as two:
                    measured = functools.partial(throughput.two_workers, server, two, binary_request, load, blocks)
                    self.measure("P10", "P10", measured)

    def heavy_model(self) -> None:
        file = self.heavy_models / "heavy" / "1" / "model.onnx"
        request = wire.infer_binary("heavy")
        with self.server(self.heavy_models) as server, OrtFloor(file, SERVER_CPU) as model:
            self.measure("P7", "P7", lambda: throughput.heavy_model(server, request, self.load, self.blocks, model))

    def slow_model(self) -> None:
        slow = onnx_writer.heavy(layers=overload.LAYERS)
        models = onnx_writer.write_repository(self.folder / "slow_only", {"slow": slow})
        request = wire.infer_binary("slow")
        with self.server(models) as server:
            for key, factor in (("P11a", 2.0), ("P11x", 10.0)):
                measured = functools.partial(overload.overload, key, server, request, self.load, overload.SLOW, factor)
                self.measure("P11A", key, measured)

    def cheap_model(self) -> None:
        request = wire.infer_json("mlp")
        with self.server(self.models) as server:
            measured = functools.partial(overload.overload, "P11b", server, request, self.load, overload.FAST, 2.0)
            self.measure("P11B", "P11b", measured)

    def large_tensors(self) -> None:
        load, blocks = self.load, self.blocks
        wide, numbers = (self.large_models / name / "1" / "model.onnx" for name in ("wide", "numbers"))
        with self.server(self.large_models, extra=large.SERVER_OPTIONS) as server:
            with OrtFloor(wide, SERVER_CPU) as model:
                self.measure("P8", "P8", lambda: large.tensors_http(server, load, blocks, model))
                self.measure("P8", "P8g", lambda: large.tensors_grpc(server, load, blocks, model))
            with OrtFloor(numbers, SERVER_CPU) as model:
                self.measure("P9", "P9", lambda: large.json_numbers(server, load, blocks, model))

    def loads(self) -> None:
        models = loading.write_models(self.folder / "loading", onnx_writer.mlp())
        request = wire.infer_binary("mlp")
        with self.server(models, extra=loading.SERVER_OPTIONS) as server:
            heavy, pair_count = models / loading.HEAVY / "1" / "model.onnx", 4 * self.blocks
            # Who asks for the loads is not to be on the server's core.
            with processes.on_cpu(CLIENT_CPU):
                self.measure("P17", "P17", lambda: loading.beside_a_load(server, request, self.load, heavy, pair_count))

    def starts(self) -> None:
        commands = {"P14s": self.command}
        for key, built in (("P14d", "dist/headrace-onedir/headrace"), ("P14f", "dist/headrace")):
            if (build.ROOT / built).is_file():
                commands[key] = [str(build.ROOT / built)]
        for key, command in commands.items():
            self.measure("P14", key, functools.partial(singles.start, key, command, self.folder, self.start_count))


def build_info(command: list[str]) -> Any:
    """What `--version -v --json` says, or the text of `--version`."""
    for arguments in (["--version", "-v", "--json"], ["--version"]):
        try:
            result = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=20)
        except OSError as error:
            return str(error)
        if result.returncode == 0:
            try:
                return json.loads(result.stdout)
            except ValueError:
                return result.stdout.strip()
    return f"exit {result.returncode}: {result.stderr.strip()[:300]}"


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m perf", description="Measures headrace against its floors.")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--quick", dest="mode", action="store_const", const="quick", help="about 1.5 minutes, rough")
    length.add_argument("--full", dest="mode", action="store_const", const="full", help="10 pairs of 5 s a cell")
    parser.add_argument("--cells", default=",".join(ALL_CELLS), help=f"some of {','.join(ALL_CELLS)}")
    parser.add_argument("--command", default=str(build.ROOT / ".venv/bin/headrace"), help="the server's command")
    parser.add_argument(
        "--results", type=Path, default=build.ROOT / "perf" / "results", help="folder of the JSON record"
    )
    parser.set_defaults(mode="default")
    chosen = parser.parse_args(arguments)
    unknown = set(chosen.cells.upper().split(",")) - set(ALL_CELLS)
    if unknown:
        parser.error(f"--cells: expected some of {', '.join(ALL_CELLS)}, got {', '.join(sorted(unknown))}")
    return chosen


def main(arguments: list[str] | None = None) -> int:
    chosen = parse_arguments(arguments)
    command = shlex.split(chosen.command)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="headrace-perf-") as folder:
        session = Session(command, chosen.mode, set(chosen.cells.upper().split(",")), Path(folder))
        machine = processes.facts()
        print(f"{machine['cpu']}, {machine['core_count']} cores, load average {machine['load_average']}")
        print(
            f"server on core {SERVER_CPU}, load on core {CLIENT_CPU}, segments of {session.load.segment_s} s\n",
            flush=True,
        )
        try:
            session.run()
        except KeyboardInterrupt:
            print("interrupted: what follows is what was measured until then", file=sys.stderr)
    took_s = time.monotonic() - began
    context = {
        "mode": chosen.mode,
        "took_s": round(took_s, 1),
        "machine": machine,
        "build": build_info(command),
        "floor_compiler": build.compiler(),
        **({"grpc_vs_rest": comparison.record(session.comparison)} if session.comparison else {}),
    }
    path = report.write_json(chosen.results, session.cells, context)
    tables = [report.table(session.cells)] if session.cells else []
    tables += [comparison.table(session.comparison)] if session.comparison else []
    print("", *tables, f"{took_s:.0f} s; record: {path}", sep="\n\n" if tables else "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
