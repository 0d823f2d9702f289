"""Processes that die, stand still or are told to stop; models and inputs that kill; queues that are full."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.faults import cpu_s, metric, reset, stopped, wait_until, worker_of
from tests.support.hostile_models import endless
from tests.support.onnx_writer import fails_on_index, identity, write_repository
from tests.support.server import Server, executable, running, start
from tests.support.wire import LIVE, LIVE_BODY, Wire, infer

pytestmark = pytest.mark.slow

FOR_EVER = 10**12
#: Elements of a row of `wide`, which takes long to read from JSON.
WIDTH = 4096


ECHO_MODEL = identity("FP32", (-1, 2))
EXECUTORS = ("echo", "endless", "picky", "wide")  # in the order of their process names


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_repository(tmp_path_factory.mktemp("models"), {"echo": ECHO_MODEL})


@pytest.fixture(scope="module")
def zoo_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = {
        "echo": ECHO_MODEL,
        "endless": endless(),
        "picky": fails_on_index(16),
        "wide": identity("FP32", (-1, WIDTH)),
    }
    return write_repository(tmp_path_factory.mktemp("zoo"), models)


@pytest.fixture
def server(models: Path) -> Iterator[Server]:
    """Serves `echo` alone."""
    with running(models, "--workers", "2", "--drain-timeout", "10") as server:
        yield server


@pytest.fixture
def zoo(zoo_models: Path) -> Iterator[Server]:
    """Serves all of EXECUTORS."""
    with running(zoo_models, "--workers", "2", "--drain-timeout", "10") as server:
        yield server


def executor_of(server: Server, model: str) -> int:
    """The living executor process of a model."""
    name = f"headrace-e{EXECUTORS.index(model)}"
    return next(pid for pid, command in server.processes().items() if command == name)


def echo(number: float) -> bytes:
    return infer("echo", "x", "FP32", [1, 2], [number, -number], str(number))


def echoed(wire: Wire, number: float) -> None:
    answer = wire.answer()
    assert answer.status == 200, answer
    assert answer.json()["id"] == str(number)
    assert answer.json()["outputs"][0]["data"] == [number, -number]


def rounds(count: int) -> bytes:
    return infer("endless", "x", "INT64", [1, 1], [count])


@contextlib.contextmanager
def wires(server: Server, count: int) -> Iterator[list[Wire]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Wire(server.host, server.port)) for _ in range(count)]


@contextlib.contextmanager
def spread(server: Server, count: int) -> Iterator[dict[int, list[Wire]]]:
    """worker pid -> open connections of it, at least `count` each."""
    found: dict[int, list[Wire]] = {pid: [] for pid in server.pids("worker")}
    with contextlib.ExitStack() as stack:
        while min(map(len, found.values())) < count:
            wire = stack.enter_context(Wire(server.host, server.port))
            assert wire.send(LIVE).answer().body == LIVE_BODY
            worker = worker_of(server, wire.socket.getsockname()[1])
            assert worker is not None
            found[worker].append(wire)
        yield found


# -- the end of the server


def test_a_killed_supervisor_leaves_nothing_and_what_is_in_flight_is_answered(models: Path, tmp_path: Path) -> None:
    server = start(tmp_path, models, "--workers", "2")
    try:
        with wires(server, 20) as clients:
            with stopped(executor_of(server, "echo")):
                for number, wire in enumerate(clients):
                    wire.send(echo(number))
                wait_until(lambda: metric(server, "headrace_queue_depth", model="echo") == 20, "all in flight")
                os.kill(server.process.pid, signal.SIGKILL)
                server.process.wait(10)
            for number, wire in enumerate(clients):
                echoed(wire, number)
        killed = time.monotonic()
        server.assert_nothing_left(timeout_ns=10_000_000_000)
        # The port is free for a successor at once.
        again = tmp_path / "again"
        again.mkdir()
        successor = start(again, models, "--workers", "2", http_port=server.port)
        try:
            assert time.monotonic() - killed < 10
            successor.stop()
        finally:
            successor.kill()
    finally:
        server.kill()


def test_a_drain_loses_nothing(models: Path, tmp_path: Path) -> None:
    server = start(tmp_path, models, "--workers", "2", "--drain-delay", "1")
    try:
        with wires(server, 500) as clients, Wire(server.host, server.port) as idle:
            idle.send(LIVE).answer()
            with stopped(executor_of(server, "echo")):
                for number, wire in enumerate(clients):
                    wire.send(echo(number))
                wait_until(lambda: metric(server, "headrace_queue_depth", model="echo") == 500, "all in flight")
                signalled = time.monotonic()
                server.process.send_signal(signal.SIGTERM)
                wait_until(lambda: server.get("/v2/health/ready").status == 503, "readiness false", timeout_s=0.5)
                # Until the load balancers have seen it, new requests are welcome.
                assert server.get("/v2/health/live").status == 200
                while time.monotonic() - signalled < 0.8:
                    with Wire(server.host, server.port) as late:
                        answer = late.send(LIVE).answer()
                        assert (answer.body, answer.headers["connection"]) == (LIVE_BODY, "close")
                        late.end()
                answer = idle.send(LIVE).answer()
                assert (answer.body, answer.headers["connection"]) == (LIVE_BODY, "close")
                idle.end()
                wait_until(lambda: not _accepts(server), "the port closed", timeout_s=5)
                assert server.process.poll() is None
            for number, wire in enumerate(clients):
                echoed(wire, number)
                wire.end()
            server.wait_stopped(timeout_s=3)
    finally:
        server.kill()


def _accepts(server: Server) -> bool:
    try:
        socket.create_connection((server.host, server.port), timeout=1).close()
    except OSError:
        return False
    return True


def test_requests_on_their_way_when_the_signal_comes_are_answered(models: Path, tmp_path: Path) -> None:
    """Sent before the signal, not yet read or not even accepted by a worker that is busy elsewhere."""
    server = start(tmp_path, models, "--workers", "2")
    try:
        with wires(server, 20) as old, contextlib.ExitStack() as stack:
            for wire in old:
                assert wire.send(LIVE).answer().body == LIVE_BODY
            for pid in server.pids("worker"):
                stack.enter_context(stopped(pid))
            with wires(server, 20) as new:
                for number, wire in enumerate(old + new):
                    wire.send(echo(number))
                server.process.send_signal(signal.SIGTERM)
                server.wait_log("draining")
                time.sleep(0.2)
                stack.close()
                for number, wire in enumerate(old + new):
                    echoed(wire, number)
        server.wait_stopped(timeout_s=5)
    finally:
        server.kill()


def test_a_request_in_flight_that_does_not_end_is_given_up(zoo_models: Path, tmp_path: Path) -> None:
    server = start(tmp_path, zoo_models, "--workers", "1", "--drain-timeout", "1")
    try:
        with Wire(server.host, server.port) as wire:
            wire.send(rounds(FOR_EVER))
            wait_until(lambda: metric(server, "headrace_inflight_requests", model="endless") == 1, "in flight")
            started = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            server.wait_stopped(code=os.EX_TEMPFAIL, timeout_s=9)
            assert time.monotonic() - started < 8
    finally:
        server.kill()


def test_each_further_signal_is_faster(models: Path, tmp_path: Path) -> None:
    server = start(tmp_path, models, "--workers", "1", "--drain-delay", "60", "--drain-timeout", "60")
    try:
        with Wire(server.host, server.port) as wire:
            wire.send(echo(1)[:-5])
            server.process.send_signal(signal.SIGTERM)
            server.wait_log("draining")
            assert server.get("/v2/health/live").status == 200
            server.process.send_signal(signal.SIGTERM)
            wait_until(lambda: not _accepts(server), "the port closed", timeout_s=2)
            # The request that is being sent has the drain time-out.
            wire.silent(0.3)
            wire.send(echo(1)[-5:])
            echoed(wire, 1)
            wire.end()
            server.wait_stopped(timeout_s=3)
    finally:
        server.kill()


def test_a_third_signal_drops_a_request_that_is_not_complete(models: Path, tmp_path: Path) -> None:
    server = start(tmp_path, models, "--workers", "1", "--drain-delay", "60", "--drain-timeout", "60")
    try:
        with Wire(server.host, server.port) as wire:
            wire.send(echo(1)[:-5])
            wait_until(lambda: metric(server, "headrace_connections") == 2, "the connection accepted")
            for text in ("draining", "", "stopping_faster"):
                server.process.send_signal(signal.SIGTERM)
                wait_until(lambda text=text: text in server.log(), text)  # type: ignore[misc]
                time.sleep(0.1)
            server.wait_stopped(timeout_s=3)
    finally:
        server.kill()


# -- processes that die or stand still


def test_requests_in_flight_survive_their_executor(server: Server) -> None:
    with wires(server, 100) as clients:
        for kill in range(3):
            victim = executor_of(server, "echo")
            with stopped(victim):
                for number, wire in enumerate(clients):
                    wire.send(echo(1000 * kill + number))
                wait_until(lambda: metric(server, "headrace_queue_depth", model="echo") == 100, "all in flight")
                killed = time.monotonic()
                os.kill(victim, signal.SIGKILL)
            for number, wire in enumerate(clients):
                echoed(wire, 1000 * kill + number)
            assert time.monotonic() - killed < 5


def test_a_killed_worker_takes_only_its_own_connections(server: Server) -> None:
    with spread(server, 10) as held:
        victim, survivor = sorted(held)
        with stopped(executor_of(server, "echo")):
            for mine in held.values():
                for number, wire in enumerate(mine):
                    wire.send(echo(number))
            in_flight = sum(map(len, held.values()))
            wait_until(lambda: metric(server, "headrace_queue_depth", model="echo") == in_flight, "all in flight")
            os.kill(victim, signal.SIGKILL)
            killed = time.monotonic()
            server.wait_replaced("worker", victim, 2)
            # Whoever connects while one worker is dead is kept in its queue and served by its successor.
            for _ in range(20):
                with Wire(server.host, server.port) as late:
                    assert late.send(LIVE).answer().body == LIVE_BODY
            assert time.monotonic() - killed < 2
        for number, wire in enumerate(held[survivor]):
            echoed(wire, number)
        for wire in held[victim]:
            with contextlib.suppress(ConnectionResetError):
                wire.end()
        wait_until(lambda: metric(server, "headrace_queue_depth", model="echo") == 0, "the dead worker's rows freed")
        # Counted by the living: what the dead had in flight went with it.
        wait_until(lambda: metric(server, "headrace_inflight_requests", model="echo") == 0, "nothing in flight")


def test_whoever_has_served_is_replaced_at_once_however_often_it_dies(server: Server) -> None:
    for _ in range(3):
        for role in ("worker", "executor"):
            os.kill(victim := server.pids(role)[0], signal.SIGKILL)
            server.wait_replaced(role, victim, 2 if role == "worker" else 1)
        wait_until(lambda: server.get("/v2/models/echo/ready").status == 200, "the model ready again")
        # The policy calls a second of service stable.
        time.sleep(1.5)
    delays = [line.rpartition('"restart_in_ms":')[2] for line in server.log().splitlines() if "_died" in line]
    assert delays == ["0}"] * 6, server.log()


def test_a_worker_that_stands_still_stops_nobody_else(server: Server) -> None:
    with spread(server, 4) as held:
        still, lively = sorted(held)
        for wire in held[still]:
            wire.send(echo(1))
            echoed(wire, 1)
        with stopped(still):
            for wire in held[still]:
                wire.send(echo(2))
            until = time.monotonic() + 2
            number = 0
            while time.monotonic() < until:
                number += 1
                started = time.monotonic()
                for wire in held[lively]:
                    wire.send(echo(number))
                    echoed(wire, number)
                assert time.monotonic() - started < 1
        for wire in held[still]:
            echoed(wire, 2)
        assert still in server.pids("worker")


def test_a_worker_stopped_while_it_fills_a_row_stops_nobody_else(zoo: Server) -> None:
    """Large JSON bodies keep a worker busy filling rows: one of many stops hits it there."""
    large = infer("wide", "x", "FP32", [4, WIDTH], [1.0 / 3] * 4 * WIDTH)
    small = infer("wide", "x", "FP32", [1, WIDTH], [0] * WIDTH)
    over = threading.Event()
    statuses: set[int] = set()

    def flood(wire: Wire) -> None:
        while not over.is_set():
            wire.send(large * 2)
            statuses.update(wire.answer().status for _ in range(2))

    with spread(zoo, 4) as held:
        still, lively = sorted(held)
        floods = [threading.Thread(target=flood, args=(wire,)) for wire in held[still]]
        for thread in floods:
            thread.start()
        try:
            for _ in range(30):
                with stopped(still):
                    for wire in held[lively]:
                        wire.send(small)
                    for wire in held[lively]:
                        wire.socket.settimeout(1)
                        assert wire.answer().status == 200
                time.sleep(0.02)
        finally:
            over.set()
            for thread in floods:
                thread.join(20)
        # What the stopped process had begun is answered as well, once it goes on.
        assert statuses == {200}
        assert not any(thread.is_alive() for thread in floods)
    wait_until(lambda: metric(zoo, "headrace_queue_depth", model="wide") == 0, "every row free")


def test_a_pause_of_the_whole_machine_kills_nobody(server: Server) -> None:
    before = server.processes()
    with Wire(server.host, server.port) as wire:
        wire.send(echo(1))
        echoed(wire, 1)
        with contextlib.ExitStack() as stack:
            for pid in before:
                stack.enter_context(stopped(pid))
            wire.send(echo(2))
            time.sleep(2.5)
        echoed(wire, 2)
    assert server.processes() == before


# -- models and inputs that kill


@contextlib.contextmanager
def watchdog(server: Server, name: str, check: Callable[[int], bool]) -> Iterator[list[int]]:
    """Kills the executor process of this name whenever `check` says so of its pid; yields the list of the killed."""
    killed: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.005):
            for pid, command in server.processes().items():
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    if command == name and pid not in killed and check(pid):
                        killed.append(pid)
                        os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


def test_an_input_that_kills_its_executor_fails_alone(zoo: Server) -> None:
    """The poison runs for ever; whoever takes the executor's CPU for so long is killed, as a time limit would do."""
    load_s = cpu_s(executor_of(zoo, "endless"))
    with wires(zoo, 40) as clients, Wire(zoo.host, zoo.port) as poison:
        with stopped(executor_of(zoo, "endless")):
            for number, wire in enumerate(clients):
                wire.send(rounds(number))
                if number == 20:
                    poison.send(rounds(FOR_EVER))
            wait_until(lambda: metric(zoo, "headrace_queue_depth", model="endless") == 41, "all in flight")
        name = f"headrace-e{EXECUTORS.index('endless')}"
        with watchdog(zoo, name, lambda pid: cpu_s(pid) > load_s + 0.6) as killed:
            for number, wire in enumerate(clients):
                wire.socket.settimeout(30)
                answer = wire.answer()
                assert (answer.status, answer.json()["outputs"][0]["data"]) == (200, [number])
            poison.socket.settimeout(30)
            answer = poison.answer()
            assert answer.status == 500
            assert "executor" in answer.json()["error"]
            assert len(killed) <= 3
            before = list(killed)
            # From now on it is refused without being run; others are served.
            assert poison.send(rounds(FOR_EVER)).answer().status == 500
            assert poison.send(rounds(5)).answer().status == 200
            assert killed == before
        assert metric(zoo, "headrace_queue_depth", model="endless") == 0


def test_a_bad_input_fails_alone(zoo: Server) -> None:
    with wires(zoo, 32) as clients:
        with stopped(executor_of(zoo, "picky")):
            for number, wire in enumerate(clients):
                wire.send(infer("picky", "index", "INT64", [1, 1], [99 if number == 13 else number % 16]))
            wait_until(lambda: metric(zoo, "headrace_queue_depth", model="picky") == 32, "all in flight")
        for number, wire in enumerate(clients):
            answer = wire.answer()
            if number == 13:
                assert answer.status == 400
                assert "/" not in answer.json()["error"].replace("https://", "")
            else:
                assert (answer.status, answer.json()["outputs"][0]["data"]) == (200, [10 * (number % 16)])


def test_a_model_in_a_crash_loop_disturbs_nobody_and_costs_little(zoo: Server) -> None:
    name = f"headrace-e{EXECUTORS.index('picky')}"
    processes = [pid for pid, command in zoo.processes().items() if command != name]

    def everybody_s() -> float:
        """With the supervisor's dead children, which are the crashed executors."""
        fields = Path(f"/proc/{zoo.process.pid}/stat").read_text().rpartition(") ")[2].split()
        return sum(map(cpu_s, processes)) + (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")

    window_s = 4.0
    with watchdog(zoo, name, lambda pid: True) as killed, Wire(zoo.host, zoo.port) as wire:
        wait_until(lambda: len(killed) >= 4, "the loop to turn")
        started, used_s = time.monotonic(), everybody_s()
        while time.monotonic() - started < window_s:
            wire.send(echo(1))
            echoed(wire, 1)
            time.sleep(0.05)
        assert (everybody_s() - used_s) / window_s < 0.1
        assert len(killed) < 12
        assert zoo.get("/v2/health/ready").status in (200, 503)
        assert zoo.get("/v2/models/picky/ready").status == 503
        assert zoo.get("/v2/models/echo/ready").status == 200
        assert zoo.pids("worker") == [pid for pid in processes if pid in zoo.pids("worker")]
    # What was asked meanwhile is answered as soon as the model holds.
    with Wire(zoo.host, zoo.port, timeout_s=30) as wire:
        answer = wire.send(infer("picky", "index", "INT64", [1, 1], [3])).answer()
        assert answer.status in (200, 503)


# -- clients that leave, queues that are full


def test_a_client_that_goes_away_takes_its_waiting_rows_with_it(server: Server) -> None:
    with wires(server, 40) as clients:
        with stopped(executor_of(server, "echo")):
            for number, wire in enumerate(clients):
                wire.send(echo(number) * 3)
            wait_until(lambda: metric(server, "headrace_queue_depth", model="echo") == 120, "all waiting")
            for number, wire in enumerate(clients):
                if number % 2:
                    reset(wire.socket)
            wait_until(lambda: metric(server, "headrace_queue_depth", model="echo") == 60, "half of them gone")
            assert metric(server, "headrace_request_failures_total", model="echo", reason="canceled") == 60
        for number, wire in enumerate(clients):
            if not number % 2:
                for _ in range(3):
                    echoed(wire, number)
    assert metric(server, "headrace_inferences_total", model="echo") == 60
    assert metric(server, "headrace_queue_depth", model="echo") == 0


def test_a_queue_of_cancelled_rows_is_free_again_without_the_executor(server: Server) -> None:
    """A full queue whose clients all leave: the next request finds room as soon as the executor has passed by."""
    with wires(server, 40) as clients:
        with stopped(executor_of(server, "echo")):
            for wire in clients:
                wire.send(infer("echo", "x", "FP32", [64, 2], [0.5] * 128))
            wait_until(lambda: metric(server, "headrace_rejected_total", model="echo") > 0, "the queue full")
            for wire in clients:
                reset(wire.socket)
        with Wire(server.host, server.port) as wire:
            wait_until(lambda: wire.send(echo(1)).answer().status == 200, "room in the queue", timeout_s=1)
        wait_until(lambda: metric(server, "headrace_queue_depth", model="echo") == 0, "every row free")


def test_a_full_queue_refuses_at_once_and_recovers(server: Server) -> None:
    body = infer("echo", "x", "FP32", [16, 2], [0.5] * 32)
    with wires(server, 200) as clients:
        with stopped(executor_of(server, "echo")):
            slowest_s, refused = 0.0, []
            for wire in clients:
                started = time.monotonic()
                wire.send(body)
                wire.socket.settimeout(0.05)
                with contextlib.suppress(TimeoutError):
                    answer = wire.answer()
                    slowest_s = max(slowest_s, time.monotonic() - started)
                    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
                    assert "connection" not in answer.headers
                    refused.append(wire)
                wire.socket.settimeout(10)
            accepted = [wire for wire in clients if wire not in refused]
            # 1024 rows may wait, in slabs of 64; one more fills while one runs.
            assert 64 <= len(accepted) <= 72
            assert slowest_s < 0.05
            assert server.get("/v2/health/live").status == 200
        for wire in accepted:
            assert wire.answer().status == 200
        for wire in clients:
            assert wire.send(body).answer().status == 200
    assert metric(server, "headrace_queue_depth", model="echo") == 0


# -- what cannot start


def failed(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    ports = ("--http-port", "0", "--metrics-port", "0")
    command = [*executable(), "serve", *map(str, arguments), *ports]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)


def test_a_path_with_nothing_in_it(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", tmp_path):
        done = failed(path)
        assert done.returncode == os.EX_NOINPUT
        assert str(path) in done.stderr
        assert done.stdout == ""


@pytest.mark.parametrize("kind", ["no ONNX at all", "cut off", "a graph that does not hold together"])
def test_a_broken_model(tmp_path: Path, kind: str) -> None:
    whole = identity("FP32", (-1, 2))
    content = {
        "no ONNX at all": b"hello, world",
        "cut off": whole[: len(whole) // 2],
        "a graph that does not hold together": whole.replace(b"Identity", b"Identitx"),
    }[kind]
    done = failed(write_repository(tmp_path, {"broken": content}))
    assert done.returncode == os.EX_DATAERR, done
    assert "broken" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_broken_model_beside_a_good_one(tmp_path: Path) -> None:
    models = {"broken": identity("FP32", (-1, 2)).replace(b"Identity", b"Identitx"), "echo": identity("FP32", (-1, 2))}
    with running(write_repository(tmp_path, models), "--workers", "1") as server:
        with Wire(server.host, server.port) as wire:
            wire.send(echo(1))
            echoed(wire, 1)
        assert server.get("/v2/models/broken/ready").status == 503
        assert "UNAVAILABLE" in server.output()


def test_the_holder_of_a_port_in_use_is_named(models: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        done = subprocess.run(
            [*executable(), "serve", str(models), "--http-port", str(port)],
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
        )
    assert done.returncode == os.EX_OSERR
    assert f"port {port}" in done.stderr
    assert f"pid {os.getpid()}" in done.stderr
