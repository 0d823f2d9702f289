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


def handlers() -> GrpcHandlers:
    return GrpcHandlers(Handlers(CATALOG, ServerInfo(), no_snapshot, lambda: ""), lambda name: True)


def ask(path: str, **fields: Any) -> tuple[int, str, Any]:
    """Status, text and reply, as a message."""
    method = messages.method(path)
    assert method is not None
    request = messages.from_document(fields, method.request)
    status, text, reply = handlers().unary(path, (), request.SerializeToString())
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


class Replies:
    """The client's side of a streaming call."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.ended: list[tuple[int, str]] = []

    def send(self, message: bytes) -> None:
        self.sent.append(message)

    def finish(self, status: int = 0, text: str = "") -> None:
        self.ended.append((status, text))


@pytest.mark.parametrize(("code", "text", "status"), [(0, "", 0), (1, "two models", 3), (5, "not now", 13)])
def test_a_reload_waits_for_the_supervisor(code: int, text: str, status: int) -> None:
    asked = []

    def supervisor(call: str, arguments: dict[str, Any], done: Any) -> None:
        asked.append((call, [source["path"] for source in arguments["sources"]]))
        done(code, text)

    path = f"{MODEL}/HandleReloadConfigRequest"
    handlers = GrpcHandlers(Handlers(CATALOG, ServerInfo(), no_snapshot, lambda: "", supervisor), lambda name: True)
    method = messages.method(path)
    assert method is not None
    replies = Replies()
    stream = handlers.open(path, (), replies)
    stream.message(messages.from_document({"config": CONFIG}, method.request).SerializeToString())
    assert asked == [("model configure", ["/models/digits"])]
    assert replies.ended == [(status, text)]
    assert len(replies.sent) == (1 if code == 0 else 0)
