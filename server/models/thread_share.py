"""How many threads a model computes with: the processors are shared out over the instances of all models. Pure.

An instance computes on its own thread and on those of its model's pool in ONNX Runtime, which sleep without work: what
counts is not how many threads there are but how many are busy at once. Alone a model may use every processor; of many
models some are idle at any moment, so all together get OVERCOMMIT threads for each processor.
"""

from __future__ import annotations

from collections.abc import Sequence

from server.config import ServeConfig
from server.models.instance_places import places_of
from server.models.model_config import ModelConfig
from server.models.providers import Place

OVERCOMMIT = 2


def instances_of(config: ModelConfig, server: ServeConfig) -> int:
    """Batches of the model that run at the same time."""
    return len(places_of(config, server))


def computing(places: Sequence[Place]) -> int:
    """Instances that share the processors: of a model on several devices those that compute on them."""
    if len(set(places)) == 1:
        return len(places)
    return max(1, sum(place.is_processor for place in places))


def intra_op_threads(server: ServeConfig, instances: int, all_instances: int = 0) -> int:
    """Threads of each of a model's instances, at least 1; all_instances: of all models, these included."""
    own = max(1, server.intra_op_threads * server.instances // instances)
    if not server.compute_cores:
        return own
    return max(1, min(own, OVERCOMMIT * server.compute_cores // max(1, instances, all_instances)))
