"""nginx, HAProxy and Envoy in front of the server: gRPC and REST through them are what they are without them."""

from __future__ import annotations

import contextlib
import getpass
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from tests.conformance import kserve_jobs, proxy_configs, zoo
from tests.support import clients, commands, http2_frames
from tests.support.server import Server

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT_NS = 20_000_000_000


class Proxy(NamedTuple):
    """A running proxy's two addresses, host:port."""

    name: str
    rest: str
    grpc: str


def free_ports() -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(2)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def command(name: str, folder: Path, text: str) -> list[str | Path]:
    """Writes the configuration and returns the command line."""
    file = folder / f"{name}.{'yaml' if name == 'envoy' else 'conf'}"
    file.write_text(text)
    if name == "nginx":
        return [commands.program("nginx"), "-p", folder, "-c", file]
    if name == "haproxy":
        return [commands.program("haproxy"), "-db", "-f", file]
    program = clients.environment("envoy") / "bin" / "envoy"
    return [program, "-c", file, "--concurrency", "1", "--log-level", "warning", "--disable-hot-restart"]


def is_ready(address: str) -> bool:
    """Whether the server's readiness comes through the proxy."""
    host, port = address.split(":")
    try:
        with socket.create_connection((host, int(port)), timeout=2) as connected:
            connected.sendall(b"GET /v2/health/ready HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            return b" 200 " in connected.recv(100)
    except OSError:
        return False


@contextlib.contextmanager
def running(name: str, server: Server, folder: Path) -> Iterator[Proxy]:
    rest, grpc = free_ports()
    text = getattr(proxy_configs, name.upper()).format(
        folder=folder,
        user=getpass.getuser(),
        server=f"{server.host}:{server.port}",
        server_host=server.host,
        server_port=server.port,
        rest=f"127.0.0.1:{rest}",
        grpc=f"127.0.0.1:{grpc}",
        rest_port=rest,
        grpc_port=grpc,
    )
    line = list(map(str, command(name, folder, text)))
    said = folder / "log"
    with said.open("wb") as log:
        process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        deadline = time.monotonic_ns() + START_TIMEOUT_NS
        while not is_ready(f"127.0.0.1:{rest}"):
            assert process.poll() is None and time.monotonic_ns() < deadline, said.read_text()
            time.sleep(0.02)
        yield Proxy(name, f"127.0.0.1:{rest}", f"127.0.0.1:{grpc}")
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module", params=["nginx", "haproxy", "envoy"])
def proxy(
    request: pytest.FixtureRequest, field_server: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxy]:
    with running(request.param, field_server, tmp_path_factory.mktemp(request.param)) as started:
        yield started


def test_sdk_of_kserve(proxy: Proxy, tmp_path: Path) -> None:
    """All that KServe's SDK asks, over REST and gRPC: what comes back is what was sent, refusals are the server's."""
    found = kserve_jobs.run(tmp_path, proxy.rest, proxy.grpc)
    for form in kserve_jobs.FORMS:
        kserve_jobs.check_tensors(found, form)
    assert [found.results["grpc"][name] for name in ("live", "ready", "model")] == [True] * 3
    assert found.results["grpc"]["refused"][0] == "INVALID_ARGUMENT"
    assert "expected 13 inputs" in found.results["grpc"]["refused"][1] == found.results["v2"]["refused"][1]


def test_streams(proxy: Proxy) -> None:
    """grpcio with a stream that stays open beside unary calls: no call fails, no connection ends."""
    line = [sys.executable, "-m", "tests.support.grpc_driver", proxy.grpc, "0.3"]
    done = json.loads(commands.run(["env", f"--chdir={ROOT}", *line]))
    assert done["failed"] == [] and done["ok"] > 0
    assert (done["breaks"], done["watch"]) == (0, None)


@pytest.mark.parametrize("rows", [1, 60])
def test_curl_json(proxy: Proxy, field_server: Server, tmp_path: Path, rows: int) -> None:
    """60 rows are over 2 MB of text: the proxy sends them on in many pieces."""
    array = np.arange(rows * zoo.WIDE_WIDTH, dtype=np.float32)
    body = {"inputs": [{"name": "x", "shape": [rows, zoo.WIDE_WIDTH], "datatype": "FP32", "data": array.tolist()}]}
    (tmp_path / "request").write_text(json.dumps(body))
    line = [commands.program("curl"), "-sS", "--noproxy", "*", "--fail-with-body", "--json", f"@{tmp_path / 'request'}"]
    through, direct = (
        commands.run([*line, f"http://{address}/v2/models/wide/infer"])
        for address in (proxy.rest, f"{field_server.host}:{field_server.port}")
    )
    assert through == direct and json.loads(through)["outputs"][0]["data"] == array.tolist()


def test_curl_grpc(proxy: Proxy, tmp_path: Path) -> None:
    """The message and the trailers; an unknown method's status comes in the head."""
    (tmp_path / "request").write_bytes(http2_frames.message(b""))
    line = [commands.program("curl"), "-sSi", "--noproxy", "*", "--http2-prior-knowledge", "-H", "TE: trailers"]
    line += ["-H", "Content-Type: application/grpc", "--data-binary", f"@{tmp_path / 'request'}"]
    ready = f"http://{proxy.grpc}/inference.GRPCInferenceService/ServerReady"
    said = commands.run([*line, ready])
    assert said.startswith(b"HTTP/2 200") and http2_frames.message(b"\x08\x01") in said and b"grpc-status: 0" in said
    said = commands.run([*line, ready + "Not"])
    assert said.startswith(b"HTTP/2 200") and b"grpc-status: 12" in said


def test_h2load(proxy: Proxy, tmp_path: Path) -> None:
    """400 calls, 64 at a time: all come back."""
    (tmp_path / "request").write_bytes(http2_frames.message(b""))
    line = [commands.program("h2load"), "-n", "400", "-c", "4", "-m", "16", "-d", tmp_path / "request"]
    line += ["-H", "Content-Type: application/grpc", "-H", "TE: trailers"]
    said = commands.run([*line, f"http://{proxy.grpc}/inference.GRPCInferenceService/ServerReady"])
    assert b"400 succeeded, 0 failed, 0 errored, 0 timeout" in said and b"400 2xx" in said
    assert b"(2800) data" in said, said.decode()
