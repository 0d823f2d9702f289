"""The executor process: loads one model version and runs its lane until it is told to stop or is left alone."""

from __future__ import annotations

import dataclasses
import functools
import os
import select
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, NamedTuple

from server import log, yielding
from server._fast.layout import Arena, Control
from server.executor import heap
from server.executor.backend import DeviceLostError, LoadError, OutOfMemoryError
from server.executor.limits import limit_executor
from server.executor.run_failures import Failure, failure_of
from server.models.batch_axes import NO_AXES, BatchAxes
from server.models.file_state import FileState
from server.models.model_config import DEFAULT_SESSION, SessionSettings, WarmUp
from server.models.providers import Place
from server.models.shape_rules import NO_PADDING, Padding
from server.option_values import AUTO, CPU, FASTEST
from server.protocol.assignment import Assignment, to_text

if TYPE_CHECKING:
    from server._fast.lane_executor import LaneExecutor
    from server.executor.backend import Backend
    from server.executor.batch_cap import BatchCap
    from server.executor.fastest_device import Chosen
    from server.executor.rows_warm_up import Sample
    from server.executor.runner import RowsRunner, SingleRunner, TensorSpec
    from server.executor.shaped_runner import ShapedRunner

#: The process ended because the model cannot be loaded: starting it again would not help.
EXIT_LOAD_FAILED = 65
#: It cannot go on, a new process may: nobody is left to answer, an instance failed, or the device is lost to it.
EXIT_START_AGAIN = 70

MODEL_READY = 1
MODEL_RESTARTING = 2
MODEL_FAILED = 3


class TensorPlan(NamedTuple):
    """A model's input or output: name, datatype code, dims with -1 for free ones (empty also for unknown)."""

    name: str
    datatype: int
    dims: tuple[int, ...]


class ExecutorPlan(NamedTuple):
    """What an executor is started with; descriptors are inherited, shared segments are already mapped."""

    name: str
    version: int
    path: Path
    arena: Arena
    control: Control
    inputs: Sequence[TensorPlan]
    outputs: Sequence[TensorPlan]
    instance_bells: Sequence[int]
    worker_bells: Sequence[int]
    supervisor_bell: int
    #: Reads end-of-file when the supervisor and every worker have gone.
    lifeline: int
    intra_op_threads: int
    session: SessionSettings = DEFAULT_SESSION
    #: Runs that config.pbtxt asks for before the model is ready.
    warm_ups: Sequence[WarmUp] = ()
    #: The device of each instance; none: as --device auto has it.
    places: Sequence[Place] = ()
    #: The first axis of every tensor counts rows, whether or not rows of different requests run together.
    is_batched: bool = False
    #: Tensors that clients see in another shape: input -> the model's dims, output -> the clients'.
    reshaped: Mapping[str, tuple[int, ...]] = {}
    #: The folder with golden checks, see server.models.golden_files.
    golden: Path | None = None
    padding: Padding = NO_PADDING
    batch_axes: BatchAxes = NO_AXES
    #: What others ask of the devices, as server.models.live_load writes it; for a model that is to be placed.
    live: str = ""
    #: What the model is read from, its file and those of its weights, as they were when it was looked at.
    files: Mapping[Path, FileState] = {}
    #: The process only sees whether the model can be loaded; another one serves it.
    is_trial: bool = False


class Instance(NamedTuple):
    """What serves a lane's batches on one thread, model loaded and warm."""

    lane: LaneExecutor
    runner: RowsRunner | ShapedRunner | SingleRunner


def plan_of(values: dict[str, Any], **others: Any) -> ExecutorPlan:
    """A plan of what server.supervisor.lanes.plan_values gave, and the fields that are not in it."""
    tensors = {key: [TensorPlan(*tensor) for tensor in values[key]] for key in ("inputs", "outputs")}
    return ExecutorPlan(**{**values, **tensors}, **others)


def main(plan: ExecutorPlan) -> int:
    """Serves the lane; the exit status. Called in a fresh child of the supervisor that gives way until it is loaded."""
    limit_executor(has_accelerator=any(place.providers for place in plan.places))
    # numpy's library for linear algebra would start a thread for every processor, which nothing here would use.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        with heap.kept():
            serve = [instance.runner.serve for instance in load(plan)]
    except Exception as error:
        return note_load_failure(plan, error)
    if plan.is_trial:
        return 0
    yielding.end()
    stopped = threading.Event()
    done_read, done_write = os.pipe()

    def run(instance: int) -> None:
        try:
            serve[instance]()
            stopped.set()
        except DeviceLostError as error:
            log.error("device_lost", f"{error}: a new process starts", model=plan.name, instance=instance)
        except BaseException:
            log.error("instance_crashed", traceback=traceback.format_exc(), model=plan.name, instance=instance)
        finally:
            os.write(done_write, b"x")

    threads = [threading.Thread(target=run, args=(index,), daemon=True) for index in range(len(serve))]
    for thread in threads:
        thread.start()
    plan.arena.set_state(MODEL_READY, "")
    _ring(plan.supervisor_bell)
    poller = select.poll()
    poller.register(plan.lifeline, select.POLLHUP)
    poller.register(done_read, select.POLLIN)
    poller.poll()
    # Before what it holds is freed.
    yielding.leave()
    if stopped.is_set():
        for thread in threads:
            thread.join(5.0)
        return 0
    return EXIT_START_AGAIN


def _lacked_memory(error: Exception) -> bool:
    """Whether a model was not loaded for want of memory, which may be there later."""
    cause = error.__cause__ or error
    return isinstance(cause, OutOfMemoryError) or failure_of(cause) is Failure.OUT_OF_MEMORY


def note_load_failure(plan: ExecutorPlan, error: Exception) -> int:
    """What load() raised, to the log and, if it is final, to all processes through the arena. EXIT_LOAD_FAILED, or
    EXIT_START_AGAIN if it may go well another time.
    """
    if isinstance(error, DeviceLostError):
        log.error("device_lost", f"{error}: a new process starts", model=plan.name, version=plan.version)
        return EXIT_START_AGAIN
    if not isinstance(error, LoadError):
        text = "".join(traceback.format_exception(error))
        log.error("model_load_crashed", traceback=text, model=plan.name, version=plan.version)
    # A MemoryError has no text.
    reason = str(error) or ("out of memory" if isinstance(error, MemoryError) else type(error).__name__)
    if plan.arena.model_state == MODEL_RESTARTING and _lacked_memory(error):
        log.error("load_out_of_memory", "it was served before: it is tried again", model=plan.name, reason=reason)
        return EXIT_START_AGAIN
    plan.arena.set_state(MODEL_FAILED, reason)
    _ring(plan.supervisor_bell)
    return EXIT_LOAD_FAILED


def _tell_where(plan: ExecutorPlan, placed: Assignment) -> None:
    """To the log; to all processes it is told through the arena."""
    named = {"model": plan.name, "version": plan.version}
    log.info("model_placed", **named, device=placed.device, nodes=dict(placed.nodes))
    if placed.fallback:
        log.warning("device_fallback", f"the CPU runs it: {placed.fallback}", **named)


def _ring(bell: int) -> None:
    os.eventfd_write(bell, 1)


def _device(
    plan: ExecutorPlan,
    place: Place,
    session: Callable[[str], Backend],
    inputs: list[TensorSpec],
    outputs: list[TensorSpec],
) -> Chosen:
    """What the session gets for --device: a model that names its provider, or of which requests decide the shapes, is
    not measured.
    """
    from server.executor.fastest_device import Chosen, fastest_device, some_sizes

    if place.device != FASTEST:
        return Chosen(place.device, {})
    if place.providers or not plan.arena.rows_mode or plan.batch_axes:
        return Chosen(CPU, {})
    from server._fast import cost_table
    from server.executor.onnx_backend import devices
    from server.models.live_load import from_text

    there = [Place(device).label for device in devices()]
    if there == [CPU]:
        return Chosen(CPU, {})
    sizes = some_sizes(cost_table.sizes(plan.arena))
    return fastest_device(
        session,
        there,
        sizes,
        inputs,
        outputs,
        plan.name,
        from_text(plan.live),
        threads=plan.intra_op_threads,
        instances=len(plan.instance_bells),
    )


class _OnDevice(NamedTuple):
    """The model on one of its devices, warm; samples: what the warm-up of a batched one has measured."""

    backend: Backend
    assignment: Assignment
    samples: list[Sample]


def _load_on(
    plan: ExecutorPlan, place: Place, inputs: list[TensorSpec], outputs: list[TensorSpec], cap: BatchCap
) -> _OnDevice:
    """One session, for all instances of the device. Raises LoadError."""
    from server._fast import cost_table
    from server.executor.backend import ModelError
    from server.executor.configured_warm_up import run_warm_ups
    from server.executor.fastest_device import completed, some_sizes
    from server.executor.golden import check_golden
    from server.executor.onnx_backend import OnnxBackend
    from server.executor.reshaping import ReshapingBackend
    from server.executor.rows_warm_up import warm_up_rows
    from server.executor.shaped_runner import NOT_ROW_BY_ROW, NOT_ROW_BY_ROW_TEXT, try_rows

    settings = dataclasses.replace(plan.session, providers=place.providers)
    session = functools.partial(OnnxBackend, plan.path, intra_op_threads=plan.intra_op_threads, settings=settings)
    chosen = _device(plan, place, lambda device: session(device=device), inputs, outputs)
    loaded = session(device=chosen.device, is_whole=len(plan.files) == 1)
    if not plan.is_trial:
        _tell_where(plan, loaded.assignment)
    backend: Backend = loaded
    if plan.batch_axes:
        from server.executor.batch_axes_backend import BatchAxesBackend

        backend = BatchAxesBackend(backend, plan.batch_axes)
    samples: list[Sample] = []
    if plan.arena.rows_mode:
        samples = warm_up_rows(backend, plan.arena, inputs, outputs, plan.name, cap=cap)
    if plan.arena.shaped:
        try:
            if not try_rows(backend, inputs, outputs):
                plan.arena.apart = True
                log.warning(NOT_ROW_BY_ROW, NOT_ROW_BY_ROW_TEXT, model=plan.name)
        except ModelError as error:
            # Zeros of one element need not be a valid input.
            log.info("warm_up_refused", model=plan.name, rows=2, reason=str(error))
    if plan.reshaped:
        backend = ReshapingBackend(backend, plan.reshaped)
    run_warm_ups(backend, [spec.name for spec in outputs], plan.warm_ups, cap, is_batched=plan.is_batched)
    # Recorded requests are as clients send them, which is as the model has it but for what is reshaped.
    shown = backend if plan.reshaped else loaded
    check_golden(plan.golden, backend=shown, native=loaded, inputs=inputs, outputs=outputs)
    assignment = loaded.assignment
    if chosen.run_ns:
        sizes = some_sizes(cost_table.sizes(plan.arena))
        assignment = assignment._replace(measured=completed(chosen, sizes, samples))
    return _OnDevice(backend, assignment, samples)


def load(plan: ExecutorPlan) -> list[Instance]:
    """All instances of the lane, model loaded and warm. Raises LoadError."""
    from server._fast.lane_executor import LaneExecutor
    from server.executor.batch_cap import BatchCap
    from server.executor.read_ahead import read_ahead
    from server.executor.rows_warm_up import learn_samples
    from server.executor.runner import RowsRunner, SingleRunner, TensorSpec
    from server.executor.shaped_runner import ShapedRunner
    from server.executor.unchanged import unchanged

    inputs = [TensorSpec(*tensor) for tensor in plan.inputs]
    outputs = [TensorSpec(*tensor) for tensor in plan.outputs]
    places = list(plan.places or (Place(AUTO, plan.session.providers),) * len(plan.instance_bells))
    cap = BatchCap(plan.arena, plan.name)
    with unchanged(plan.files):
        read_ahead(plan.files)
        there = {place: _load_on(plan, place, inputs, outputs, cap) for place in dict.fromkeys(places)}
    turns = None
    if len(there) == 1:
        ((_, assignment, samples),) = there.values()
    else:
        from server.executor.several_devices import by_speed, together, turns_of

        measured = {place: one.samples for place, one in there.items()}
        order = by_speed(measured)
        places.sort(key=order.index)
        turns = turns_of(plan.arena, places, plan.instance_bells, measured, monotonic_ns())
        samples = together(places, measured)
        first, *others = (there[place].assignment._replace(instances=places.count(place)) for place in order)
        assignment = first._replace(others=tuple(others))
    learn_samples(plan.arena, samples, plan.name, monotonic_ns())
    if not plan.is_trial:
        plan.arena.set_placed(to_text(assignment))
    runner: Callable[..., RowsRunner | ShapedRunner | SingleRunner] = RowsRunner
    if not plan.arena.rows_mode:
        runner = ShapedRunner if plan.arena.shaped else SingleRunner
    if plan.padding:
        from server.executor.padded_runner import padded_runner

        runner = padded_runner(plan.padding)
    instances = []
    for number, (place, bell) in enumerate(zip(places, plan.instance_bells, strict=True)):
        lane = LaneExecutor(plan.arena, plan.control, number, bell, list(plan.worker_bells), turns)
        instances.append(Instance(lane, runner(lane, plan.arena, there[place].backend, inputs, outputs, cap)))
    return instances
