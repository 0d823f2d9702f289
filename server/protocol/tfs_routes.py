"""Paths of TensorFlow Serving's REST API and of KServe V1, which are the same: /v1/models…

The grammar is that of TensorFlow Serving's `http_rest_api_util.cc`: letters in either case, names and labels
percent-encoded, a version is digits, no trailing slash, the query is not looked at. The predict call of a ready model
never comes here: server/_fast/tfs_path.pxd finds it by the same grammar.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

PREDICT = "predict"
CLASSIFY = "classify"
REGRESS = "regress"
STATUS = "status"
METADATA = "metadata"
LIST = "list"
# A path of this API that its grammar does not allow; `text` says so.
MALFORMED = "malformed"

_MODEL = r"(?:(?:/versions/([0-9]+))|(?:/labels/([^/:]+)))?"
_CALL = re.compile(rf"/v1/models/([^/:]+){_MODEL}:(classify|regress|predict)", re.IGNORECASE | re.ASCII)
_READ = re.compile(rf"/v1/models(?:/([^/:]+))?{_MODEL}(?:/(metadata))?", re.IGNORECASE | re.ASCII)
_OURS = re.compile(r"/v1/models(?:[/:]|\Z)", re.IGNORECASE | re.ASCII)
_MAX_VERSION = 2**63 - 1


class TfsMatch(NamedTuple):
    """What a request asks for: one of the kinds above; `version` is a decimal without leading zeros."""

    kind: str
    model: str = ""
    version: str | None = None
    label: str | None = None
    text: str = ""


def parse(method: str, path: str) -> TfsMatch | None:
    """The match of a request target's path (no query; bytes as latin-1), or None: no path of this API."""
    if not _OURS.match(path):
        return None
    if method == "POST" and (call := _CALL.fullmatch(path)):
        name, version, label, kind = call.groups()
        return _match(kind.lower(), name, version, label)
    if method in ("GET", "HEAD") and (read := _READ.fullmatch(path)):
        name, version, label, resource = read.groups()
        if name is None and version is None and label is None and resource is None:
            return TfsMatch(LIST)
        if name is None:
            return TfsMatch(MALFORMED, text="Missing model name in request.")
        return _match(METADATA if resource else STATUS, name, version, label)
    return TfsMatch(MALFORMED, text=f"Malformed request: {method} {path}")


def _match(kind: str, name: str, version: str | None, label: str | None) -> TfsMatch:
    if version is not None:
        # Compared as text first: Python refuses to convert very long ones.
        digits = version.lstrip("0") or "0"
        if len(digits) > 19 or int(digits) > _MAX_VERSION:
            return TfsMatch(MALFORMED, text=f"Failed to convert version: {version[:64]} to numeric.")
        version = digits
    return TfsMatch(kind, _decoded(name), version, None if label is None else _decoded(label))


def _decoded(segment: str) -> str:
    return unquote_to_bytes(segment.encode("latin-1", "replace")).decode("utf-8", "replace")
