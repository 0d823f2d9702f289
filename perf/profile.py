"""`python -m perf.profile`: where the microseconds of a request go, in the server's processes.

Two instruments. Sampling (`perf record -e cpu-clock`, which needs no hardware counters and so works in a virtual
machine) gives the share of each process, library and function; multiplied by the measured CPU-µs per request it
becomes µs per request. Callgrind (`--callgrind`) counts user-space instructions per request: exact to about 0.1 % on
any machine, with no kernel part and ~50 times slower, so it compares two builds where time cannot.
"""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from perf import build, clients, processes, wire
from perf.clients import Load
from perf.subjects import Headrace
from tests.support import onnx_writer

REQUESTS: dict[str, wire.Request | wire.Call] = {
    "health": wire.health(),
    "json": wire.infer_json("mlp"),
    "binary": wire.infer_binary("mlp"),
    "grpc": wire.infer_grpc("mlp"),
}


@dataclass(frozen=True)
class Pattern:
    """What is asked and how: `streams` of each connection are for gRPC."""

    request: wire.Request | wire.Call
    connections: int
    streams: int

    def run(self, server: Headrace, load: Load, request_count: int | None = None) -> clients.Segment:
        """One segment, or so many requests."""
        if isinstance(self.request, wire.Call):
            return clients.h2_load(
                server,
                self.request,
                load,
                connections=self.connections,
                streams=self.streams,
                seconds=float(load.segment_s),
                request_count=request_count,
            )
        if request_count is None:
            return clients.wrk(server, self.request, load, connections=self.connections)
        return clients.http_load(server, self.request, load, connections=self.connections, request_count=request_count)

    def __str__(self) -> str:
        streams = f" of {self.streams} streams" if isinstance(self.request, wire.Call) else ""
        return f"{self.request.name}, {self.connections} connections{streams}"


@dataclass(frozen=True)
class Sample:
    """One line of the profile: its share of all samples."""

    share: float
    process: str
    library: str
    function: str


def parse_report(text: str) -> list[Sample]:
    """Lines `12.34%;comm;dso;[.] symbol` of `perf report -t ';'`; comments and blanks are skipped."""
    samples = []
    for line in text.splitlines():
        fields = [field.strip() for field in line.split(";", 3)]
        if len(fields) == 4 and re.fullmatch(r"[\d.]+%?", fields[0]):
            function = re.sub(r"^\[.\]\s*", "", fields[3].partition(";")[0].strip())
            samples.append(Sample(float(fields[0].rstrip("%")) / 100, fields[1], fields[2], function))
    return samples


def process_kind(name: str) -> str:
    """headrace-w0 -> worker, headrace-e1 -> executor; other names stay."""
    for pattern, kind in ((r"headrace-w\d*", "worker"), (r"headrace-e\d*", "executor")):
        if re.match(pattern, name):
            return kind
    return name


def library_kind(library: str) -> str:
    """The part of the system that a shared object belongs to."""
    for part, kind in (
        ("[kernel", "kernel"),
        ("onnxruntime", "ONNX Runtime"),
        ("uvloop", "uvloop"),
        ("libpython", "Python"),
        ("python3", "Python"),
        ("libc.so", "libc"),
        ("libc-", "libc"),
        ("libstdc++", "libstdc++"),
        ("[vdso]", "vdso"),
    ):
        if part in library:
            return kind
    return f"_fast/{library.split('.')[0]}" if "cpython" in library else library


def totals(samples: Iterable[Sample], cpu_us: float) -> list[tuple[str, str, float]]:
    """(process kind, library kind, µs per request), largest first."""
    sums: dict[tuple[str, str], float] = {}
    for one in samples:
        key = (process_kind(one.process), library_kind(one.library))
        sums[key] = sums.get(key, 0.0) + one.share
    return [(*key, share * cpu_us) for key, share in sorted(sums.items(), key=lambda item: -item[1])]


def sample(command: list[str], pattern: Pattern, seconds: int, function_count: int) -> None:
    """Loads a one-worker server and prints µs per request by process and library, then by function."""
    if shutil.which("perf") is None:
        raise SystemExit("perf is not installed: apt-get install linux-perf, or use --callgrind")
    with tempfile.TemporaryDirectory(prefix="headrace-profile-") as name:
        folder = Path(name)
        load = Load(0, 1, folder, seconds)
        models = onnx_writer.write_repository(folder / "models", {"mlp": onnx_writer.mlp()})
        with Headrace(command, models, folder / "server.log", workers=1, cpus={0}) as server:
            pattern.run(server, load, 10000)
            plain = pattern.run(server, load)
            data = folder / "perf.data"
            pids = ",".join(map(str, server.pids()))
            recorder = subprocess.Popen(
                ["perf", "record", "-q", "-e", "cpu-clock", "-F", "2999", "-o", str(data), "-p", pids],
                stderr=subprocess.DEVNULL,
            )
            time.sleep(0.5)
            pattern.run(server, load)
            recorder.send_signal(signal.SIGINT)
            recorder.wait(20)
        text = subprocess.run(
            ["perf", "report", "-i", str(data), "--stdio", "-q", "--sort", "comm,dso,symbol", "-t", ";"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    samples = parse_report(text)
    print(f"{pattern}: {plain.cpu_us:.2f} CPU-µs per request, {plain.rate:,.0f}/s\n")
    print(f"{'µs':>7}  {'share':>6}  where")
    for process, library, us in totals(samples, plain.cpu_us):
        if us >= 0.01:
            print(f"{us:7.2f}  {us / plain.cpu_us:6.1%}  {process:<10} {library}")
    print(f"\n{'µs':>7}  function ({function_count} dearest)")
    for one in sorted(samples, key=lambda item: -item.share)[:function_count]:
        where = f"{process_kind(one.process)}, {library_kind(one.library)}"
        print(f"{one.share * plain.cpu_us:7.3f}  {one.function[:90]}  ({where})")


def instructions(text: str) -> int:
    """Total of one callgrind dump: its `totals:` (or `summary:`) line."""
    found = re.search(r"^(?:totals|summary):\s*(\d+)", text, re.M)
    if found is None:
        raise ValueError("a callgrind dump without a totals line")
    return int(found[1])


def callgrind(command: list[str], pattern: Pattern, request_count: int) -> None:
    """Prints user-space instructions per request and process: (I(2N) - I(N)) / N, which start-up cancels out of."""
    if shutil.which("valgrind") is None:
        raise SystemExit("valgrind is not installed: apt-get install valgrind")
    with tempfile.TemporaryDirectory(prefix="headrace-callgrind-") as name:
        folder = Path(name)
        load = Load(0, 1, folder, 1)
        models = onnx_writer.write_repository(folder / "models", {"mlp": onnx_writer.mlp()})
        tool = ["valgrind", "--tool=callgrind", "--trace-children=yes", f"--callgrind-out-file={folder}/out.%p"]
        # The console script is Python text: valgrind needs the interpreter as its program.
        wrapped = [*tool, sys.executable, *command] if len(command) == 1 else [*tool, *command]
        with Headrace(wrapped, models, folder / "server.log", workers=1, cpus={0}, ready_timeout_s=300) as server:
            pids = server.pids()
            names = processes.names(pids)
            pattern.run(server, load, request_count)
            _dump(pids)
            for count in (request_count, 2 * request_count):
                pattern.run(server, load, count)
                _dump(pids)
        print(f"{pattern}: user-space instructions per request")
        total = 0.0
        for pid in pids:
            dumps = [instructions((folder / f"out.{pid}.{number}").read_text()) for number in (2, 3)]
            per_request = (dumps[1] - dumps[0]) / request_count
            total += per_request
            print(f"{per_request:12,.0f}  {process_kind(names[pid])}")
        print(f"{total:12,.0f}  together")
        keep = build.OUTPUT / "callgrind"
        keep.mkdir(parents=True, exist_ok=True)
        for pid in pids:
            shutil.copy(folder / f"out.{pid}.3", keep / f"{process_kind(names[pid])}.out")
        print(f"by function: callgrind_annotate {keep}/worker.out")


def _dump(pids: list[int]) -> None:
    """Each process writes its counters to out.PID.NUMBER and starts again from 0."""
    for pid in pids:
        subprocess.run(["callgrind_control", "-d", str(pid)], check=True, capture_output=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m perf.profile", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("request", nargs="?", default="binary", choices=sorted(REQUESTS))
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--connections", type=int, help="default: 64, and 16 for grpc")
    parser.add_argument("--streams", type=int, default=16, help="of each connection, for grpc")
    parser.add_argument("--functions", type=int, default=40, help="functions in the second table")
    parser.add_argument("--callgrind", action="store_true", help="count instructions instead of sampling time")
    parser.add_argument("--requests", type=int, default=2000, help="N of --callgrind")
    parser.add_argument("--command", default=str(build.ROOT / ".venv/bin/headrace"), help="the server's command")
    chosen = parser.parse_args(arguments)
    connections = chosen.connections or (16 if chosen.request == "grpc" else 64)
    pattern = Pattern(REQUESTS[chosen.request], connections, chosen.streams)
    command = shlex.split(chosen.command)
    if chosen.callgrind:
        callgrind(command, pattern, chosen.requests)
    else:
        sample(command, pattern, chosen.seconds, chosen.functions)
    return 0


if __name__ == "__main__":
    sys.exit(main())
