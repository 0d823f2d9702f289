"""How an executor process ends that cannot go on: whether its supervisor is to start another."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from server._fast.layout import Arena, Control
from server.executor import process
from server.executor.backend import DeviceLostError, LoadError, OutOfMemoryError
from server.executor.process import EXIT_LOAD_FAILED, EXIT_START_AGAIN, ExecutorPlan

LOADING, READY, RESTARTING, FAILED = range(4)


def lost() -> None:
    raise DeviceLostError("CUDA failure 700: an illegal memory access was encountered")


def ended(
    monkeypatch: pytest.MonkeyPatch, load: Callable[[ExecutorPlan], list[Callable[[], None]]], state: int = LOADING
) -> tuple[int, int]:
    """Exit status and the model's state of an executor, which is a child, that loads its model so."""

    def instances(plan: ExecutorPlan) -> list[SimpleNamespace]:
        return [SimpleNamespace(runner=SimpleNamespace(serve=serve)) for serve in load(plan)]

    monkeypatch.setattr(process, "load", instances)
    tensor = (2, 1, [-1])
    arena = Arena.create(
        inputs=[tensor], outputs=[tensor], rows_mode=True, row_capacity=1, slab_count=2, owner_count=1,
        instance_count=1,
    )  # fmt: skip
    arena.set_state(state, "")
    bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    lifeline, writer = os.pipe()
    plan = ExecutorPlan("m", 1, Path("m"), arena, Control.create(1, 0), (), (), [bell], [bell], bell, lifeline, 1)
    child = os.fork()
    if not child:
        os._exit(process.main(plan))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    for fd in (bell, lifeline, writer):
        os.close(fd)
    return status, arena.model_state


@pytest.mark.parametrize("when", ["loading", "serving"])
def test_a_lost_device_is_a_reason_to_start_again_and_none_to_give_the_model_up(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], when: str
) -> None:
    def load(_: ExecutorPlan) -> list[Callable[[], None]]:
        if when == "loading":
            lost()
        return [lost]

    assert ended(monkeypatch, load) == (EXIT_START_AGAIN, LOADING if when == "loading" else READY)
    log = capfd.readouterr().err
    assert log.count("device_lost") == 1 and "illegal memory access" in log and "Traceback" not in log


@pytest.mark.parametrize("cause", [OutOfMemoryError("one row"), MemoryError(), RuntimeError("std::bad_alloc")])
@pytest.mark.parametrize(
    ("state", "expected"), [(LOADING, (EXIT_LOAD_FAILED, FAILED)), (RESTARTING, (EXIT_START_AGAIN, RESTARTING))]
)
def test_a_model_that_was_served_waits_for_memory_and_a_new_one_is_refused(
    monkeypatch: pytest.MonkeyPatch, cause: Exception, state: int, expected: tuple[int, int]
) -> None:
    def load(_: ExecutorPlan) -> list[Callable[[], None]]:
        raise LoadError("not enough") from cause

    assert ended(monkeypatch, load, state) == expected


def test_a_model_that_is_broken_now_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(_: ExecutorPlan) -> list[Callable[[], None]]:
        raise LoadError("its file is no model") from RuntimeError("Protobuf parsing failed")

    assert ended(monkeypatch, load, RESTARTING) == (EXIT_LOAD_FAILED, FAILED)
