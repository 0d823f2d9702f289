"""CUDA shared memory without GPUs: status and unregister are answered as if nothing had been registered."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.observe.snapshot import Snapshot
from server.protocol import messages
from server.protocol.served import ServerInfo, StaticCatalog
from server.worker.grpc_handlers import GrpcHandlers
from server.worker.handlers import Handlers, Response

SERVICE = "/inference.GRPCInferenceService/CudaSharedMemory"


def no_snapshot() -> Snapshot:
    raise AssertionError("no statistics are asked")


def handlers() -> Handlers:
    return Handlers(StaticCatalog([]), ServerInfo(), no_snapshot, lambda: "")


@pytest.mark.parametrize(
    ("method", "path", "status", "body"),
    [
        ("GET", "/v2/cudasharedmemory/status", 200, []),
        ("GET", "/v2/cudasharedmemory/region/a/status", 404, "Unable to find cuda shared memory region: 'a'"),
        ("POST", "/v2/cudasharedmemory/unregister", 200, None),
        ("POST", "/v2/cudasharedmemory/region/a/unregister", 200, None),
        ("POST", "/v2/cudasharedmemory/region/a/register", 400, "region: 'a', GPUs not supported"),
    ],
)
def test_rest(method: str, path: str, status: int, body: Any) -> None:
    answer = handlers().handle(method, path, "", {}, b"{}", "http")
    assert isinstance(answer, Response) and answer.status == status
    if isinstance(body, str):
        assert body in json.loads(answer.body)["error"]
    else:
        assert (json.loads(answer.body) if answer.body else None) == body


@pytest.mark.parametrize(
    ("call", "name", "status", "text"),
    [
        ("Status", "", 0, ""),
        ("Status", "a", 5, "Unable to find cuda shared memory region: 'a'"),
        ("Unregister", "", 0, ""),
        ("Unregister", "a", 0, ""),
        ("Register", "a", 3, "region: 'a', GPUs not supported"),
    ],
)
def test_grpc(call: str, name: str, status: int, text: str) -> None:
    method = messages.method(SERVICE + call)
    assert method is not None
    request = method.request(name=name).SerializeToString()
    found, said, reply = GrpcHandlers(handlers(), lambda name: True).unary(SERVICE + call, (), request)
    assert found == status and text in said and reply == b""


def test_the_index_wants_a_boolean() -> None:
    answer = handlers().handle("POST", "/v2/repository/index", "", {}, b'{"ready": 1}', "http")
    assert isinstance(answer, Response)
    assert (answer.status, json.loads(answer.body)) == (400, {"error": "Invalid value for 'ready': expected a boolean"})
