"""Inference calls of one worker."""

from collections.abc import Callable

from server._fast.infer_spec import Spec
from server._fast.lane_admission import LaneAdmission
from server._fast.layout import Arena, Control

class Turn:
    """Told at most once per loop turn that a lane has to be woken at its end."""

class Responder:
    """Whoever asked for a call."""

class LaneClient(LaneAdmission):
    """A worker's side of a lane: claims rows, fills them, delivers the finished ones. One event loop thread.

    owner: the worker's id; instance_bells: eventfds of the executor's instances.
    """

    arena: Arena
    spec: Spec
    pending_count: int
    #: Answers leave in the order in which the requests came.
    is_ordered: bool
    def __init__(self, arena: Arena, spec: Spec, owner: int, instance_bells: list[int], turn: Turn) -> None: ...
    def set_trace(
        self,
        rate: int,
        cell: int,
        control: Control | None,
        sink: Callable[[bytes, str, int, tuple[int, int, int, int, int]], None] | None,
    ) -> None:
        """From now on one of `rate` requests is told to sink(id, protocol, code, times in ns), by the counts of a cell.

        The times: received, published, run begun, run ended, reply written. Rate 0: none.
        """
