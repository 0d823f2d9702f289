"""handlers.py: the control plane's answers, status by status."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import pytest

from server import errors, log
from server.observe.snapshot import Snapshot, merge
from server.protocol import v2
from server.protocol.served import ServedModel, ServerInfo, StaticCatalog
from server.worker.handlers import Handlers, Response
from tests.support import counters, exposition

LOADING = counters.digits(name="slow", state="LOADING")
BROKEN = ServedModel(
    "broken",
    "1",
    [],
    [],
    batched=False,
    max_batch=0,
    state=lambda: "UNAVAILABLE",
    reason=lambda: "opset 99 is newer than this runtime",
)
MODELS = (counters.digits("1"), counters.digits("2"), counters.vad(), LOADING, BROKEN)


def handlers(models: Sequence[ServedModel] = MODELS, readiness: str = "") -> Handlers:
    blocks = [counters.worker_block(model, [1000, 2000, 4_000_000]) for model in models]
    snapshot = Snapshot(merge(blocks), connection_count=3)
    info = ServerInfo("headrace", "0.1.0")
    return Handlers(StaticCatalog(models), info, lambda: snapshot, lambda: readiness, retry_after_s=2)


def ask(
    path: str,
    method: str = "GET",
    *,
    port: str = "http",
    headers: Mapping[str, str] | None = None,
    target: Handlers | None = None,
) -> Response:
    return (target or handlers()).handle(method, path, "", headers or {}, b"", port)


ANSWERS = [
    ("GET", "/v2", 200, {"name": "headrace", "version": "0.1.0"}),
    ("GET", "/v2/health/live", 200, {"live": True}),
    ("GET", "/v2/health/ready", 200, {"live": True, "ready": True}),
    ("GET", "/v2/models/digits", 200, {"name": "digits", "versions": ["1", "2"]}),
    ("GET", "/v2/models/digits/versions/1", 200, {"name": "digits", "versions": ["1"]}),
    ("GET", "/v2/models/vad/versions/3", 200, {"name": "vad", "versions": ["3"]}),
    ("GET", "/v2/models/digits/ready", 200, {"name": "digits", "ready": True}),
    ("GET", "/v2/models/slow/ready", 503, {"name": "slow", "ready": False}),
    ("GET", "/v2/models/broken/ready", 503, {"name": "broken", "ready": False}),
    ("GET", "/v2/models/digits/config", 200, {"name": "digits", "max_batch_size": 64}),
    ("GET", "/v2/models/slow", 200, {"name": "slow"}),
    ("GET", "/", 200, {"status": "alive"}),
    ("GET", "/v1/models/digits", 200, {"name": "digits", "ready": True}),
    ("GET", "/v2/models/digits/", 404, {"error": v2.NOT_FOUND}),
    ("PUT", "/v2/models/digits", 405, {"error": "Method Not Allowed: this path takes GET, HEAD"}),
    ("GET", "/v2/models/digits/infer", 405, {"error": "Method Not Allowed: this path takes POST"}),
    ("POST", "/v2/repository/r/index", 501, {"error": "'repository_name' specification is not supported"}),
]


@pytest.mark.parametrize(("method", "path", "status", "expected"), ANSWERS)
def test_answers(method: str, path: str, status: int, expected: dict[str, object]) -> None:
    response = ask(path, method)
    assert response.status == status
    assert response.content_type == "application/json"
    document = json.loads(response.body)
    assert {key: document[key] for key in expected} == expected


ERRORS = [
    ("POST", "/v2/models/foo/infer", 404, "Request for unknown model: 'foo' is not found"),
    ("POST", "/v2/models/digit/infer", 404, "Request for unknown model: 'digit' is not found; did you mean 'digits'?"),
    ("POST", "/v2/models/digits/versions/7/infer", 404, "Request for unknown model: 'digits' version 7 is not found"),
    ("POST", "/v2/models/slow/infer", 503, "'slow' version 1 is not at ready state (LOADING)"),
    ("POST", "/v2/models/broken/infer", 503, "(UNAVAILABLE: opset 99 is newer than this runtime)"),
    ("POST", "/v2/models/digits/infer", 503, "send the request again"),
    ("GET", "/v2/models/foo", 404, "Request for unknown model: 'foo' is not found"),
    ("GET", "/v2/models/foo/ready", 404, "Request for unknown model: 'foo' is not found"),
    ("GET", "/v2/models/foo/config", 404, "Request for unknown model: 'foo' is not found"),
    ("GET", "/v2/models/foo/stats", 404, "Request for unknown model: 'foo' is not found"),
    ("GET", "/v2/models/broken", 503, "opset 99"),
    ("GET", "/v2/models/broken/config", 503, "opset 99"),
    ("POST", "/v2/models/digits/generate", 501, "generate"),
    ("POST", "/v1/models/none:predict", 404, "Servable not found for request: Latest(none)"),
    ("POST", "/v1/models/digits:regress", 400, "Expected regression signature method_name"),
    ("POST", "/v1/models/slow:predict", 503, "Servable not found for request: Latest(slow) (LOADING"),
]


@pytest.mark.parametrize(("method", "path", "status", "text"), ERRORS)
def test_errors(method: str, path: str, status: int, text: str) -> None:
    response = ask(path, method)
    assert response.status == status
    document = json.loads(response.body)
    assert list(document) == ["error"]
    assert text in document["error"]
    # Waiting helps where a model loads, not where it cannot be served.
    expects_retry = status == 503 and "broken" not in path
    assert dict(response.headers).get("Retry-After") == ("2" if expects_retry else None)


def test_method_not_allowed_names_the_methods() -> None:
    assert ask("/v2/models/digits/infer", "GET").headers == (("Allow", "POST"),)
    assert ask("/v2", "POST").headers == (("Allow", "GET, HEAD"),)
    assert ask("/v2/logging", "DELETE").headers == (("Allow", "GET, HEAD, POST"),)


@pytest.mark.parametrize("path", ["/v2", "/v2/models/digits", "/v2/health/ready", "/v2/models/foo"])
def test_head_has_the_answer_of_get(path: str) -> None:
    assert ask(path, "HEAD") == ask(path, "GET")


@pytest.mark.parametrize("port", ["http", "metrics"])
def test_a_draining_server_is_alive_and_not_ready(port: str) -> None:
    draining = handlers(readiness="the server is shutting down")
    ready = ask("/v2/health/ready", port=port, target=draining)
    assert (ready.status, ready.headers) == (503, (("Retry-After", "2"),))
    assert json.loads(ready.body) == {"live": True, "ready": False, "error": "the server is shutting down"}
    assert ask("/v2/health/live", port=port, target=draining).status == 200


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v2/models/stats", [("digits", "1"), ("digits", "2"), ("vad", "3"), ("slow", "1"), ("broken", "1")]),
        ("/v2/models/digits/stats", [("digits", "1"), ("digits", "2")]),
        ("/v2/models/digits/versions/2/stats", [("digits", "2")]),
    ],
)
def test_statistics_of_all_of_a_model_of_a_version(path: str, expected: list[tuple[str, str]]) -> None:
    entries = json.loads(ask(path).body)["model_stats"]
    assert [(one["name"], one["version"]) for one in entries] == expected
    assert all(one["inference_stats"]["success"] == {"count": 3, "ns": 4_003_000} for one in entries)


@pytest.mark.parametrize("openmetrics", [False, True])
def test_metrics_have_their_own_port_and_two_formats(openmetrics: bool) -> None:
    accept = {"accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"} if openmetrics else {}
    response = ask("/metrics", port="metrics", headers=accept)
    assert response.status == 200
    assert response.content_type.startswith("application/openmetrics-text" if openmetrics else "text/plain")
    families = exposition.parse(response.body, openmetrics=openmetrics)
    assert families["headrace_connections"].samples["headrace_connections", ()] == 3
    elsewhere = ask("/metrics")
    assert elsewhere.status == 404 and b"--metrics-port" in elsewhere.body
    assert ask("/v2/models/digits", port="metrics").status == 404


def test_a_bug_is_answered_without_its_details_and_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Snapshot:
        raise KeyError("secret path /srv/models")

    lines: list[tuple[str, dict[str, object]]] = []
    monkeypatch.setattr(log, "error", lambda event, msg="", **fields: lines.append((event, fields)))
    broken = Handlers(StaticCatalog(MODELS), ServerInfo(), fail, lambda: "")
    response = ask("/v2/models/stats", target=broken)
    assert response.status == 500
    assert b"secret" not in response.body
    assert list(json.loads(response.body)) == ["error"]
    assert [event for event, _ in lines] == ["handler_failed"]
    assert "secret" in str(lines[0][1]["error"])


@pytest.mark.parametrize(
    ("error", "status", "headers"),
    [
        (errors.QueueFullError("full", 3), 503, (("Retry-After", "3"),)),
        (errors.DeadlineExceededError("late", None), 504, ()),
        (errors.PayloadTooLargeError("large"), 413, ()),
        (errors.MethodNotAllowedError("no", ("GET", "HEAD")), 405, (("Allow", "GET, HEAD"),)),
        (errors.InferenceFailedError("failed"), 500, ()),
    ],
)
def test_errors_of_the_tree_become_answers(
    error: errors.HeadraceError, status: int, headers: tuple[tuple[str, str], ...]
) -> None:
    response = handlers().error(error)
    assert (response.status, response.headers) == (status, headers)
    assert json.loads(response.body) == {"error": error.text}
