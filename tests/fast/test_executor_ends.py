"""How an executor process ends whose device is lost to it: its supervisor is to start another."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from server._fast.layout import Arena, Control
from server.executor import process
from server.executor.backend import DeviceLostError
from server.executor.process import EXIT_START_AGAIN, ExecutorPlan

LOADING, READY = 0, 1


def lost() -> None:
    raise DeviceLostError("CUDA failure 700: an illegal memory access was encountered")


def status_of(plan: ExecutorPlan) -> int:
    """Of an executor, which is a child."""
    child = os.fork()
    if not child:
        os._exit(process.main(plan))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("when", ["loading", "serving"])
def test_a_lost_device_is_a_reason_to_start_again_and_none_to_give_the_model_up(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], when: str
) -> None:
    def load(_: ExecutorPlan) -> list[Callable[[], None]]:
        if when == "loading":
            lost()
        return [lost]

    monkeypatch.setattr(process, "_load", load)
    monkeypatch.setattr(process, "yielding", contextlib.nullcontext)
    tensor = (2, 1, [-1])
    arena = Arena.create(
        inputs=[tensor], outputs=[tensor], rows_mode=True, row_capacity=1, slab_count=2, owner_count=1,
        instance_count=1,
    )  # fmt: skip
    bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    lifeline, writer = os.pipe()
    control = Control.create(1, 0)
    status = status_of(ExecutorPlan("m", 1, Path("m"), arena, control, (), (), [bell], [bell], bell, lifeline, 1))
    for fd in (bell, lifeline, writer):
        os.close(fd)
    assert status == EXIT_START_AGAIN
    assert arena.model_state == (LOADING if when == "loading" else READY)
    log = capfd.readouterr().err
    assert log.count("device_lost") == 1 and "illegal memory access" in log and "Traceback" not in log
