"""Whether there is room for a model beside what runs: a pure function of its files, its shapes and the host's memory.

Measured with ONNX Runtime 1.32 on models of 200 MB: the executor's memory rises to 1.07 times the weights, in the file
or beside it, over the 50 MB of a process with a small model. Slabs take memory as requests touch them: what counts is
one batch in the making, one that runs, and one that is being read.
"""

from __future__ import annotations

from server.models.lane_settings import LaneSettings, data_bytes
from server.models.repository import ModelVersion

PROCESS_BYTES = 64 << 20
WEIGHTS_PERCENT = 115
TOUCHED_SLABS = 3
#: Of slabs whose size depends on the request: what a middling one takes.
VARIABLE_SLAB_BYTES = 4 << 20


def expected_bytes(version: ModelVersion, settings: LaneSettings) -> int:
    """What loading and serving a version takes, about."""
    assert version.model is not None
    slab_bytes = data_bytes(version, settings) // settings.plan.slab_count
    if not settings.plan.rows_mode:
        slab_bytes = min(slab_bytes, VARIABLE_SLAB_BYTES)
    # Each device has a session with weights of its own.
    weights_bytes = (version.model.file_bytes + version.weights_bytes) * max(1, len(set(settings.places)))
    return PROCESS_BYTES + weights_bytes * WEIGHTS_PERCENT // 100 + TOUCHED_SLABS * slab_bytes


def shortage(needed_bytes: int, available_bytes: int | None, promised_bytes: int) -> str:
    """Why a version is not loaded now, or "". promised_bytes: for what is being loaded and has not taken it yet."""
    if available_bytes is None or needed_bytes <= available_bytes - promised_bytes:
        return ""
    promised = f", {promised_bytes >> 20} of them for models that load" if promised_bytes else ""
    return (
        f"it needs about {needed_bytes >> 20} MiB of memory beside what runs, {max(0, available_bytes) >> 20} MiB are "
        f"available{promised}: unload a model, or see --reload-without-room"
    )
