"""`headrace serve` from its start to its end: what it says, what it starts, and that nothing of it remains."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.server import Server, executable, running, start

pytestmark = pytest.mark.slow


def test_the_demo_model_with_two_workers() -> None:
    with running("--workers", "2") as server:
        assert len(server.pids("worker")) == 2
        assert len(server.pids("executor")) == 1
        assert len(server.pids("supervisor")) == 1
        assert "digits" in server.output()
        assert server.get("/v2/health/live").status == 200
        assert server.get("/v2/models/digits").json()["name"] == "digits"
        assert server.get("/metrics", port=server.metrics_port).status == 200


def test_the_banner_line_to_try_works_when_pasted() -> None:
    with running("--workers", "1") as server:
        lines = [line for line in server.output().splitlines() if line.lstrip().startswith("try it")]
        assert len(lines) == 1, server.output()
        command = lines[0].partition("try it")[2].lstrip(" :")
        assert command.startswith("curl ")
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False, timeout=20)
        if done.returncode == 127:
            pytest.skip("no curl on this machine")
        assert '"outputs"' in done.stdout, f"{done.stdout}{done.stderr}"


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT], ids=lambda sign: sign.name)
def test_a_signal_ends_it_with_exit_code_0(tmp_path: Path, sign: signal.Signals) -> None:
    server = start(tmp_path, "--workers", "1")
    try:
        server.stop(sign)
        assert '"event":"stopped"' in server.log()
    finally:
        server.kill()


def test_a_second_signal_does_not_wait_for_the_delay(tmp_path: Path) -> None:
    server = start(tmp_path, "--workers", "1", "--drain-delay", "60")
    try:
        server.process.send_signal(signal.SIGTERM)
        server.wait_log("draining")
        assert server.get("/v2/health/ready").status == 503
        assert server.get("/v2/health/live").status == 200
        server.stop(signal.SIGTERM, timeout_s=10)
    finally:
        server.kill()


def test_nothing_outlives_a_killed_supervisor(tmp_path: Path) -> None:
    server = start(tmp_path, "--workers", "2")
    try:
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait(10)
        server.assert_nothing_left(timeout_ns=15_000_000_000)
    finally:
        server.kill()


def test_a_port_in_use_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    with running("--workers", "1") as first:
        arguments = ["serve", "--http-port", str(first.port), "--metrics-port", "0"]
        second = Server([*executable(), *arguments], os.environ, tmp_path)
        try:
            assert second.process.wait(20) in (os.EX_CANTCREAT, os.EX_OSERR, os.EX_CONFIG, os.EX_UNAVAILABLE)
            assert str(first.port) in second.log()
            second.assert_nothing_left()
        finally:
            second.kill()


def test_an_unknown_option_is_a_usage_error() -> None:
    done = subprocess.run([*executable(), "serve", "--http-prot", "1"], capture_output=True, text=True, check=False)
    assert done.returncode == os.EX_USAGE
    assert "--http-port" in done.stderr


@pytest.mark.skipif(
    "HEADRACE_EXECUTABLE" not in os.environ, reason="about the executable: HEADRACE_EXECUTABLE names it"
)
def test_the_unpacked_directory_goes_also_after_a_kill(tmp_path: Path) -> None:
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    server = start(tmp_path, "--workers", "1", environment={"TMPDIR": str(unpacked)})
    try:
        if not list(unpacked.iterdir()):
            pytest.skip("this executable unpacks nothing")
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait(10)
        server.assert_nothing_left(timeout_ns=15_000_000_000)
        assert not list(unpacked.iterdir())
    finally:
        server.kill()
