"""Traces of a worker's requests: which are traced, and their lines in the log.

A line has the model, the request's id, the protocol and the times of the request in nanoseconds of the monotonic clock,
in Triton's names. A traced request's turn comes by counts that all workers share (TraceCell of layout.h); a lane whose
requests are not traced pays one comparison for each.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from server import log
from server._fast.infer_call import LaneClient
from server._fast.layout import Control
from server.channel import Document
from server.protocol import trace_settings
from server.protocol.trace_settings import Setting

#: Lines that a worker keeps at most, whatever log_frequency says.
MAX_KEPT = 10_000

Times = tuple[int, int, int, int, int]


class Lane(NamedTuple):
    """What tracing needs of a lane."""

    client: LaneClient
    model: str
    version: str


class Tracing:
    """One event loop thread. `lanes` gives those that requests reach."""

    def __init__(self, control: Control, lanes: Callable[[], Iterable[Lane]]) -> None:
        self._control = control
        self._lanes = lanes
        self._server = Setting()
        self._models: dict[str, tuple[int, Setting]] = {}
        self._kept: list[dict[str, Any]] = []

    def set(self, document: Document) -> None:
        """The supervisor says what is traced from now on; lines that were kept are written."""
        self.flush()
        self._server = Setting().of(document["server"])
        self._models = {name: (cell, self._server.of(own)) for name, (cell, own) in document["models"].items()}
        self.apply()

    def apply(self) -> None:
        """Lanes have come: their requests are traced like others of their model."""
        for lane in self._lanes():
            cell, setting = self._models.get(lane.model, (0, self._server))
            if setting.trace_level == trace_settings.OFF:
                lane.client.set_trace(0, 0, None, None)
            else:
                sink = functools.partial(self._on_traced, lane.model, lane.version, setting.log_frequency)
                lane.client.set_trace(setting.trace_rate, cell, self._control, sink)

    def document(self, model: str = "") -> dict[str, Any]:
        """The settings of a model, or of the server."""
        cell, setting = self._models.get(model, (0, self._server))
        return trace_settings.document(setting, self._control.trace_left(cell))

    def flush(self) -> None:
        """Writes the lines that are kept."""
        kept, self._kept = self._kept, []
        for fields in kept:
            log.current().write("info", "trace", "", fields)

    def _on_traced(
        self, model: str, version: str, log_frequency: int, identity: bytes, protocol: str, code: int, times: Times
    ) -> None:
        received_ns, published_ns, run_start_ns, run_end_ns, replied_ns = times
        fields: dict[str, Any] = {
            "model_name": model,
            "model_version": version,
            "request_id": identity.decode("utf-8", "replace"),
            "protocol": protocol,
            "is_error": code != 0,
            "timestamps": {
                "REQUEST_START": received_ns,
                "QUEUE_START": published_ns,
                "COMPUTE_START": run_start_ns,
                "COMPUTE_INPUT_END": run_start_ns,
                "COMPUTE_OUTPUT_START": run_end_ns,
                "COMPUTE_END": run_end_ns,
                "REQUEST_END": replied_ns,
            },
        }
        self._kept.append(fields)
        if len(self._kept) >= min(log_frequency, MAX_KEPT):
            self.flush()
