"""The executor process of a device: all its models in one process, each with its own session; they come and go.

Three kinds of threads. The instances run batches: SharedServe, as many as the model with most instances has. One keeper
loads models, one after the other, and lets go of those that ended: whatever it does, the instances go on, since ONNX
Runtime loads and runs without the interpreter's lock. The main thread hears the supervisor and waits for an end.

What the supervisor says: `lane` (a model to be loaded, with its arena), `drop` (a lane that has been shut down), `end`.
What it is told: `loading` before a model is loaded, so that it knows whom a death is about; `failed`, or `again` if it
may go well another time; and `over` when nothing of a lane is left. That a model is ready stands in its arena.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import select
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import NamedTuple

from server import log, yielding
from server._fast.lane_sharing import Sharing
from server._fast.layout import Arena, Control
from server._fast.shared_lanes import SharedLanes
from server.channel import Channel, ChannelClosed
from server.executor.backend import DeviceLostError
from server.executor.limits import limit_executor
from server.executor.process import (
    EXIT_LOAD_FAILED,
    EXIT_START_AGAIN,
    MODEL_READY,
    ExecutorPlan,
    load,
    note_load_failure,
    plan_of,
)
from server.executor.shared_serve import SharedServe, Turns
from server.models.plan_document import from_document

#: Of lane_sharing.pxd.
MAX_LANES = 256
#: How long a thread of Python may keep the others waiting: the keeper's is nobody's business.
SWITCH_S = 0.0005


class SharedPlan(NamedTuple):
    """What the process is started with; descriptors are inherited, shared segments are already mapped.

    bells: of all instances that there may be. lanes: what there is to load at first, as (number, values of
    plan_values(), arena); taken out, so that nothing here keeps a lane that has gone.
    """

    lanes: list[tuple[int, dict[str, object], Arena]]
    control: Control
    bells: Sequence[int]
    worker_bells: Sequence[int]
    supervisor_bell: int
    lifeline: int
    channel: Channel
    has_accelerator: bool


class _Coming(NamedTuple):
    number: int
    plan: ExecutorPlan


class _Held:
    """A lane that is served: `left` instances have not let go of it."""

    def __init__(self, number: int, left: int) -> None:
        self.number = number
        self.left = left


def main(plan: SharedPlan) -> int:
    """Serves until told to end or left alone; the exit status. Called in a fresh child of the supervisor."""
    limit_executor(has_accelerator=plan.has_accelerator)
    # numpy's library for linear algebra would start a thread for every processor, which nothing here would use.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.setswitchinterval(SWITCH_S)
    # In the main thread, before there is anybody to wait for it; what is loaded here stays.
    importlib.import_module("server.executor.onnx_backend")
    gc.freeze()
    yielding.end()
    return SharedProcess(plan).run()


class SharedProcess:
    """All state of the process."""

    def __init__(self, plan: SharedPlan) -> None:
        self._plan = plan
        self._sharing = Sharing(MAX_LANES)
        self._turns = Turns()
        self._serves: list[SharedServe] = []
        #: By the lane's place in the instances' books.
        self._held: dict[int, _Held] = {}
        self._lock = threading.Lock()
        #: For the keeper: a lane to load, or the place of one to let go of.
        self._queue: SimpleQueue[_Coming | int] = SimpleQueue()
        #: Numbers of lanes that shall not be loaded any more.
        self._dropped: set[int] = set()
        self._broken_read, self._broken_write = os.pipe2(os.O_CLOEXEC)
        while plan.lanes:
            number, values, arena = plan.lanes.pop(0)
            self._queue.put(_Coming(number, self._plan_of(values, arena)))

    def run(self) -> int:
        """In the main thread, until the end."""
        self._start(self._keep, "keeper")
        poller = select.poll()
        poller.register(self._plan.lifeline, select.POLLHUP)
        poller.register(self._broken_read, select.POLLIN)
        poller.register(self._plan.channel.fileno(), select.POLLIN)
        while True:
            for fd, _ in poller.poll():
                if fd != self._plan.channel.fileno():
                    yielding.leave()
                    # Nobody is left to answer, or a thread failed in a way that only a new process mends.
                    return EXIT_START_AGAIN
                try:
                    if self._hear():
                        yielding.leave()
                        return 0
                except ChannelClosed:
                    # The supervisor has gone; its workers finish what they hold.
                    poller.unregister(fd)

    def _hear(self) -> bool:
        """Does what the supervisor says; whether that is to end."""
        while (message := self._plan.channel.receive()) is not None:
            document, descriptors = message
            if document["kind"] == "end":
                return True
            if document["kind"] == "drop":
                self._dropped.add(document["lane"])
            else:
                plan = self._plan_of(from_document(document["plan"]), Arena(descriptors[0]))
                self._queue.put(_Coming(document["lane"], plan))
        return False

    def _plan_of(self, values: dict[str, object], arena: Arena) -> ExecutorPlan:
        plan = self._plan
        return plan_of(
            values,
            arena=arena,
            control=plan.control,
            # It has as many instances as its arena says, and all lanes have the same bells.
            instance_bells=plan.bells[: arena.instance_count],
            worker_bells=plan.worker_bells,
            supervisor_bell=plan.supervisor_bell,
            lifeline=plan.lifeline,
        )

    def _tell(self, kind: str, number: int) -> None:
        """To the supervisor. The keeper's."""
        self._plan.channel.send({"kind": kind, "lane": number})

    def _start(self, target: Callable[[], None], name: str) -> None:
        """A thread whose end is the end of the process."""

        def run() -> None:
            try:
                target()
            except DeviceLostError as error:
                log.error("device_lost", f"{error}: a new process starts", thread=name)
            except BaseException:
                log.error("instance_crashed", traceback=traceback.format_exc(), thread=name)
            finally:
                os.write(self._broken_write, b"x")

        threading.Thread(target=run, name=name, daemon=True).start()

    # -- the keeper

    def _keep(self) -> None:
        while True:
            work = self._queue.get()
            if isinstance(work, int):
                self._let_go(work)
            else:
                self._load(work)
            # A session that it held on to would outlive its lane.
            del work

    def _load(self, coming: _Coming) -> None:
        number, plan = coming
        if number in self._dropped:
            self._dropped.discard(number)
            self._tell("over", number)
            return
        self._tell("loading", number)
        try:
            place = next((place for place in range(MAX_LANES) if place not in self._held), None)
            if place is None:
                raise ValueError(f"an executor serves at most {MAX_LANES} models: start with --executors per-model")
            with yielding.in_background():
                instances = load(plan)
        except Exception as error:
            self._dropped.discard(number)
            if note_load_failure(plan, error) == EXIT_LOAD_FAILED:
                self._tell("failed", number)
                return
            if isinstance(error, DeviceLostError):
                # To all models.
                raise
            self._tell("again", number)
            return
        self._sharing.clear(place)
        with self._lock:
            self._held[place] = _Held(number, len(instances))
        while len(self._serves) < len(instances):
            self._add_instance()
        for serve, instance in zip(self._serves, instances, strict=False):
            serve.add(place, instance.lane, instance.runner)
        plan.arena.set_state(MODEL_READY, "")
        os.eventfd_write(plan.supervisor_bell, 1)

    def _add_instance(self) -> None:
        index = len(self._serves)
        lanes = SharedLanes(self._sharing, index, list(self._plan.bells))
        serve = SharedServe(lanes, self._on_over, self._turns)
        self._serves.append(serve)
        self._turns.instance_count = len(self._serves)
        self._start(serve.run, f"instance-{index}")

    def _let_go(self, place: int) -> None:
        with self._lock:
            number = self._held.pop(place).number
        self._dropped.discard(number)
        gc.collect()
        with contextlib.suppress(AttributeError):
            # Else the weights' memory would stay with the process.
            ctypes.CDLL(None).malloc_trim(0)
        self._tell("over", number)

    # -- instances

    def _on_over(self, place: int) -> None:
        """An instance has nothing of the lane any more. In its thread."""
        with self._lock:
            held = self._held[place]
            held.left -= 1
            is_last = held.left == 0
        if is_last:
            self._queue.put(place)
