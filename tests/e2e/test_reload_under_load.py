"""Models are replaced while clients ask: no request fails, each is answered by one version, and none goes back in time.

The model of version V adds V to its input, so an answer tells which version gave it, whatever it says of itself.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import struct
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from server.protocol import messages
from tests.support.faults import open_descriptors, private_bytes, wait_until
from tests.support.onnx_writer import Graph
from tests.support.server import Server, running

pytestmark = pytest.mark.slow

STRESS = int(os.environ.get("HEADRACE_STRESS") or 0)
RELOAD_COUNT = 50 * STRESS or 8
REQUEST_COUNT = 200_000 * STRESS or 4_000
HTTP_CONNECTIONS = 12
GRPC_CHANNELS = 4
MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"


def adds(version: int, ballast_bytes: int = 0) -> bytes:
    """y = x + version."""
    graph = Graph("adds")
    graph.input("x", "FP32", [-1, 1])
    graph.constant("version", "FP32", [1], struct.pack("<f", version))
    if ballast_bytes:
        graph.constant("ballast", "UINT8", [ballast_bytes], bytes(ballast_bytes))
    graph.node("Add", ["x", "version"], ["y"])
    graph.output("y", "FP32", [-1, 1])
    return graph.model()


def put(repository: Path, name: str, version: int, content: bytes) -> None:
    """Writes a version; its file appears at once, as a careful deployment does it."""
    folder = repository / name / str(version)
    folder.mkdir(parents=True)
    (folder / "part").write_bytes(content)
    (folder / "part").rename(folder / "model.onnx")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    put(tmp_path, "m", 1, adds(1))
    put(tmp_path, "bystander", 1, adds(100))
    return tmp_path


@pytest.fixture
def server(repository: Path) -> Iterator[Server]:
    with running(repository, "--workers", "2", "--model-control-mode", "explicit", "--load-model", "*") as server:
        yield server


class Clients:
    """Ask without pause until told to stop; note every answer that is not as it must be."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.is_over = asyncio.Event()
        self.answered = 0
        self.versions: set[int] = set()
        self.complaints: list[str] = []

    def check(self, who: str, asked: float, value: float, version: int, last: int) -> int:
        self.answered += 1
        self.versions.add(version)
        if value != asked + version:
            self.complaints.append(f"{who}: {asked} became {value}, said to be by version {version}")
        if version < last:
            self.complaints.append(f"{who}: version {version} after {last}")
        return version

    async def http(self, serial: int) -> None:
        reader, writer = await asyncio.open_connection(self.server.host, self.server.port)
        last = 0
        while not self.is_over.is_set():
            asked = float(self.answered % 1000)
            body = json.dumps({"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [asked]}]})
            writer.write(
                f"POST /v2/models/m/infer HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
            )
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = next(int(line.split(":")[1]) for line in head.splitlines() if line.startswith("Content-Length"))
            text = (await reader.readexactly(length)).decode()
            if not head.startswith("HTTP/1.1 200 "):
                self.complaints.append(f"HTTP {serial}: {head.splitlines()[0]} {text}")
                return
            answer = json.loads(text)
            last = self.check(
                f"HTTP {serial}", asked, answer["outputs"][0]["data"][0], int(answer["model_version"]), last
            )
        writer.close()

    async def grpc(self, serial: int) -> None:
        request_class = messages.message_class("inference.ModelInferRequest")
        reply_class = messages.message_class("inference.ModelInferResponse")
        # Each channel a connection of its own.
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(f"{self.server.host}:{self.server.port}", options=options) as channel:
            infer = channel.unary_unary(MODEL_INFER, request_class.SerializeToString, reply_class.FromString)
            last = 0
            while not self.is_over.is_set():
                asked = float(self.answered % 1000)
                request = request_class(model_name="m", raw_input_contents=[struct.pack("<f", asked)])
                request.inputs.add(name="x", datatype="FP32", shape=[1, 1])
                try:
                    reply = await infer(request, timeout=30)
                except grpc.aio.AioRpcError as error:
                    self.complaints.append(f"gRPC {serial}: {error.code()} {error.details()}")
                    return
                (value,) = struct.unpack("<f", reply.raw_output_contents[0])
                last = self.check(f"gRPC {serial}", asked, value, int(reply.model_version), last)


async def change(server: Server, name: str, call: str = "load") -> int:
    """A load or unload by the repository API, over a connection of its own; its status."""
    reader, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(
        f"POST /v2/repository/models/{name}/{call} HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n"
        "Connection: close\r\n\r\n".encode()
    )
    status = int((await reader.readline()).split()[1])
    writer.close()
    return status


def test_reloads_under_load_lose_nothing(server: Server, repository: Path) -> None:
    clients = Clients(server)

    async def everything() -> None:
        tasks = [asyncio.create_task(clients.http(serial)) for serial in range(HTTP_CONNECTIONS)]
        tasks += [asyncio.create_task(clients.grpc(serial)) for serial in range(GRPC_CHANNELS)]
        for reload in range(1, RELOAD_COUNT + 1):
            wanted = REQUEST_COUNT * reload // RELOAD_COUNT
            while clients.answered < wanted and not clients.complaints:
                await asyncio.sleep(0.01)
            put(repository, "m", reload + 1, adds(reload + 1))
            shutil.rmtree(repository / "m" / str(reload))
            assert await change(server, "m") == 200
        seen = clients.answered
        while clients.answered < seen + 200 and not clients.complaints:
            await asyncio.sleep(0.01)
        clients.is_over.set()
        await asyncio.gather(*tasks)

    asyncio.run(everything())
    print(f"{clients.answered} answers over {RELOAD_COUNT} reloads")
    assert clients.complaints == []
    assert clients.answered >= REQUEST_COUNT
    assert clients.versions == set(range(1, RELOAD_COUNT + 2))


def test_loads_and_unloads_give_everything_back(server: Server, repository: Path) -> None:
    """Memory and descriptors after many cycles are as after the first few."""

    async def cycle(count: int) -> None:
        for _ in range(count):
            assert await change(server, "m", "unload") == 200
            assert await change(server, "m") == 200

    def holdings() -> tuple[int, dict[str, int]]:
        wait_until(lambda: len(server.pids("executor")) == 2, "two executors")
        pids = server.pids("supervisor") + server.pids("worker")
        resident = sum(private_bytes(pid) for pid in pids)
        return resident, {role: sum(counts) for role, counts in open_descriptors(server).items()}

    asyncio.run(cycle(5))
    resident_before, descriptors_before = holdings()
    asyncio.run(cycle(25 * STRESS or 10))
    resident_after, descriptors_after = holdings()
    assert descriptors_after == descriptors_before
    assert resident_after < resident_before + (4 << 20)


def test_a_changed_repository_is_followed(repository: Path) -> None:
    """Poll mode and SIGHUP: versions come, models come and go, without a call."""

    def version_of(server: Server, name: str) -> str | None:
        answer = server.get(f"/v2/models/{name}")
        return json.loads(answer.body)["versions"][-1] if answer.status == 200 else None

    with running(repository, "--workers", "2", "--model-control-mode", "poll", "--repository-poll-secs", "1") as server:
        put(repository, "m", 2, adds(2))
        put(repository, "newcomer", 7, adds(7))
        shutil.rmtree(repository / "bystander")
        for name, version in (("m", "2"), ("newcomer", "7"), ("bystander", None)):
            wait_until(lambda name=name, version=version: version_of(server, name) == version, f"{name} {version}")
    with running(repository, "--workers", "2") as server:
        put(repository, "m", 3, adds(3))
        os.kill(server.process.pid, signal.SIGHUP)
        wait_until(lambda: version_of(server, "m") == "3", "version 3")
