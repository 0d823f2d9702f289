"""Where a loaded model runs, as its executor tells the others through the arena."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

#: What the arena has room for (PLACED_TEXT_BYTES of layout.h).
MAX_BYTES = 444
_MAX_FALLBACK = 200


class Assignment(NamedTuple):
    """device: `cpu`, `cuda:0`, `openvino:CPU`; nodes: of the graph, by execution provider; fallback: why the CPU runs
    what an accelerator was expected to run, or empty. Of a model on several devices this is the first; instances: those
    on it, 0 for all that there are. measured: what runs take on each device, as (rows, ns), of a model that chose one.
    """

    device: str = "cpu"
    nodes: Mapping[str, int] = {}
    fallback: str = ""
    instances: int = 0
    others: tuple[Assignment, ...] = ()
    measured: Mapping[str, Sequence[tuple[int, int]]] = {}

    @property
    def every(self) -> tuple[Assignment, ...]:
        """One of each device."""
        return (self, *self.others)

    @property
    def devices(self) -> str:
        """For people: `cpu`, `cuda:0, cuda:1`."""
        return ", ".join(one.device for one in self.every)


def to_text(assignment: Assignment) -> str:
    """At most MAX_BYTES in UTF-8."""
    documents = [_document(one) for one in assignment.every]
    while len((text := _text(documents)).encode()) > MAX_BYTES:
        most = max(documents, key=lambda document: len(document["nodes"]))
        if most["nodes"]:
            most["nodes"].popitem()
        else:
            del next(document for document in documents if "fallback" in document)["fallback"]
    return text


def _text(documents: list[dict[str, Any]]) -> str:
    first, *others = ({key: value for key, value in document.items() if value} for document in documents)
    return json.dumps({**first, "others": others} if others else first, separators=(",", ":"))


def _document(assignment: Assignment) -> dict[str, Any]:
    document: dict[str, Any] = {"device": assignment.device, "nodes": dict(assignment.nodes)}
    if assignment.fallback:
        document["fallback"] = assignment.fallback[:_MAX_FALLBACK]
    if assignment.instances:
        document["instances"] = assignment.instances
    if assignment.measured:
        document["measured"] = {device: list(cells) for device, cells in assignment.measured.items()}
    return document


def from_text(text: str) -> Assignment:
    """What to_text made; the CPU while nothing is known."""
    return _assignment(json.loads(text)) if text else Assignment()


def _assignment(document: dict[str, Any]) -> Assignment:
    return Assignment(
        document["device"],
        document.get("nodes", {}),
        document.get("fallback", ""),
        document.get("instances", 0),
        tuple(_assignment(one) for one in document.get("others", ())),
        {device: [(rows, ns) for rows, ns in cells] for device, cells in document.get("measured", {}).items()},
    )
