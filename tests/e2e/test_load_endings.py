"""A load request during which something else happens: others' files change, its worker dies, the server ends."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.test_reload_under_load import adds, put
from tests.support.faults import stopped, wait_until
from tests.support.server import Answer, Server, running

pytestmark = pytest.mark.slow

EXPLICIT = ("--model-control-mode", "explicit", "--load-model", "*", "--workers", "1")
#: Takes an executor long enough to be stopped while it loads.
BALLAST_BYTES = 4 << 20


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    put(tmp_path, "m", 1, adds(1))
    put(tmp_path, "changed", 1, adds(1))
    put(tmp_path, "other", 1, adds(1))
    return tmp_path


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as pool:
        yield pool


def change(server: Server, name: str, what: str = "load") -> Answer:
    return server.post(f"/v2/repository/models/{name}/{what}", {}, timeout_s=30)


def index(server: Server) -> dict[tuple[str, str], str]:
    rows = server.post("/v2/repository/index", {}).json()
    return {(row["name"], row["version"]): row["state"] for row in rows}


@contextlib.contextmanager
def loading(server: Server, pool: ThreadPoolExecutor, name: str) -> Iterator[Future[Answer]]:
    """The answer to a load request, whose executor stands still for a block."""
    before = set(server.pids("executor"))
    answer = pool.submit(change, server, name)
    wait_until(lambda: set(server.pids("executor")) - before, "an executor that loads")
    (pid,) = set(server.pids("executor")) - before
    with stopped(pid):
        yield answer


def test_a_load_changes_the_model_that_it_names(repository: Path) -> None:
    """Others may be in the middle of a copy, or gone for a moment."""
    with running(repository, *EXPLICIT) as server:
        put(repository, "m", 2, adds(2))
        put(repository, "changed", 2, adds(2))
        put(repository, "newcomer", 1, adds(1))
        shutil.rmtree(repository / "other")
        assert change(server, "m").status == 200
        assert change(server, "other").status == 500
        assert index(server) == {
            ("changed", "1"): "READY",
            ("m", "2"): "READY",
            ("newcomer", "1"): "UNAVAILABLE",
            ("other", "1"): "READY",
        }
        assert change(server, "newcomer").status == 200
        assert index(server)["newcomer", "1"] == index(server)["other", "1"] == "READY"


def test_a_repository_that_is_gone(repository: Path) -> None:
    """What serves goes on; the reason is the operator's, who finds it in the log."""
    with running(repository / "m", *EXPLICIT) as server:
        shutil.rmtree(repository / "m")
        answer = change(server, "m")
        assert (answer.status, str(repository) in answer.json()["error"]) == (500, False)
        assert index(server) == {("m", "1"): "READY"}
        assert "check the path" in server.log()


def test_an_answer_for_a_dead_worker_is_not_its_successors(repository: Path, pool: ThreadPoolExecutor) -> None:
    with running(repository, *EXPLICIT) as server:
        put(repository, "m", 2, adds(2, BALLAST_BYTES))
        put(repository, "other", 2, adds(2, BALLAST_BYTES))
        with contextlib.ExitStack() as stack:
            lost = stack.enter_context(loading(server, pool, "m"))
            (worker,) = server.pids("worker")
            os.kill(worker, signal.SIGKILL)
            assert lost.exception(10) is not None
            server.wait_replaced("worker", worker)
            assert server.get("/v2/health/ready").status == 200
            with loading(server, pool, "other") as asked:
                stack.close()
                wait_until(lambda: index(server)["m", "2"] == "READY", "the first model")
                assert not asked.done()
        assert asked.result(10).status == 200
        assert index(server)["m", "2"] == index(server)["other", "2"] == "READY"
        assert "Traceback" not in server.log()


def test_a_load_that_the_end_of_the_server_meets_is_answered(repository: Path, pool: ThreadPoolExecutor) -> None:
    with running(repository, *EXPLICIT) as server:
        put(repository, "m", 2, adds(2, BALLAST_BYTES))
        with loading(server, pool, "m") as asked:
            server.process.send_signal(signal.SIGTERM)
            answer = asked.result(10)
        assert (answer.status, "shutting down" in answer.json()["error"]) == (503, True)
        server.wait_stopped()


def test_a_load_ends_during_the_drain_delay(repository: Path, pool: ThreadPoolExecutor) -> None:
    with running(repository, *EXPLICIT, "--drain-delay", "60") as server:
        put(repository, "m", 2, adds(2, BALLAST_BYTES))
        with loading(server, pool, "m") as asked:
            server.process.send_signal(signal.SIGTERM)
            server.wait_log('"draining"')
        assert asked.result(10).status == 200
        assert index(server)["m", "2"] == "READY"
        server.stop()
