"""server/protocol/tfs_routes: every path of TensorFlow Serving's REST API and of KServe V1."""

from __future__ import annotations

import pytest

from server.protocol.tfs_routes import TfsMatch, parse

MALFORMED = "malformed"


@pytest.mark.parametrize(
    ("method", "path", "match"),
    [
        ("POST", "/v1/models/m:predict", TfsMatch("predict", "m")),
        ("POST", "/V1/Models/M:PREDICT", TfsMatch("predict", "M")),
        ("POST", "/v1/models/m/versions/3:classify", TfsMatch("classify", "m", "3")),
        ("POST", "/v1/models/m/Versions/003:regress", TfsMatch("regress", "m", "3")),
        ("POST", "/v1/models/m/versions/000:predict", TfsMatch("predict", "m", "0")),
        ("POST", "/v1/models/m/labels/stable:predict", TfsMatch("predict", "m", None, "stable")),
        ("POST", "/v1/models/a%20%C3%A9/labels/b%2Fc:predict", TfsMatch("predict", "a é", None, "b/c")),
        ("POST", "/v1/models/a%2:predict", TfsMatch("predict", "a%2")),
        ("POST", "/v1/models/\xc3\xa9:predict", TfsMatch("predict", "é")),
        ("GET", "/v1/models", TfsMatch("list")),
        ("HEAD", "/v1/models", TfsMatch("list")),
        ("GET", "/v1/models/m", TfsMatch("status", "m")),
        ("GET", "/v1/models/m/versions/12", TfsMatch("status", "m", "12")),
        ("GET", "/v1/models/m/labels/canary", TfsMatch("status", "m", None, "canary")),
        ("GET", "/v1/models/m/metadata", TfsMatch("metadata", "m")),
        ("GET", "/v1/models/m/versions/9223372036854775807/METADATA", TfsMatch("metadata", "m", "9223372036854775807")),
        ("GET", "/v1/models/metadata", TfsMatch("status", "metadata")),
        ("GET", "/v1/models/metadata/metadata", TfsMatch("metadata", "metadata")),
        ("GET", "/v1/models/versions/3", TfsMatch(MALFORMED, text="Missing model name in request.")),
        (
            "GET",
            "/v1/models/m/versions/9223372036854775808",
            TfsMatch(MALFORMED, text="Failed to convert version: 9223372036854775808 to numeric."),
        ),
        (
            "POST",
            f"/v1/models/m/versions/{'9' * 5000}:predict",
            TfsMatch(MALFORMED, text=f"Failed to convert version: {'9' * 64} to numeric."),
        ),
    ],
)
def test_parse(method: str, path: str, match: TfsMatch) -> None:
    assert parse(method, path) == match


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models/"),
        ("GET", "/v1/models/m/"),
        ("GET", "/v1/models/m:predict"),
        ("POST", "/v1/models/m"),
        ("POST", "/v1/models"),
        ("POST", "/v1/models/m:explain"),
        ("POST", "/v1/models/m:predict/"),
        ("POST", "/v1/models/m/versions/x:predict"),
        ("POST", "/v1/models/m/versions/1/labels/a:predict"),
        ("POST", "/v1/models/a/b:predict"),
        ("DELETE", "/v1/models/m"),
        ("PUT", "/v1/models/m:predict"),
        ("POST", "/v1/models:predict"),
        ("POST", "/v1/models/m/versions/\xb2:predict"),
    ],
)
def test_malformed(method: str, path: str) -> None:
    assert parse(method, path) == TfsMatch(MALFORMED, text=f"Malformed request: {method} {path}")


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/", "/v1/other", "/v1/modelsx", "/v1/chat/completions", "/v2/models/m", ""]
)
def test_paths_of_others(path: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        assert parse(method, path) is None


def test_a_very_long_path_is_read_at_once() -> None:
    for path in ("/v1/models/" + "a" * 1_000_000, "/v1/models/m/versions/" + "1" * 1_000_000 + "x"):
        assert parse("POST", path) is not None
