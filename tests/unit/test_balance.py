"""The check that runs after every test sees what a test leaves behind, and nothing else."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from tests.support import balance


@pytest.fixture
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balance, "PATIENCE_NS", 0)


@pytest.mark.usefixtures("short_patience")
def test_sees_an_open_socket() -> None:
    before = balance.take()
    with socket.socket() as opened:
        assert f"fd {opened.fileno()} -> socket:" in balance.left_behind(before)
    assert balance.left_behind(before) == ""


@pytest.mark.usefixtures("short_patience")
def test_sees_a_child_that_lives_and_one_that_is_dead_but_not_waited_for() -> None:
    before = balance.take()
    child = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
    assert child.stdin is not None
    assert f"child {child.pid} " in balance.left_behind(before)
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert f"child {child.pid} " in balance.left_behind(before)
    child.wait()
    assert balance.left_behind(before) == ""


class Holder:
    """Closes its descriptor when it is collected; points to itself, so that counting references is not enough."""

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("cycle")
        self.myself = self

    def __del__(self) -> None:
        os.close(self.descriptor)


def test_what_only_garbage_holds_counts_as_given_back() -> None:
    before = balance.take()
    Holder()
    assert balance.left_behind(before) == ""
