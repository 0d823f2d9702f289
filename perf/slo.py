"""`python -m perf.slo`: what a latency target does for requests that come in bursts, and what it costs.

Two servers with the same model, one of them with --slo-p99-ms, are asked in turn (A B B A). Open loop: the schedule is
fixed, a latency counts from the moment at which the request should have been sent. Steady arrivals and saturation are
the controls: there the target must cost nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from perf import wire
from perf.subjects import Headrace, ModelCounts
from tests.support import onnx_writer

MODEL = "heavy"
LAYERS = 64


def schedule(kind: str, rate: float, burst: int, seconds: float, seed: int) -> list[float]:
    """When each request should be sent, in seconds."""
    if kind == "saturated":
        return [0.0] * int(3 * rate * seconds)
    chance = random.Random(seed)
    found, now = [], 0.0
    while now < seconds:
        found += [now] * (burst if kind == "bursts" else 1)
        now += burst / rate if kind == "bursts" else chance.expovariate(rate)
    return found


class Segment(NamedTuple):
    """Latencies in milliseconds, ascending, and answers a second."""

    latencies_ms: list[float]
    rate: float


async def drive(port: int, times_s: Sequence[float], connections: int) -> Segment:
    """Sends the requests on time, over idle connections."""
    loop = asyncio.get_running_loop()
    raw = wire.infer_binary(MODEL).raw(port)
    idle: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    for _ in range(connections):
        idle.put_nowait(await asyncio.open_connection("127.0.0.1", port))
    found: list[float] = []

    async def ask(at_s: float) -> None:
        reader, writer = await idle.get()
        writer.write(raw)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"expected 200, got {head[:60]!r}")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        found.append((loop.time() - at_s) * 1000)
        idle.put_nowait((reader, writer))

    begin = loop.time() + 0.1
    tasks = []
    for at_s in times_s:
        if (wait_s := begin + at_s - loop.time()) > 0:
            await asyncio.sleep(wait_s)
        tasks.append(asyncio.create_task(ask(begin + at_s)))
    await asyncio.gather(*tasks)
    ended = loop.time()
    while not idle.empty():
        idle.get_nowait()[1].close()
    return Segment(sorted(found), len(found) / (ended - begin))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m perf.slo", description=__doc__.splitlines()[0])
    parser.add_argument("--slo-ms", type=float, default=20.0)
    parser.add_argument("--burst", type=int, default=64, help="requests of a burst")
    parser.add_argument("--rate", type=float, default=320.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=4.0, help="of one segment")
    parser.add_argument("--blocks", type=int, default=2, help="times A B B A")
    options = parser.parse_args()
    os.sched_setaffinity(0, {1})
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        onnx_writer.write_repository(root / "models", {MODEL: onnx_writer.heavy(layers=LAYERS)})
        command = [sys.executable, "-m", "server"]

        def start(name: str, *extra: str) -> Headrace:
            flags = ("--intra-op-threads", "1", "--drain-delay", "0", *extra)
            return Headrace(command, root / "models", root / f"{name}.log", cpus={0}, extra=flags)

        with start("plain") as plain, start("slo", "--slo-p99-ms", str(options.slo_ms)) as slo:
            print(f"{'':9} {'':7} {'in time':>8} {'p50 ms':>8} {'p99 ms':>8} {'rows/run':>8} {'answers/s':>9}")
            for kind in ("bursts", "steady", "saturated"):
                segments: dict[str, list[Segment]] = {"plain": [], "slo": []}
                before = {"plain": plain.counts(MODEL), "slo": slo.counts(MODEL)}
                for block in range(options.blocks):
                    times_s = schedule(kind, options.rate, options.burst, options.seconds, block)
                    for name, server in (("plain", plain), ("slo", slo), ("slo", slo), ("plain", plain)):
                        segments[name].append(asyncio.run(drive(server.port, times_s, 4 * options.burst)))
                for name, server in (("plain", plain), ("slo", slo)):
                    show(kind, name, segments[name], options.slo_ms, server, before[name])
    return 0


def show(kind: str, name: str, segments: list[Segment], slo_ms: float, server: Headrace, before: ModelCounts) -> None:
    after = server.counts(MODEL)
    mean_rows = (after.inference_count - before.inference_count) / (after.execution_count - before.execution_count)
    all_ms = [segment.latencies_ms for segment in segments]
    in_time = statistics.median(sum(one <= slo_ms for one in ms) / len(ms) for ms in all_ms)
    p50, p99 = (statistics.median(ms[int(share * len(ms))] for ms in all_ms) for share in (0.5, 0.99))
    rate = statistics.median(segment.rate for segment in segments)
    print(f"{kind:9} {name:7} {in_time:8.1%} {p50:8.1f} {p99:8.1f} {mean_rows:8.1f} {rate:9.0f}")


if __name__ == "__main__":
    raise SystemExit(main())
