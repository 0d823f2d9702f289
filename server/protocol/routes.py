"""The route table: which handler a (port, method, path) has, for every path the field's clients know.

Patterns are those of Triton's `src/http_server.cc` and TensorFlow Serving's `http_rest_api_handler.cc`: the query is
not looked at, names are not percent-decoded, a version is digits, a trailing slash is another path. A route whose
extension this server does not have answers 501 and says so, which a client can tell from a typing error's 404.
"""

from __future__ import annotations

from typing import NamedTuple

HTTP_PORT = "http"
METRICS_PORT = "metrics"

GET = ("GET", "HEAD")
POST = ("POST",)

#: As Triton and as TensorFlow Serving call it.
METRICS_PATHS = ("/metrics", "/monitoring/prometheus/metrics")

# Handlers of every path that has no route, or not for this method.
NOT_FOUND = "not_found"
METHOD_NOT_ALLOWED = "method_not_allowed"
NOT_SUPPORTED = "not_supported"

_GENERATE = "the generate extension is not supported; use POST /v2/models/MODEL/infer"
_REPOSITORY_NAME = "'repository_name' specification is not supported"


class Route(NamedTuple):
    """One row: the path's segments ('{name}' takes any one segment, '{version}' digits), what answers it."""

    port: str
    methods: tuple[str, ...]
    pattern: str
    handler: str
    text: str = ""


def _with_versions(methods: tuple[str, ...], tail: str, handler: str, text: str = "") -> tuple[Route, ...]:
    return tuple(
        Route(HTTP_PORT, methods, f"/v2/models/{{model}}{middle}{tail}", handler, text)
        for middle in ("", "/versions/{version}")
    )


def _unsupported(methods: tuple[str, ...], *patterns: str, text: str) -> tuple[Route, ...]:
    return tuple(Route(HTTP_PORT, methods, pattern, NOT_SUPPORTED, text) for pattern in patterns)


def _shared_memory(kind: str, handlers: str) -> tuple[Route, ...]:
    """The routes of one kind of shared memory; its handlers are {handlers}_status, _register and _unregister."""
    base = f"/v2/{kind}sharedmemory"
    rows = (
        (GET, f"{base}/status", "status"),
        (GET, f"{base}/region/{{region}}/status", "status"),
        (POST, f"{base}/region/{{region}}/register", "register"),
        (POST, f"{base}/region/{{region}}/unregister", "unregister"),
        (POST, f"{base}/unregister", "unregister"),
    )
    return tuple(Route(HTTP_PORT, methods, pattern, f"{handlers}_{what}") for methods, pattern, what in rows)


#: First match wins: literal paths stand before the patterns that would also take them.
ROUTES: tuple[Route, ...] = (
    Route(HTTP_PORT, GET, "/", "kserve_alive"),
    Route(HTTP_PORT, GET, "/v2", "server_metadata"),
    Route(HTTP_PORT, GET, "/v2/health/live", "server_live"),
    Route(HTTP_PORT, GET, "/v2/health/ready", "server_ready"),
    Route(METRICS_PORT, GET, "/v2/health/live", "server_live"),
    Route(METRICS_PORT, GET, "/v2/health/ready", "server_ready"),
    *(Route(METRICS_PORT, GET, path, "metrics") for path in METRICS_PATHS),
    Route(HTTP_PORT, GET, "/v2/models/stats", "statistics"),
    *_with_versions(GET, "", "model_metadata"),
    *_with_versions(GET, "/ready", "model_ready"),
    *_with_versions(GET, "/config", "model_config"),
    *_with_versions(GET, "/stats", "model_statistics"),
    *_with_versions(POST, "/infer", "infer"),
    *_with_versions(POST, "/generate", NOT_SUPPORTED, _GENERATE),
    *_with_versions(POST, "/generate_stream", NOT_SUPPORTED, _GENERATE),
    *_with_versions(GET, "/trace/setting", "trace_setting"),
    *_with_versions(POST, "/trace/setting", "set_trace"),
    Route(HTTP_PORT, GET, "/v2/trace/setting", "trace_setting"),
    Route(HTTP_PORT, POST, "/v2/trace/setting", "set_trace"),
    Route(HTTP_PORT, GET, "/v2/logging", "log_settings"),
    Route(HTTP_PORT, POST, "/v2/logging", "set_log"),
    Route(HTTP_PORT, GET, "/openapi.json", "openapi"),
    Route(HTTP_PORT, POST, "/v2/repository/index", "repository_index"),
    Route(HTTP_PORT, POST, "/v2/repository/models/{model}/load", "repository_load"),
    Route(HTTP_PORT, POST, "/v2/repository/models/{model}/unload", "repository_unload"),
    *_unsupported(
        POST,
        "/v2/repository/{repository}/index",
        "/v2/repository/{repository}/models/{model}/load",
        "/v2/repository/{repository}/models/{model}/unload",
        text=_REPOSITORY_NAME,
    ),
    *_shared_memory("system", "memory"),
    *_shared_memory("cuda", "cuda_memory"),
)


class Match(NamedTuple):
    """What `resolve` found: a handler's name, the path's variables, and for an error what to say."""

    handler: str
    model: str = ""
    version: str | None = None
    allow: tuple[str, ...] = ()
    text: str = ""
    region: str = ""


class _Entry(NamedTuple):
    segments: tuple[str, ...]
    route: Route


def _index() -> dict[tuple[str, int], list[_Entry]]:
    index: dict[tuple[str, int], list[_Entry]] = {}
    for route in ROUTES:
        segments = tuple(route.pattern.split("/")[1:])
        index.setdefault((route.port, len(segments)), []).append(_Entry(segments, route))
    return index


_BY_LENGTH = _index()
_MOST_SEGMENTS = max(length for _, length in _BY_LENGTH)
_NO_MATCH = Match(NOT_FOUND)


def resolve(port: str, method: str, path: str) -> Match:
    """The answer's handler for a request target's path (no query, begins with '/')."""
    if not path.startswith("/"):
        return _NO_MATCH
    segments = path[1:].split("/", _MOST_SEGMENTS)
    allowed: list[str] = []
    for entry in _BY_LENGTH.get((port, len(segments)), ()):
        variables = _match(entry.segments, segments)
        if variables is None:
            continue
        route = entry.route
        if method in route.methods:
            return Match(
                route.handler,
                variables.get("{model}", ""),
                variables.get("{version}"),
                (),
                route.text,
                variables.get("{region}", ""),
            )
        allowed += [one for one in route.methods if one not in allowed]
    if allowed:
        return Match(METHOD_NOT_ALLOWED, allow=tuple(allowed))
    return _NO_MATCH


def _match(pattern: tuple[str, ...], segments: list[str]) -> dict[str, str] | None:
    variables: dict[str, str] = {}
    for expected, found in zip(pattern, segments, strict=True):
        if expected[:1] == "{":
            if not found or (expected == "{version}" and not _is_digits(found)):
                return None
            variables[expected] = found
        elif expected != found:
            return None
    return variables


def _is_digits(text: str) -> bool:
    return text.isascii() and text.isdigit()
