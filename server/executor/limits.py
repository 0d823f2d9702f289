"""What an executor lets a model do to its host: nothing beyond its memory, and if memory ends, it ends first."""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path

from server import hostinfo

#: Added to the score by which the kernel chooses whom to kill: executors before workers and the supervisor.
OOM_SCORE_ADJUSTMENT = 500
#: With this ONNX Runtime would take session options, libraries to load among them, out of the model's metadata.
CONFIG_FROM_MODEL = "ORT_LOAD_CONFIG_FROM_MODEL"


def limit_executor(*, has_accelerator: bool) -> None:
    """For the rest of this process's life. has_accelerator: its driver maps memory that it will not use."""
    os.environ.pop(CONFIG_FROM_MODEL, None)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE_ADJUSTMENT))
    memory = hostinfo.memory()
    if memory is None or has_accelerator:
        return
    # A tensor of more than the host has is an error of its model, not a reason to kill processes.
    soft, most = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = memory.total_bytes if soft == resource.RLIM_INFINITY else min(soft, memory.total_bytes)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_DATA, (wanted, most))
