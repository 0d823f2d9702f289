"""Questions to ONNX Runtime that have to be answered in a process of their own: the supervisor must not load it.

Each is a child that writes its answer into a pipe and ends, so that a crash of the runtime, or of a driver, is an
answer too.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from server.models.model_config import SessionSettings

_CRASHED = 70


def device_problem(device: str) -> str:
    """Why nothing can run on a device of --device; empty if nothing is known to be in the way."""

    def ask() -> str:
        from server.executor import trial

        return trial.device_problem(device)

    return str(_answer(ask))


def nodes(path: Path, settings: SessionSettings, device: str) -> tuple[str, list[tuple[str, str]], str]:
    """Loads a model: the device that runs it, (provider, operator) of each node of the optimised graph, and why an
    accelerator does not run it. Raises ValueError with the reason if it cannot be loaded.
    """

    def ask() -> Any:
        from server.executor import trial

        return trial.nodes(path, settings, device)

    answer = _answer(ask)
    if isinstance(answer, str) or "error" in answer:
        raise ValueError(answer if isinstance(answer, str) else answer["error"])
    return answer["device"], [tuple(node) for node in answer["nodes"]], answer["fallback"]


def _answer(ask: Callable[[], Any]) -> Any:
    """What `ask` returns in a child, by JSON. A child that dies is a text that says so."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        status = _CRASHED
        try:
            os.environ["ORT_DISABLE_TELEMETRY"] = "1"
            os.close(read_end)
            with open(write_end, "w", encoding="utf-8") as pipe:
                json.dump(ask(), pipe)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(write_end)
    with open(read_end, encoding="utf-8") as pipe:
        text = pipe.read()
    _, raw = os.waitpid(pid, 0)
    status = os.waitstatus_to_exitcode(raw)
    if status == 0:
        return json.loads(text)
    how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
    return f"ONNX Runtime ended its process ({how}) while it was asked"
