"""How a model version is served: what its configuration says, and the server's settings where it says nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from server.config import ServeConfig
from server.models.instance_places import places_of
from server.models.lane_plan import LanePlan, Shape, plan
from server.models.onnx_file import TensorInfo
from server.models.providers import Place
from server.models.queue_policy import LevelSettings, level_settings
from server.models.repository import ModelVersion
from server.models.thread_share import computing, intra_op_threads
from server.protocol.datatypes import BY_NAME


class LaneSettings(NamedTuple):
    """Of one lane. preferred_rows 0: no batch size is better than another. levels: of priority, the first one first."""

    max_batch_size: int
    queue_rows: int
    instances: int
    intra_op_threads: int
    max_queue_delay_us: int
    preferred_rows: int
    plan: LanePlan
    levels: tuple[LevelSettings, ...]
    #: 0: no latency target.
    slo_p99_us: int = 0
    #: The device of each instance.
    places: tuple[Place, ...] = ()


def settings_of(
    version: ModelVersion, server: ServeConfig, all_instances: int = 0, devices: Sequence[str] = ()
) -> LaneSettings:
    """The settings of a version that can be served. all_instances: those of all models that share the processors;
    devices: those that `--device fastest` has given it, () before.
    """
    assert version.model is not None and version.batching is not None
    config = version.config
    places = places_of(config, server, devices)
    instances = len(places)
    max_batch_size = config.max_batch_size or server.max_batch_size
    # A queue that is shorter than a batch would make batches shorter.
    queue_rows = max(
        server.queue_rows if level.max_rows is None else max(level.max_rows, max_batch_size)
        for level in config.queues.levels()
    )
    delay_us = server.max_queue_delay_us if config.max_queue_delay_us is None else config.max_queue_delay_us
    lane_plan = plan(
        [_shape(tensor) for tensor in version.model.inputs],
        [_shape(tensor) for tensor in version.model.outputs],
        batched=version.batching.batched,
        shaped=version.batching.shaped,
        max_batch_size=max_batch_size,
        queue_rows=queue_rows,
        instances=instances,
        max_body_bytes=server.max_body_bytes,
    )
    levels = level_settings(
        config.queues,
        lane_plan,
        queue_rows=server.queue_rows,
        instances=instances,
        slab_bytes=_slab_bytes(version, lane_plan),
    )
    return LaneSettings(
        max_batch_size,
        queue_rows,
        instances,
        config.intra_op_threads or intra_op_threads(server, computing(places), all_instances),
        delay_us,
        min(config.preferred_batch_sizes, default=0),
        lane_plan._replace(slab_count=sum(level.slab_count for level in levels)),
        levels,
        round(server.slo_p99_ms * 1000) if config.slo_p99_us is None else config.slo_p99_us,
        places,
    )


def data_bytes(version: ModelVersion, settings: LaneSettings) -> int:
    """The shared memory of a lane's slabs: what it takes in rows mode, the most that it may take otherwise."""
    return settings.plan.slab_count * _slab_bytes(version, settings.plan)


def _slab_bytes(version: ModelVersion, lane_plan: LanePlan) -> int:
    assert version.model is not None
    if not lane_plan.rows_mode:
        return lane_plan.input_bytes + lane_plan.output_bytes
    shapes = [_shape(tensor) for tensor in (*version.model.inputs, *version.model.outputs)]
    row_bytes = sum(shape.item_bytes * math.prod(shape.dims[1:]) for shape in shapes if shape.dims)
    return lane_plan.row_capacity * row_bytes


def _shape(tensor: TensorInfo) -> Shape:
    dims = None if tensor.shape is None else tuple(tensor.dims)
    return Shape(BY_NAME[tensor.dtype].size_bytes, dims)
