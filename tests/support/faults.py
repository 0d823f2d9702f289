"""What tests do to processes and sockets of a running server, and how they look at it afterwards."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.support.server import Server

_POLL_S = 0.01
_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = 10) -> None:
    """Polls until the condition holds; fails with `what` was expected."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"expected within {timeout_s} s: {what}"
        time.sleep(_POLL_S)


def thread_states(pid: int) -> str:
    """One state letter for each thread."""
    states = ""
    for task in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            states += Path(f"/proc/{pid}/task/{task}/stat").read_text().rpartition(") ")[2][0]
    return states


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that stands still for a block. A signal alone is not enough: each thread stops when it is scheduled."""
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: set(thread_states(pid)) == {"T"}, f"every thread of {pid} stopped")
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def reset(link: socket.socket) -> None:
    """Closes with RST instead of FIN."""
    link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    link.close()


def cpu_s(pid: int) -> float:
    """CPU time of a process up to now, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / _CLOCK_TICKS


def private_bytes(pid: int) -> int:
    """Memory of a process alone, in RAM: without files and shared segments."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"no RssAnon in /proc/{pid}/status")


def held_connections(server: Server) -> int:
    """Connections to the server's TCP ports that one of its processes holds, whatever state they are in."""
    ports = {f"{port:04X}" for _, port in server.addresses.values()}
    held = 0
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            columns = line.split()
            listens, inode = columns[3] == "0A", columns[9]
            held += columns[1].rpartition(":")[2] in ports and not listens and inode != "0"
    return held


def open_descriptors(server: Server) -> dict[str, list[int]]:
    """Process kind -> number of open descriptors of each process of that kind, once no connection is held.

    A connection that has just ended here, a scrape for instance, stays open over there until its worker has looked.
    """
    wait_until(lambda: held_connections(server) == 0, "no connection held by the server")
    return {
        role: sorted(len(os.listdir(f"/proc/{pid}/fd")) for pid in server.pids(role))
        for role in ("supervisor", "worker", "executor")
    }


def worker_of(server: Server, client_port: int) -> int | None:
    """The worker that has accepted the connection from a local port; None when it has none, or has just died."""
    inode = "0"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        columns = line.split()
        if columns[2].endswith(f":{client_port:04X}") and columns[1].endswith(f":{server.port:04X}"):
            inode = columns[9]
    for pid in server.pids("worker") if inode != "0" else ():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for name in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(FileNotFoundError):
                    if os.readlink(f"/proc/{pid}/fd/{name}") == f"socket:[{inode}]":
                        return pid
    return None


def metric(server: Server, name: str, **labels: str) -> float:
    """Sum of the samples of a metric that have these labels."""
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    total, found = 0.0, False
    for line in server.get("/metrics", port=server.metrics_port).body.decode().splitlines():
        if line.startswith((name + "{", name + " ")) and all(part in line for part in wanted):
            total += float(line.rpartition(" ")[2])
            found = True
    assert found, f"no metric {name} with {wanted}"
    return total


def wait_quiet(server: Server) -> None:
    """Until only the scrape's own connection is open and no row waits."""
    deadline = time.monotonic() + 10
    while (state := (metric(server, "headrace_connections"), metric(server, "headrace_queue_depth"))) != (1, 0):
        assert time.monotonic() < deadline, f"connections and rows left: {state}\n{server.log()}"
        time.sleep(_POLL_S)
