"""Calls a server with grpcio for a while: `python -m tests.support.grpc_driver TARGET SECONDS` prints a JSON object.

A process of its own, because grpcio keeps threads and descriptors for good.
"""

from __future__ import annotations

import json
import sys
import time

import grpc

READY = "/inference.GRPCInferenceService/ServerReady"
WATCH = "/grpc.health.v1.Health/Watch"
CONCURRENT = 4


def main(target: str, seconds: float) -> None:
    """ok, failed: calls; breaks: connections after the first; watch: how a stream open all the time ended, or None."""
    states: list[str] = []
    failed: list[str] = []
    ok = 0
    with grpc.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)]) as channel:
        channel.subscribe(lambda state: states.append(state.name), try_to_connect=True)
        ready = channel.unary_unary(READY)
        watch = channel.unary_stream(WATCH)(b"")
        next(watch)
        end_ns = time.monotonic_ns() + int(seconds * 1e9)
        while time.monotonic_ns() < end_ns:
            calls = [ready.future(b"", timeout=10) for _ in range(CONCURRENT)]
            for call in calls:
                if call.exception() is None and call.result() == b"\x08\x01":
                    ok += 1
                else:
                    failed.append(str(call.exception()))
        # `code` waits for the end of the stream; None is a stream that lives.
        ended = None if watch.is_active() else watch.code().name
        watch.cancel()
    print(json.dumps({"ok": ok, "failed": failed, "breaks": max(0, states.count("READY") - 1), "watch": ended}))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
