"""Which models run in one executor process: those of one device, or each in its own. A pure function, and the one
question that it cannot answer by itself, what `--device auto` comes to.
"""

from __future__ import annotations

from collections.abc import Iterable

from server.config import ServeConfig
from server.models.instance_places import is_spread
from server.models.model_config import ModelConfig
from server.models.providers import CUDA, GPU_SIGNS, TENSORRT, of_device
from server.models.thread_share import instances_of
from server.option_values import AUTO, CPU, STRICT
from server.supervisor import trial

#: Of --executors.
PER_MODEL, SHARED = "per-model", "shared"


def group_of(config: ModelConfig, server: ServeConfig, best: str) -> str | None:
    """The device whose executor the model shares, by a short name; None: it has one of its own, as models on several
    devices do.

    best: the device that `--device auto` and `strict` come to.
    """
    if server.executors == PER_MODEL or is_spread(config, server):
        return None
    providers = () if config.on_cpu else config.session.providers
    if not providers and not config.on_cpu:
        providers = of_device(best if server.device in (AUTO, STRICT) else server.device)
    device = CPU
    if providers:
        first = providers[0]
        # TensorRT and CUDA are two ways to use one device.
        device = f"gpu{first.device.rpartition(':')[2]}" if first.name in (CUDA, TENSORRT) else first.device
    is_cpu = device in (CPU, "openvino:CPU")
    return None if is_cpu and server.executors != SHARED else device


def all_instances(models: Iterable[tuple[ModelConfig, str | None]], server: ServeConfig) -> int:
    """Batches that run at the same time: of each model with an executor of its own, and once for each shared one."""
    own = 0
    shared: dict[str, int] = {}
    for config, group in models:
        count = instances_of(config, server)
        if group is None:
            own += count
        else:
            shared[group] = max(shared.get(group, 0), count)
    return own + sum(shared.values())


def best_device(server: ServeConfig) -> str:
    """What `--device auto` comes to, as far as it matters here. Asks a process of its own, where there may be a GPU."""
    if (
        server.executors == PER_MODEL
        or server.device not in (AUTO, STRICT)
        or not any(sign.exists() for sign in GPU_SIGNS)
    ):
        return CPU
    return CPU if trial.device_problem("cuda") else "cuda"
