"""server/worker/tfs_grpc_handlers through GrpcHandlers: statuses and texts that no model of the e2e servers reaches."""

from __future__ import annotations

from typing import Any

import pytest

from server.observe.snapshot import Snapshot
from server.protocol import messages
from server.protocol.served import LOADING, READY, UNAVAILABLE, ServedModel, ServerInfo, StaticCatalog, TensorInfo
from server.worker.grpc_handlers import GrpcHandlers
from server.worker.handlers import Handlers

IMAGE = TensorInfo("image", "FP32", [-1, 28, 28])
MODEL = "/tensorflow.serving.ModelService"
PREDICTION = "/tensorflow.serving.PredictionService"


def model(name: str, version: str, state: str = READY, reason: str = "") -> ServedModel:
    tensors = [] if state == UNAVAILABLE else [IMAGE]
    return ServedModel(
        name, version, tensors, tensors, batched=True, max_batch=8, state=lambda: state, reason=lambda: reason
    )


CATALOG = StaticCatalog(
    [model("digits", "2"), model("digits", "10"), model("slow", "1", LOADING), model("broken", "1", UNAVAILABLE, "bad")]
)


def no_snapshot() -> Snapshot:
    raise AssertionError("no statistics are asked")


def handlers(**more: Any) -> GrpcHandlers:
    return GrpcHandlers(Handlers(CATALOG, ServerInfo(), no_snapshot, lambda: ""), lambda name: True, **more)


def ask(path: str, answering: GrpcHandlers | None = None, **fields: Any) -> tuple[int, str, Any]:
    """Status, text and reply, as a message."""
    method = messages.method(path)
    assert method is not None
    request = messages.from_document(fields, method.request)
    status, text, reply = (answering or handlers()).unary(path, (), request.SerializeToString())
    return status, text, method.reply.FromString(reply)


def test_status_has_all_versions_the_newest_first() -> None:
    status, _, reply = ask(f"{MODEL}/GetModelStatus", model_spec={"name": "digits", "version_label": "any"})
    assert status == 0
    assert [(one.version, one.state, one.status.error_code) for one in reply.model_version_status] == [
        (10, 30, 0),
        (2, 30, 0),
    ]


def test_status_says_why_a_model_is_not_there() -> None:
    _, _, reply = ask(f"{MODEL}/GetModelStatus", model_spec={"name": "broken"})
    (one,) = reply.model_version_status
    assert (one.state, one.status.error_code, one.status.error_message) == (50, 14, "bad")


@pytest.mark.parametrize(("name", "state"), [("slow", "LOADING"), ("broken", "UNAVAILABLE: bad")])
@pytest.mark.parametrize("method", ["GetModelMetadata", "Classify", "Regress"])
def test_a_model_that_is_not_ready(method: str, name: str, state: str) -> None:
    fields: dict[str, Any] = {"model_spec": {"name": name}}
    if method == "GetModelMetadata":
        fields["metadata_field"] = ["signature_def"]
        if name == "slow":
            assert ask(f"{PREDICTION}/{method}", **fields)[0] == 0  # what it takes is known before it is loaded
            return
    status, text, _ = ask(f"{PREDICTION}/{method}", **fields)
    assert (status, text) == (14, f"Servable not found for request: Latest({name}) ({state})")


def test_metadata_of_the_latest_and_of_a_version() -> None:
    for spec, version in (({"name": "digits"}, 10), ({"name": "digits", "version": 2}, 2)):
        status, _, reply = ask(f"{PREDICTION}/GetModelMetadata", model_spec=spec, metadata_field=["signature_def"])
        assert (status, reply.model_spec.version.value) == (0, version)


REFUSALS = [
    ((None, None, ""), (400, "Missing ModelSpec")),
    (("", 3, ""), (400, "ModelSpec has no name specified.")),
    (("none", None, ""), (404, "Servable not found for request: Latest(none)")),
    (("digits", -1, ""), (404, "Servable not found for request: Specific(digits, -1)")),
    (("digits", None, "canary"), (400, "Unrecognized servable version label: canary")),
    (("slow", None, ""), (503, "Servable not found for request: Latest(slow) (LOADING)")),
]


@pytest.mark.parametrize(("asked", "expected"), REFUSALS)
def test_why_a_predict_has_no_model(asked: tuple[str | None, int | None, str], expected: tuple[int, str]) -> None:
    assert handlers().tfs.refusal(*asked) == expected


def test_a_model_that_became_ready_only_now() -> None:
    status, text = handlers().tfs.refusal("digits", None, "")
    assert status == 503
    assert "send the request again" in text


CONFIG = {"model_config_list": {"config": [{"name": "digits", "base_path": "/models/digits"}]}}


def test_without_a_hook_nothing_is_reloaded() -> None:
    status, text, _ = ask(f"{MODEL}/HandleReloadConfigRequest", config=CONFIG)
    assert status == 12
    assert "restart it" in text


@pytest.mark.parametrize("answer", [(0, ""), (3, "two models have the name digits"), (9, "not now")])
def test_the_hook_decides(answer: tuple[int, str]) -> None:
    seen = []

    def reload(config: Any) -> tuple[int, str]:
        seen.extend(one.base_path for one in config.model_config_list.config)
        return answer

    status, text, reply = ask(f"{MODEL}/HandleReloadConfigRequest", handlers(reload=reload), config=CONFIG)
    assert (status, text) == answer
    assert seen == ["/models/digits"]
    assert reply.status.error_code == 0
