"""The device of each instance of a model: one for all of them, or several at once. Pure.

A configuration comes first: its groups, else its accelerators. Then --device, of which a list means all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

from server.config import ServeConfig
from server.models.model_config import MAX_INSTANCES, ModelConfig
from server.models.providers import Place
from server.option_values import CPU, FASTEST, devices_of


def places_of(config: ModelConfig, server: ServeConfig, devices: Sequence[str] = ()) -> tuple[Place, ...]:
    """As many as there are instances; those of one device side by side. devices: in place of --device, of a model that
    `--device fastest` has given these.
    """
    if config.places:
        return config.places
    count = config.instances or server.instances
    if config.on_cpu or config.session.providers:
        return (Place(CPU if config.on_cpu else server.device, config.session.providers),) * count
    return tuple(Place(device) for device in devices or devices_of(server.device) for _ in range(count))


def is_placed_by_load(config: ModelConfig, server: ServeConfig) -> bool:
    """Whether neither the configuration nor --device says where the model runs."""
    return set(places_of(config, server)) == {Place(FASTEST)}


def is_spread(config: ModelConfig, server: ServeConfig) -> bool:
    """Whether the model runs on several devices."""
    return len(set(places_of(config, server))) > 1


def too_many(config: ModelConfig, server: ServeConfig) -> str:
    """Why there cannot be so many instances, or ""."""
    count = len(places_of(config, server))
    if count <= MAX_INSTANCES:
        return ""
    devices = len(devices_of(server.device))
    return (
        f"expected at most {MAX_INSTANCES} instances together, found {count // devices} on each of {devices} devices: "
        "lower instance_group.count, or name fewer devices (--device)"
    )
