"""Broken, hostile and half-copied models beside one that serves: each is refused with its reason, in the load call, the
index, the log and the metrics; the version that serves answers every request meanwhile; nothing outside is opened.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.demo import files
from tests.support.faults import wait_until
from tests.support.hostile_models import CANARY, REFUSED, WIDTH, with_external
from tests.support.onnx_writer import classifier, identity, write_repository
from tests.support.server import Server, executable, running
from tests.support.wire import Wire, infer

pytestmark = pytest.mark.slow

STRESS = int(os.environ.get("HEADRACE_STRESS") or 0)
FLIP_COUNT = 1000 * STRESS or 40
#: What a refusal may take, on a machine that does other things besides.
LOAD_BUDGET_S = 20.0
REQUEST = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}
EXPLICIT = ("--workers", "1", "--model-control-mode", "explicit", "--load-model", "*")


class Asking:
    """A client that asks version 1 without pause, from before the block until after it; `failures` has whatever was not
    its answer."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._has_begun = threading.Event()
        self._is_over = threading.Event()
        self.answered = 0
        self.failures: list[str] = []
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> Asking:
        self._thread.start()
        assert self._has_begun.wait(LOAD_BUDGET_S)
        return self

    def __exit__(self, *exception: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _ask(self) -> None:
        is_last = False
        with Wire(self._server.host, self._server.port) as wire:
            while not is_last:
                is_last = self._is_over.is_set()
                asked = float(self.answered % 97)
                answer = wire.send(infer("m", "x", "FP32", [1, 4], [asked] * 4)).answer()
                if answer.status != 200 or answer.json()["outputs"][0]["data"] != [asked] * 4:
                    self.failures.append(f"{answer.status} {answer.body!r}")
                self.answered += 1
                self._has_begun.set()
                time.sleep(0.002)


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the right size, outside of the repository."""
    path = tmp_path_factory.mktemp("outside") / CANARY
    path.write_bytes(bytes(WIDTH * 4))
    return path


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    (root / "m" / "1").mkdir(parents=True)
    (root / "m" / "1" / "model.onnx").write_bytes(identity())
    (root.parent / CANARY).write_bytes(bytes(WIDTH * 4))
    return root


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[Server]:
    with running(root, *EXPLICIT) as server:
        yield server


@pytest.fixture
def version(root: Path) -> Iterator[Path]:
    """An empty directory for version 2, gone after the test."""
    folder = root / "m" / "2"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def load(server: Server) -> tuple[int, str]:
    answer = server.request("POST", "/v2/repository/models/m/load", b"{}", timeout_s=LOAD_BUDGET_S)
    return answer.status, answer.body.decode()


def index(server: Server) -> dict[str, tuple[str, str]]:
    rows = server.post("/v2/repository/index", {}).json()
    return {row["version"]: (row["state"], row["reason"]) for row in rows}


@pytest.mark.parametrize("what", REFUSED)
def test_it_is_refused_with_its_reason(what: str, server: Server, version: Path, outside: Path) -> None:
    write, reason = REFUSED[what]
    write(version, outside)
    log_before = len(server.log())
    with Asking(server) as asking:
        status, text = load(server)
    assert status == 400, text
    said = json.loads(text)["error"]
    assert said.startswith("load failed for model 'm': version 2: ")
    assert re.search(reason if "|" in reason else re.escape(reason), said), said
    # Where things lie is nobody's business.
    assert str(version.parent.parent) not in said
    state = index(server)
    assert state["1"] == ("READY", "")
    assert state["2"][0] == "UNAVAILABLE"
    assert said.endswith(state["2"][1])
    metrics = server.get("/metrics", port=server.metrics_port).body.decode()
    assert re.search(r'headrace_model_refused\{model="m",version="2",reason="[^}]+"\} 1', metrics)
    # What the executor says is logged when it has ended.
    wait_until(lambda: re.search(r'"event":"model_(refused|failed)"', server.log()[log_before:]), "a line in the log")
    assert (asking.failures, asking.answered > 1) == ([], True)


def broken(server: Server, version: Path, contents: Iterator[bytes]) -> tuple[int, int]:
    """Loads each content as version 2: how many were refused, and how many were taken, since damage need not show."""
    refused = taken = 0
    with Asking(server) as asking:
        for content in contents:
            (version / "model.onnx").write_bytes(content)
            status, text = load(server)
            if status == 200:
                # Whatever it computes: it serves, and makes room for version 1 again.
                taken += 1
                shutil.rmtree(version)
                assert load(server)[0] == 200
                version.mkdir()
            else:
                assert status == 400, text
                refused += 1
                assert index(server)["1"][0] == "READY"
    # A version that was taken may refuse requests that are not for it.
    assert taken or not asking.failures, asking.failures
    return refused, taken


@pytest.mark.parametrize("name", ["digits", "classifier"])
def test_cut_off_anywhere(name: str, server: Server, version: Path) -> None:
    whole = (files.MODEL / "1" / "model.onnx").read_bytes() if name == "digits" else classifier()
    refused, taken = broken(server, version, (whole[: len(whole) * part // 64] for part in range(64)))
    assert (refused, taken) == (64, 0)


def test_flipped_bits(server: Server, version: Path) -> None:
    rng = random.Random(7)
    whole = identity()

    def flipped() -> Iterator[bytes]:
        for _ in range(FLIP_COUNT):
            damaged = bytearray(whole)
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
            yield bytes(damaged)

    refused, taken = broken(server, version, flipped())
    print(f"{refused} refused, {taken} taken of {FLIP_COUNT}")
    assert refused + taken == FLIP_COUNT
    assert refused > FLIP_COUNT // 10
    assert len(server.pids("supervisor")) == 1


def test_changed_files_of_a_version_that_serves(server: Server, root: Path) -> None:
    """The reason stands beside the version that goes on serving."""
    file = root / "m" / "1" / "model.onnx"
    file.write_bytes(identity()[:30])
    try:
        with Asking(server) as asking:
            assert load(server)[0] == 400
        state, reason = index(server)["1"]
        assert (state, "its changed files are not served: model.onnx is not a readable" in reason) == ("READY", True)
        assert asking.failures == []
    finally:
        file.write_bytes(identity())
        assert load(server)[0] == 200
    assert index(server)["1"] == ("READY", "")


def test_overlapping_weights_are_weights(server: Server, version: Path) -> None:
    """Two tensors in one range: tied weights are written so."""
    (version / "w").write_bytes(bytes(WIDTH * 4))
    (version / "model.onnx").write_bytes(with_external({"location": "w"}, count=2))
    assert load(server) == (200, "")
    assert index(server)["2"][0] == "READY"
    shutil.rmtree(version)
    assert load(server)[0] == 200
    version.mkdir()


def test_a_directory_that_is_still_being_copied_is_left_alone(tmp_path: Path) -> None:
    """Poll mode: while the files grow the old version serves and nothing is loaded; then the new one is."""
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "1" / "model.onnx").write_bytes(identity())
    whole = with_external({"location": "w"})
    with running(tmp_path, "--workers", "1", "--model-control-mode", "poll", "--repository-poll-secs", "1") as server:
        (tmp_path / "m" / "2").mkdir()
        until = time.monotonic() + 1.5
        with Asking(server) as asking:
            for end in range(len(whole) + 1):
                (tmp_path / "m" / "2" / "model.onnx").write_bytes(whole[:end])
                time.sleep(max(0.0, until - time.monotonic()) / (len(whole) - end + 1))
        (tmp_path / "m" / "2" / "w").write_bytes(bytes(WIDTH * 4))
        assert asking.failures == []
        assert index(server) == {"1": ("READY", "")}
        assert "model_loading" not in server.log()
        wait_until(lambda: index(server).get("2") == ("READY", ""), "version 2")
        assert server.log().count("model_loading") == 1


def test_a_model_that_ends_its_executor_while_loading_does_not_keep_the_others(tmp_path: Path) -> None:
    """At start: the server becomes ready without it, says why, and goes on trying, ever more seldom."""
    root = write_repository(tmp_path / "models", {"deadly": identity(), "good": identity()})
    command = [*executable(), "serve", str(root), "--workers", "1", "--http-port", "0", "--metrics-port", "0"]
    server = Server(command, {**os.environ, "HEADRACE_DRAIN_DELAY": "0"}, tmp_path)
    over, killed = threading.Event(), set[int]()

    def kill() -> None:
        """Whatever loads it dies of it."""
        while not over.wait(0.005):
            for pid, name in server.processes().items():
                if name == "headrace-e0" and pid not in killed:
                    killed.add(pid)
                    os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        server.wait_ready()
        reason = "its executor died 4 times while it loaded, the last time with status -9"
        rows = {row["name"]: (row["state"], row["reason"]) for row in server.post("/v2/repository/index", {}).json()}
        assert rows == {"deadly": ("UNAVAILABLE", reason), "good": ("READY", "")}
        assert server.post("/v2/models/good/infer", REQUEST).status == 200
        assert server.get("/v2/models/deadly/ready").status == 503
        assert "UNAVAILABLE" in server.output()
        over.set()
        thread.join()
        wait_until(lambda: server.post("/v2/models/deadly/infer", REQUEST).status == 200, "the model after all")
        server.stop()
    finally:
        over.set()
        thread.join()
        server.kill()


def test_nothing_outside_the_directory_is_opened(tmp_path: Path, outside: Path) -> None:
    """As strace sees it: no process of the server opens the file that every one of these models is after."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    root = tmp_path / "models"
    (root.parent / CANARY).write_bytes(bytes(WIDTH * 4))
    for what, (write, _) in REFUSED.items():
        folder = root / re.sub(r"[^A-Za-z0-9]", "-", what) / "1"
        folder.mkdir(parents=True)
        write(folder, outside)
    write_repository(root, {"m": identity()})
    trace = tmp_path / "trace"
    command = [strace, "-f", "-qq", "-s", "4096", "-e", "trace=open,openat,openat2", "-o", str(trace)]
    serve = [*executable(), "serve", str(root), "--workers", "1", "--http-port", "0", "--metrics-port", "0"]
    server = Server([*command, *serve], {**os.environ, "HEADRACE_DRAIN_DELAY": "0"}, tmp_path)
    try:
        server.wait_ready(120_000_000_000)
        states = {row["name"]: row["state"] for row in server.post("/v2/repository/index", {}).json()}
        assert states.pop("m") == "READY"
        assert set(states.values()) == {"UNAVAILABLE"}
        assert len(states) == len(REFUSED)
        for pid in server.pids("supervisor"):
            os.kill(pid, signal.SIGTERM)
        server.process.wait(20)
    finally:
        server.kill()
    opened = trace.read_text(errors="replace").splitlines()
    assert any("model.onnx" in line for line in opened)
    assert [line for line in opened if CANARY in line and "= -1 E" not in line] == []


def test_a_full_disk_costs_a_load_and_nothing_else(tmp_path: Path) -> None:
    """The log goes to a full device, and a copy onto a full disk ends half-way."""
    root = write_repository(tmp_path / "models", {"m": identity()})
    with Path("/dev/full").open("wb") as full:
        command = [*executable(), "serve", str(root), *EXPLICIT, "--port", "0", "--drain-delay", "0"]
        banner = (tmp_path / "banner").open("wb")
        process = subprocess.Popen(command, stdout=banner, stderr=full)
    try:
        pattern = re.compile(r"http://([^\s:]+):(\d+)")
        wait_until(lambda: pattern.search((tmp_path / "banner").read_text()), "the banner", timeout_s=30)
        host, port = pattern.search((tmp_path / "banner").read_text()).groups()  # type: ignore[union-attr]
        (root / "m" / "2").mkdir()
        (root / "m" / "2" / "model.onnx").write_bytes(identity()[:50])
        with Wire(host, int(port)) as wire:
            post = b"POST /v2/repository/models/m/load HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"
            answer = wire.send(post).answer()
            assert (answer.status, "is truncated or damaged" in answer.json()["error"]) == (400, True)
            assert wire.send(infer("m", "x", "FP32", [1, 4], [1, 2, 3, 4])).answer().status == 200
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        banner.close()
