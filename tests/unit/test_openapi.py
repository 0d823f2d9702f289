"""The OpenAPI document: every route that works is in it, every model has its tensors."""

from __future__ import annotations

import json
from typing import Any

from server.protocol import openapi, routes
from server.protocol.served import ServedModel, ServerInfo, TensorInfo, extension_names
from tests.support import counters

UNREAD = ServedModel("unread", "1", [], [], batched=False, max_batch=0)
MODELS = (counters.digits("1"), counters.digits("2"), counters.vad(), UNREAD)


def document(*, has_client_shm: bool = False) -> dict[str, Any]:
    info = ServerInfo("headrace", "1.2", extension_names(has_client_shm=has_client_shm))
    found: dict[str, Any] = json.loads(json.dumps(openapi.document(info, MODELS)))
    return found


def references(node: object) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if "$ref" in node else set()
        return own.union(*(references(value) for value in node.values()))
    return set().union(*(references(value) for value in node)) if isinstance(node, list) else set()


def test_every_route_of_the_http_port_that_works_is_there() -> None:
    found = {(path, method) for path, row in document(has_client_shm=True)["paths"].items() for method in row}
    for route in routes.ROUTES:
        if route.handler.startswith("cuda_"):
            # They answer as a server without a GPU does: nothing to describe.
            continue
        if route.port == routes.HTTP_PORT and route.handler not in (routes.NOT_SUPPORTED, "infer"):
            assert (route.pattern, route.methods[0].lower()) in found, route
    paths = document(has_client_shm=True)["paths"]
    assert not [path for path in paths if "cuda" in path or "generate" in path or "{repository}" in path]


def test_shared_memory_only_where_clients_may_register_it() -> None:
    assert not [path for path in document()["paths"] if "sharedmemory" in path]
    assert [path for path in document(has_client_shm=True)["paths"] if "sharedmemory" in path]


def test_inference_by_model() -> None:
    found = document()
    infer = {path for path in found["paths"] if path.endswith(("/infer", ":predict"))}
    assert infer == {
        f"{path}{call}"
        for path, call in (
            ("/v2/models/digits", "/infer"),
            ("/v2/models/digits/versions/1", "/infer"),
            ("/v2/models/digits/versions/2", "/infer"),
            ("/v2/models/vad", "/infer"),
            ("/v2/models/vad/versions/3", "/infer"),
            ("/v1/models/digits", ":predict"),
            ("/v1/models/digits/versions/1", ":predict"),
            ("/v1/models/digits/versions/2", ":predict"),
            ("/v1/models/vad", ":predict"),
            ("/v1/models/vad/versions/3", ":predict"),
        )
    }
    content = found["paths"]["/v2/models/digits/infer"]["post"]["requestBody"]["content"]["application/json"]
    assert content["schema"] == {"$ref": "#/components/schemas/digits.2.request"}
    (image,) = content["example"]["inputs"]
    assert (image["name"], image["datatype"], image["shape"], len(image["data"])) == ("image", "FP32", [1, 64], 64)
    schemas = found["components"]["schemas"]
    (item,) = schemas["digits.2.request"]["properties"]["inputs"]["items"]["anyOf"]
    assert item["anyOf"][0]["properties"]["shape"]["prefixItems"] == [{"type": "integer", "minimum": 0}, {"const": 64}]


def test_what_is_referred_to_is_there_and_what_identifies_is_unique() -> None:
    found = document(has_client_shm=True)
    assert {one.rpartition("/")[2] for one in references(found)} <= set(found["components"]["schemas"])
    ids = [row[method]["operationId"] for row in found["paths"].values() for method in row if method != "parameters"]
    assert len(ids) == len(set(ids))


def test_elements_of_data() -> None:
    model = ServedModel(
        "m",
        "1",
        [TensorInfo("a", "INT8", (2,)), TensorInfo("b", "BYTES", ()), TensorInfo("c", "BF16", (1 << 20,))],
        [TensorInfo("y", "BOOL", (-1,))],
        batched=False,
        max_batch=0,
    )
    found = openapi.document(ServerInfo(), [model])
    items = found["components"]["schemas"]["m.1.request"]["properties"]["inputs"]["items"]["anyOf"]
    elements = [item["anyOf"][0]["properties"]["data"]["items"]["anyOf"][0] for item in items]
    assert elements == [{"type": "integer", "minimum": -128, "maximum": 127}, {"type": "string"}, {"type": "number"}]
    # An input of a million elements has no example.
    assert "example" not in found["paths"]["/v2/models/m/infer"]["post"]["requestBody"]["content"]["application/json"]


def test_a_server_without_models_has_a_document() -> None:
    assert openapi.document(ServerInfo(), [])["paths"]["/v2/models/{model}"]["parameters"][0]["required"]
