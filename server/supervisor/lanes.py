"""From a model found in the repository to its lane: arena, bells and what its processes are told."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from server._fast.layout import Arena, Control
from server._fast.ring import Ring
from server.channel import Document
from server.config import ServeConfig
from server.models.config_document import configured, max_batch_size
from server.models.lane_settings import LaneSettings, settings_of
from server.models.onnx_file import TensorInfo
from server.models.repository import ModelVersion
from server.protocol.datatypes import BY_NAME
from server.supervisor.restart_policy import PATIENCE_NS

if TYPE_CHECKING:
    from server.executor.process import ExecutorPlan

#: ModelState of layout.pxd.
MODEL_LOADING = 0
MODEL_READY = 1
MODEL_RESTARTING = 2
MODEL_FAILED = 3
MODEL_HELD = 4
#: FailureCode of slab_ring.pxd.
FAILURE_UNAVAILABLE = 3
#: A time at which every slab is due, whatever the queue delay.
_FAR_NS = 1 << 62


class Lane:
    """One model version that is served: its ring, and the doorbells of its executor's instances.

    `number` tells lanes apart: of one version there are two while its changed files are loaded.
    """

    def __init__(
        self,
        number: int,
        version: ModelVersion,
        config: ServeConfig,
        owner_count: int,
        all_instances: int = 0,
        *,
        group: str | None = None,
        bells: Sequence[int] = (),
        devices: tuple[str, ...] = (),
    ) -> None:
        """group: the device whose executor it shares, with that one's doorbells; None: it has its own. devices: those
        that it was moved to, () where its executor chooses or settings say.
        """
        assert version.model is not None and version.batching is not None and version.fitted is not None
        self.number = number
        self.group = group
        self.devices = devices
        #: Says what others ask of the devices, to an executor that has to choose one (server.models.live_load).
        self.live: Callable[[], str] = str
        self.found = version
        #: Found when the server started: readiness waits for it.
        self.is_initial = False
        #: It has been seen ready; its executor is worth starting again.
        self.was_ready = False
        #: No new requests: it ends as soon as the last is answered.
        self.is_retired = False
        #: Nobody waits for it any more: its executor has been told to end.
        self.is_over = False
        self.name = version.name
        self.version = version.version
        self.path: Path = version.path
        self.inputs: Sequence[TensorInfo] = version.model.inputs
        self.outputs: Sequence[TensorInfo] = version.model.outputs
        self.batched = version.batching.batched
        self.batching_reason = version.batching.reason
        self.settings: LaneSettings = settings_of(version, config, all_instances, devices)
        self.plan = self.settings.plan
        #: Has the tensors as clients see them; `inputs` and `outputs` are those that the model runs with.
        self.seen = version.fitted
        self.arena = Arena.create(
            inputs=[_tensor(tensor, tensor.name in self.seen.batch_axes.same) for tensor in self.seen.inputs],
            outputs=[_tensor(tensor) for tensor in self.seen.outputs],
            rows_mode=self.plan.rows_mode,
            shaped=self.plan.shaped,
            row_capacity=self.plan.row_capacity,
            slab_count=self.plan.slab_count,
            owner_count=owner_count,
            instance_count=self.settings.instances,
            input_bytes=self.plan.input_bytes,
            output_bytes=self.plan.output_bytes,
            max_queue_delay_ns=self.settings.max_queue_delay_us * 1000,
            preferred_rows=self.settings.preferred_rows,
            pads=[pad[:6] for pad in self.seen.padding.pads],
            slo_ns=self.settings.slo_p99_us * 1000,
            values=[i for i, tensor in enumerate(self.seen.inputs) if tensor.name in self.seen.batch_axes.same],
            levels=list(self.settings.levels),
            default_level=version.config.queues.default_level or 1,
        )
        self.ring = Ring(self.arena)
        if group is None:
            self.instance_bells = [
                os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK) for _ in range(self.settings.instances)
            ]
        else:
            self.instance_bells = [os.dup(bell) for bell in bells[: self.settings.instances]]

    def refuse_waiting(self) -> int:
        """Fails every request that waits, in place of an executor that will never come: how many slabs had any.

        Rows that a worker is filling at this moment are left: call again a little later.
        """
        self.ring.recover_executor()
        refused_count = 0
        while isinstance(batch := self.ring.seal(0, _FAR_NS), dict):
            batch["attempts"] = 0  # taken as a whole, whatever has died with it before
            taken = self.ring.take(0, batch)
            if taken is None:
                continue
            for row in range(taken["row_count"]):
                self.ring.finish_row(taken["slab"], row, FAILURE_UNAVAILABLE)
            self.ring.complete(0, taken)
            refused_count += 1
        return refused_count

    def await_restart(self, why: str, delay_ns: int) -> bool:
        """It was served, and is loaded again after the delay; whether requests may wait for that."""
        if delay_ns < PATIENCE_NS:
            self.arena.set_state(MODEL_RESTARTING, f"{why}; it is being started again")
            return True
        self.arena.set_state(MODEL_HELD, f"{why}; it is started again in {delay_ns / 1e9:.2g} s")
        return False

    def restart(self) -> None:
        """It is being loaded again: requests may wait from now on."""
        if self.arena.model_state == MODEL_HELD:
            self.arena.set_state(MODEL_RESTARTING, "it is being started again")

    def ring_instances(self) -> None:
        """Wakes every instance, whether or not it sleeps."""
        for bell in self.instance_bells:
            os.eventfd_write(bell, 1)

    def document(self) -> Document:
        """What a worker needs to know of the lane, beside the arena and the bells."""
        config = self.found.config
        restored = self.seen.batch_axes.restored
        return {
            "lane": self.number,
            "name": self.name,
            "version": str(self.version),
            "inputs": [[tensor.name, tensor.dtype, tensor.dims] for tensor in map(restored, self.seen.inputs)],
            "outputs": [[tensor.name, tensor.dtype, tensor.dims] for tensor in map(restored, self.seen.outputs)],
            "batch_axes": self.seen.batch_axes.by_name(),
            "batched": self.batched,
            "row_capacity": self.plan.row_capacity,
            "batching_reason": self.batching_reason,
            "is_initial": self.is_initial,
            "instances": self.settings.instances,
            "max_queue_delay_us": self.settings.max_queue_delay_us,
            "preserve_ordering": config.preserve_ordering,
            "labels": dict(config.labels),
            "configured": configured(self.found, self.settings),
        }

    def descriptors(self) -> tuple[int, ...]:
        """What goes with the document: the arena, then the bells."""
        return (self.arena.fd, *self.instance_bells)

    def close(self) -> None:
        """Gives back the descriptors and this process's mapping."""
        for bell in self.instance_bells:
            os.close(bell)
        del self.ring
        del self.arena


def _tensor(tensor: TensorInfo, is_value: bool = False) -> tuple[int, int, list[int]]:
    """For the arena; of an input that all rows share a dimension for each eight bytes, behind the batch axis."""
    datatype = BY_NAME[tensor.dtype]
    if is_value:
        words = -(-math.prod(tensor.dims[1:]) * datatype.size_bytes // 8)
        return datatype.code, datatype.size_bytes, [-1] * (1 + words)
    return datatype.code, datatype.size_bytes, list(tensor.dims)


def _reshaped(lane: Lane) -> dict[str, tuple[int, ...]]:
    """Tensors that clients see in another shape: input -> the model's dims, output -> the clients'."""
    seen = lane.seen
    inputs = {own.name: tuple(own.dims) for own, shown in zip(lane.inputs, seen.inputs, strict=True) if own != shown}
    outputs = {
        own.name: tuple(shown.dims) for own, shown in zip(lane.outputs, seen.outputs, strict=True) if own != shown
    }
    return inputs | outputs


def plan_values(lane: Lane) -> dict[str, Any]:
    """What an executor is told of the lane's model: what plan_document takes, tensors as (name, datatype, dims)."""

    def tensors(infos: Sequence[TensorInfo]) -> list[tuple[str, int, tuple[int, ...]]]:
        return [(info.name, BY_NAME[info.dtype].code, tuple(info.dims)) for info in infos]

    return {
        "name": lane.name,
        "version": lane.version,
        "path": lane.path,
        "inputs": tensors(lane.inputs),
        "outputs": tensors(lane.outputs),
        "intra_op_threads": lane.settings.intra_op_threads,
        "session": lane.found.config.session,
        "places": lane.settings.places,
        "warm_ups": lane.found.config.warm_ups,
        "is_batched": max_batch_size(lane.found, lane.settings) > 0,
        "reshaped": _reshaped(lane),
        "golden": lane.found.golden,
        "padding": lane.seen.padding,
        "batch_axes": lane.seen.batch_axes,
        "live": lane.live(),
        "files": lane.found.model_files(),
    }


def executor_plan(
    lane: Lane,
    *,
    control: Control,
    worker_bells: Sequence[int],
    supervisor_bell: int,
    lifeline: int,
    is_trial: bool = False,
) -> ExecutorPlan:
    """What an executor needs of its lane. Runs in the executor."""
    from server.executor.process import plan_of

    return plan_of(
        plan_values(lane),
        arena=lane.arena,
        control=control,
        instance_bells=lane.instance_bells,
        worker_bells=worker_bells,
        supervisor_bell=supervisor_bell,
        lifeline=lifeline,
        is_trial=is_trial,
    )
