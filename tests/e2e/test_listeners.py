"""Where a server is reached: one port for everything, further ports, Unix-domain sockets, and connections' age."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.http2_frames import (
    ACK,
    DATA,
    GOAWAY,
    PING,
    PREFACE,
    SETTINGS,
    Frame,
    call,
    frame,
    split_frames,
)
from tests.support.server import Server, executable, running, start

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
READY = b"/inference.GRPCInferenceService/ServerReady"
EVERY_STREAM = (1 << 31) - 1


class Http2:
    """One connection, frame by frame."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._received = b""
        connection.sendall(PREFACE + frame(SETTINGS, 0, 0))

    def send(self, data: bytes) -> None:
        self._connection.sendall(data)

    def frames(self) -> Iterator[Frame]:
        """Each frame as it comes, until the server closes."""
        while True:
            for one in split_frames(self._received):
                self._received = self._received[9 + len(one.payload) :]
                yield one
            more = self._connection.recv(65536)
            if not more:
                return
            self._received += more

    def until(self, kind: int) -> Frame:
        return next(one for one in self.frames() if one.kind == kind)

    def is_ready(self, stream: int) -> bool:
        """Asks by gRPC and waits for the answer's data."""
        self.send(call(stream, READY, b""))
        answer = next(one for one in self.frames() if one.kind == DATA and one.stream == stream)
        return answer.payload[5:] == b"\x08\x01"


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(str(self._path))


def get(path: Path, target: str) -> int:
    with contextlib.closing(UnixConnection(path)) as connection:
        connection.request("GET", target)
        answer = connection.getresponse()
        answer.read()
        return answer.status


def grpc_driver(target: str, seconds: float) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.support.grpc_driver", target, str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def logged_ports(server: Server) -> dict[str, int]:
    server.wait_log('"event":"ready"')
    line = next(line for line in server.log().splitlines() if '"event":"ready"' in line)
    ports: dict[str, int] = json.loads(line)["ports"]
    return ports


def test_one_port_for_everything() -> None:
    with running("--workers", "1", "--port", "0") as server:
        assert logged_ports(server) == {"http": server.port}
        assert server.addresses["metrics"] == server.addresses["http"]
        assert b"headrace_build_info" in server.get("/metrics").body
        assert server.get("/v1/models/digits").json()["ready"] is True
        with server.connect() as connection:
            assert Http2(connection).is_ready(1)
        done = grpc_driver(f"127.0.0.1:{server.port}", 0.1)
        assert done["ok"] > 0 and done["failed"] == []


def test_without_its_own_port_metrics_are_nowhere_else() -> None:
    with running("--workers", "1", "--metrics-port", "off") as server:
        assert "metrics" not in server.addresses
        assert server.get("/metrics").status == 404


def test_every_port_speaks_everything() -> None:
    free = []
    for _ in range(2):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            free.append(probe.getsockname()[1])
    rest, tfs_grpc = map(str, free)
    with running("--workers", "1", "--rest-api-port", rest, "--tfs-grpc-port", tfs_grpc) as server:
        ports = logged_ports(server)
        assert set(ports) == {"http", "metrics", "rest_api", "tfs_grpc"}
        assert f"rest-api  http://127.0.0.1:{rest}" in server.output()
        for name, port in ports.items():
            assert server.get("/v2/health/ready", port=port).status == 200
            assert server.get("/v2/health/live", port=port).status == 200
            if name != "metrics":
                assert server.get("/v1/models/digits", port=port).status == 200
                with server.connect(port) as connection:
                    assert Http2(connection).is_ready(1)


def test_unix_sockets_speak_everything_and_go_with_the_server(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    with running("--workers", "2", "--uds", str(first), "--uds", str(second)) as server:
        assert f"unix:{first}" in server.output()
        for path in (first, second):
            found = path.lstat()
            assert stat.S_ISSOCK(found.st_mode) and stat.S_IMODE(found.st_mode) == 0o660
            assert get(path, "/v2/health/ready") == get(path, "/v1/models/digits") == 200
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(str(first))
            assert Http2(connection).is_ready(1)
        done = grpc_driver(f"unix:{second}", 0.1)
        assert done["ok"] > 0 and done["failed"] == []
        # The socket is the supervisor's: a worker's death closes nothing.
        (worker, _) = server.pids("worker")
        os.kill(worker, signal.SIGKILL)
        server.wait_replaced("worker", worker, count=2)
        assert [get(first, "/v2/health/live") for _ in range(8)] == [200] * 8
    assert list(tmp_path.iterdir()) == []


def test_a_server_on_a_socket_alone(tmp_path: Path) -> None:
    path = tmp_path / "only"
    command = [*executable(), "serve", "--workers", "1", "--uds", str(path), "--drain-delay", "0"]
    command += ["--http-port", "off", "--grpc-port", "off", "--metrics-port", "same"]
    folder = tmp_path / "output"
    folder.mkdir()
    server = Server(command, os.environ, folder)
    try:
        server.wait_log('"event":"ready"')
        assert f"http     unix:{path}" in server.output()
        assert get(path, "/metrics") == get(path, "/v2/models/digits") == 200
        server.stop()
    finally:
        server.kill()
    assert not path.exists()


def test_a_killed_servers_socket_is_taken_over_and_a_living_ones_is_not(tmp_path: Path) -> None:
    path, folder = tmp_path / "socket", tmp_path / "output"
    folder.mkdir()
    killed = start(folder, "--workers", "1", "--uds", path)
    killed.kill()
    assert path.is_socket()
    with running("--workers", "1", "--uds", path) as server:
        assert get(path, "/v2/health/ready") == 200
        command = [*executable(), "serve", "--http-port", "0", "--metrics-port", "0", "--uds", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
        assert done.returncode == 71
        assert f"--uds: another server listens on {path}; stop it or choose another path" in done.stderr
        assert get(path, "/v2/health/ready") == 200
        assert server.process.poll() is None
    assert not path.exists()


def test_an_old_connection_is_told_twice_and_loses_nothing() -> None:
    with running("--workers", "1", "--max-connection-age", "1") as server, server.connect() as connection:
        http2 = Http2(connection)
        assert http2.is_ready(1)
        warning = http2.until(GOAWAY)
        assert int.from_bytes(warning.payload[:4], "big") == EVERY_STREAM
        # On its way when the warning came: still answered.
        assert http2.is_ready(3)
        last = http2.until(GOAWAY)
        assert int.from_bytes(last.payload[:4], "big") == 3
        assert (last.payload[4:8], last.payload[8:]) == (bytes(4), b"max_age")
        assert [one for one in http2.frames() if one.kind not in (PING, SETTINGS)] == []


def test_a_grpc_client_reconnects_and_loses_no_call() -> None:
    with running("--workers", "2", "--max-connection-age", "1", "--max-connection-age-grace", "1") as server:
        done = grpc_driver(f"127.0.0.1:{server.port}", 6)
    assert done["failed"] == [] and done["ok"] > 100 and done["breaks"] >= 1
    # The stream that never ends is cut when the grace is over.
    assert done["watch"] == "UNAVAILABLE"


def test_streams_and_pings_are_as_set() -> None:
    arguments = ("--workers", "1", "--max-concurrent-streams", "7", "--min-ping-interval", "0")
    with running(*arguments) as server, server.connect() as connection:
        http2 = Http2(connection)
        settings = http2.until(SETTINGS).payload
        pairs = [settings[at : at + 6] for at in range(0, len(settings), 6)]
        assert (3).to_bytes(2, "big") + (7).to_bytes(4, "big") in pairs
        for _ in range(20):
            http2.send(frame(PING, 0, 0, b"12345678"))
            assert http2.until(PING).flags == ACK


def test_pings_without_work_are_strikes_and_those_of_a_working_client_are_none() -> None:
    with running("--workers", "1") as server:
        with server.connect() as connection:
            http2 = Http2(connection)
            for number in range(10):
                assert http2.is_ready(2 * number + 1)
                http2.send(frame(PING, 0, 0, b"12345678"))
                assert http2.until(PING).flags == ACK
        with server.connect() as connection:
            http2 = Http2(connection)
            http2.send(4 * frame(PING, 0, 0, b"12345678"))
            assert http2.until(GOAWAY).payload[7:] == b"\x0btoo_many_pings"
