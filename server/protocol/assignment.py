"""Where a loaded model runs, as its executor tells the others through the arena."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

#: What the arena has room for (PLACED_TEXT_BYTES of layout.h).
MAX_BYTES = 444
_MAX_FALLBACK = 200


class Assignment(NamedTuple):
    """device: `cpu`, `cuda:0`, `openvino:CPU`; nodes: of the graph, by execution provider; fallback: why the CPU runs
    what an accelerator was expected to run, or empty.
    """

    device: str = "cpu"
    nodes: Mapping[str, int] = {}
    fallback: str = ""


def to_text(assignment: Assignment) -> str:
    """At most MAX_BYTES in UTF-8."""
    document: dict[str, Any] = {"device": assignment.device, "nodes": dict(assignment.nodes)}
    if assignment.fallback:
        document["fallback"] = assignment.fallback[:_MAX_FALLBACK]
    text = json.dumps(document)
    while len(text.encode()) > MAX_BYTES:
        document["nodes"].popitem() if document["nodes"] else document.pop("fallback")
        text = json.dumps(document)
    return text


def from_text(text: str) -> Assignment:
    """What to_text made; the CPU while nothing is known."""
    if not text:
        return Assignment()
    document = json.loads(text)
    return Assignment(document["device"], document["nodes"], document.get("fallback", ""))
