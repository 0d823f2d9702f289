"""One server with all models of the zoo and two workers, shared by the conformance tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance import zoo
from tests.conformance.onnx_reference import Reference
from tests.conformance.v2_client import Client
from tests.support import onnx_writer
from tests.support.server import Server, running

#: Rows in a slab of the shared server.
CAPACITY_ROWS = 64
BALANCED = ("headrace_inflight_requests{", "headrace_queue_depth{", "headrace_worker_restarts_total{")


@pytest.fixture(scope="session")
def zoo_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = zoo.write(tmp_path_factory.mktemp("zoo"))
    with running(root, "--workers", "2", "--max-batch-size", str(CAPACITY_ROWS), "--queue-rows", "4096") as server:
        yield server


@pytest.fixture
def server(zoo_server: Server) -> Iterator[Server]:
    """The shared server; fails a test after which a request is in flight or a process has been replaced."""
    yield zoo_server
    page = zoo_server.get("/metrics", port=zoo_server.metrics_port).body.decode()
    held = [line for line in page.splitlines() if line.startswith(BALANCED) and not line.endswith(" 0")]
    assert not held, f"expected nothing in flight and no process replaced, found {held}\n{zoo_server.log()}"


@pytest.fixture(scope="session")
def field_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """What the clients of other projects share: models of the datatypes that all of them know, and a Unix socket."""
    root = tmp_path_factory.mktemp("field")
    models = onnx_writer.write_repository(root / "models", zoo.field_models())
    with running(models, "--workers", "1", "--uds", root / "socket", "--server-name", "triton") as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.host, server.port) as connected:
        yield connected


@pytest.fixture(scope="session")
def references() -> dict[str, Reference]:
    """In-process sessions of the zoo's models."""
    return {name: Reference(file) for name, file in zoo.models().items()}
