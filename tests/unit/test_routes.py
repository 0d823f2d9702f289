"""routes.py: every path that the field's clients use, and the paths that look like them."""

from __future__ import annotations

import pytest

from server.protocol import routes
from server.protocol.routes import HTTP_PORT, METHOD_NOT_ALLOWED, METRICS_PORT, NOT_FOUND, NOT_SUPPORTED, ROUTES

FOUND = [
    ("GET", "/v2", "server_metadata", "", None),
    ("GET", "/v2/health/live", "server_live", "", None),
    ("GET", "/v2/health/ready", "server_ready", "", None),
    ("GET", "/v2/models/m", "model_metadata", "m", None),
    ("GET", "/v2/models/m/versions/3", "model_metadata", "m", "3"),
    ("GET", "/v2/models/m/ready", "model_ready", "m", None),
    ("GET", "/v2/models/m/versions/3/ready", "model_ready", "m", "3"),
    ("GET", "/v2/models/m/config", "model_config", "m", None),
    ("GET", "/v2/models/m/versions/3/config", "model_config", "m", "3"),
    ("GET", "/v2/models/m/stats", "model_statistics", "m", None),
    ("GET", "/v2/models/m/versions/3/stats", "model_statistics", "m", "3"),
    ("GET", "/v2/models/stats", "statistics", "", None),
    ("POST", "/v2/models/m/infer", "infer", "m", None),
    ("POST", "/v2/models/m/versions/3/infer", "infer", "m", "3"),
    ("GET", "/v2/models/versions", "model_metadata", "versions", None),
    ("GET", "/v2/models/ready/ready", "model_ready", "ready", None),
    ("GET", "/v2/models/a%20b", "model_metadata", "a%20b", None),
]


@pytest.mark.parametrize(("method", "path", "handler", "model", "version"), FOUND)
def test_routes_of_v2(method: str, path: str, handler: str, model: str, version: str | None) -> None:
    match = routes.resolve(HTTP_PORT, method, path)
    assert (match.handler, match.model, match.version) == (handler, model, version)


NOWHERE = [
    "",
    "//",
    "*",
    "v2",
    "/v2/",
    "/V2",
    "/v2/health",
    "/v2/health/",
    "/v2/health/live/",
    "/v2/health/LIVE",
    "/v2/health/other",
    "/v2/models",
    "/v2/models/",
    "/v2/models/m/",
    "/v2/models//ready",
    "/v2/models/m//ready",
    "/v2/models/m/ready/",
    "/v2/models/m/unknown",
    "/v2/models/m/versions",
    "/v2/models/m/versions/",
    "/v2/models/m/versions/x",
    "/v2/models/m/versions/-1",
    "/v2/models/m/versions/1.0",
    "/v2/models/m/versions/\u0663",
    "/v2/models/m/versions/1/",
    "/v2/models/m/versions/1/ready/",
    "/v2/models/m/versions/1/ready/more",
    "/v2/models/a/b/c/d/e/f/g/h/i/j",
    "/metrics",
    "/v1",
    "/v1/other",
    "/v1/modelsx",
    "/v3",
    "/monitoring/prometheus/metrics",
]


@pytest.mark.parametrize("path", NOWHERE)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE"])
def test_paths_without_a_route(method: str, path: str) -> None:
    assert routes.resolve(HTTP_PORT, method, path).handler == NOT_FOUND


def fill(pattern: str) -> str:
    return pattern.format(model="m", version="7", repository="r", region="x")


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.port} {route.pattern}")
def test_every_route_answers_its_methods_and_refuses_the_others(route: routes.Route) -> None:
    path = fill(route.pattern)
    rows = [other for other in ROUTES if (other.port, other.pattern) == (route.port, route.pattern)]
    taken = {method: other for other in rows for method in other.methods}
    for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
        match = routes.resolve(route.port, method, path)
        if method in taken:
            assert match.handler == taken[method].handler
            assert match.text == taken[method].text
        else:
            assert match.handler == METHOD_NOT_ALLOWED
            assert match.allow == tuple(taken)
    assert ("HEAD" in route.methods) == ("GET" in route.methods)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.port} {route.pattern}")
def test_a_trailing_slash_is_another_path(route: routes.Route) -> None:
    assert routes.resolve(route.port, route.methods[0], fill(route.pattern) + "/").handler == NOT_FOUND


UNSUPPORTED = [
    ("POST", "/v2/models/m/generate", "generate"),
    ("POST", "/v2/models/m/versions/1/generate_stream", "generate"),
    ("POST", "/v2/repository/r/index", "'repository_name' specification is not supported"),
    ("POST", "/v2/repository/r/models/m/load", "'repository_name' specification is not supported"),
]


@pytest.mark.parametrize(("method", "path", "text"), UNSUPPORTED)
def test_known_features_that_are_not_here_say_so(method: str, path: str, text: str) -> None:
    match = routes.resolve(HTTP_PORT, method, path)
    assert match.handler == NOT_SUPPORTED
    assert text in match.text


@pytest.mark.parametrize(
    ("path", "handler"),
    [
        ("/metrics", "metrics"),
        ("/v2/health/live", "server_live"),
        ("/v2/health/ready", "server_ready"),
        ("/", NOT_FOUND),
        ("/v2", NOT_FOUND),
        ("/v2/models/m", NOT_FOUND),
        ("/v1/models", NOT_FOUND),
        ("/metrics/", NOT_FOUND),
    ],
)
def test_metrics_port(path: str, handler: str) -> None:
    assert routes.resolve(METRICS_PORT, "GET", path).handler == handler


def test_the_longest_target_is_cheap() -> None:
    assert routes.resolve(HTTP_PORT, "GET", "/" * 8192).handler == NOT_FOUND
    assert routes.resolve(HTTP_PORT, "GET", "/v2/models/" + "m" * 8192).model == "m" * 8192
