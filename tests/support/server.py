"""Runs `headrace serve` as a user does, a process of its own, and proves at the end that nothing of it is left.

    with running("serve arguments"...) as server:
        server.post("/v2/models/digits/infer", body)
        os.kill(server.pids("executor")[0], signal.SIGKILL)

HEADRACE_EXECUTABLE names another executable than the environment's own (dist/headrace, for example).
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tests.support.balance import process_table

START_TIMEOUT_NS = 30_000_000_000
STOP_TIMEOUT_S = 40.0
POLL_S = 0.01
#: Process kind -> prefix of the command name that its processes carry; a number follows.
ROLE_PREFIX = {"worker": "headrace-w", "executor": "headrace-e"}
_ADDRESS = re.compile(r"\b(http|metrics)\s+http://(\[[^\]]+\]|[^\s:/\[\]]+):(\d+)")


class Answer(NamedTuple):
    """One HTTP answer: status, header fields under lower-case names, body."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class ServerFailed(AssertionError):
    """The server did something else than asked; the text ends with all that it printed."""


def executable() -> list[str]:
    """Command line of the headrace under test, without arguments."""
    named = os.environ.get("HEADRACE_EXECUTABLE")
    return [named] if named else [str(Path(sys.executable).parent / "headrace")]


def _alive(state: str) -> bool:
    return state not in "ZX"


class Server:
    """A started server. Made by `start` or `running`; `stop` or `kill` ends it.

    Its processes form a session of their own, so that every one is found, also those that have lost their parent.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], folder: Path, directory: Path | None = None
    ) -> None:
        self.folder = folder
        self.addresses: dict[str, tuple[str, int]] = {}
        self._out = folder / "stdout.txt"
        self._err = folder / "stderr.txt"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=dict(environment),
                cwd=directory,
                start_new_session=True,
            )

    # -- what it says ------------------------------------------------------------------------------------------------

    def output(self) -> str:
        """All it printed on stdout up to now: the banner."""
        return self._out.read_text(encoding="utf-8", errors="replace")

    def log(self) -> str:
        """All it printed on stderr up to now."""
        return self._err.read_text(encoding="utf-8", errors="replace")

    def failed(self, text: str) -> ServerFailed:
        return ServerFailed(f"{text}\n--- stdout\n{self.output()}\n--- stderr\n{self.log()}")

    # -- start -------------------------------------------------------------------------------------------------------

    def wait_ready(self, timeout_ns: int = START_TIMEOUT_NS) -> None:
        """Waits for the banner's addresses and for readiness; raises with the output when the process ends first."""
        deadline = time.monotonic_ns() + timeout_ns
        while True:
            for name, host, port in _ADDRESS.findall(self.output()):
                self.addresses[name] = (host.strip("[]"), int(port))
            if "http" in self.addresses and self._is_ready():
                return
            if self.process.poll() is not None:
                raise self.failed(f"expected a server, the process ended with code {self.process.returncode}")
            if time.monotonic_ns() > deadline:
                raise self.failed(f"expected readiness within {timeout_ns // 1_000_000} ms")
            time.sleep(POLL_S)

    def _is_ready(self) -> bool:
        try:
            return self.get("/v2/health/ready", timeout_s=2).status == 200
        except (OSError, http.client.HTTPException):
            return False

    def wait_log(self, text: str, timeout_ns: int = START_TIMEOUT_NS) -> None:
        """Waits until stderr holds a text."""
        deadline = time.monotonic_ns() + timeout_ns
        while text not in self.log():
            if time.monotonic_ns() > deadline:
                raise self.failed(f"expected {text!r} in the log within {timeout_ns // 1_000_000} ms")
            time.sleep(POLL_S)

    # -- talk --------------------------------------------------------------------------------------------------------

    @property
    def host(self) -> str:
        return self.addresses["http"][0]

    @property
    def port(self) -> int:
        return self.addresses["http"][1]

    @property
    def metrics_port(self) -> int:
        return self.addresses["metrics"][1]

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def connect(self, port: int | None = None, timeout_s: float = 10) -> socket.socket:
        """A plain connected socket; the caller closes it."""
        return socket.create_connection((self.host, port or self.port), timeout=timeout_s)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        port: int | None = None,
        timeout_s: float = 10,
    ) -> Answer:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection(self.host, port or self.port, timeout=timeout_s)
        try:
            connection.request(method, path, body, dict(headers or {}))
            reply = connection.getresponse()
            fields = {name.lower(): value for name, value in reply.getheaders()}
            return Answer(reply.status, fields, reply.read())
        finally:
            connection.close()

    def get(self, path: str, *, port: int | None = None, timeout_s: float = 10) -> Answer:
        return self.request("GET", path, port=port, timeout_s=timeout_s)

    def post(self, path: str, value: Any, *, timeout_s: float = 10) -> Answer:
        """POST of a value as JSON."""
        body = json.dumps(value).encode()
        return self.request("POST", path, body, {"Content-Type": "application/json"}, timeout_s=timeout_s)

    # -- processes ---------------------------------------------------------------------------------------------------

    def processes(self) -> dict[int, str]:
        """pid -> command name of every living process of this server, the first one included."""
        return {
            pid: command
            for pid, (command, state, _, session) in process_table().items()
            if session == self.process.pid and _alive(state)
        }

    def pids(self, role: str) -> list[int]:
        """Living processes of one kind ('worker', 'executor', 'supervisor'), in the order of their names."""
        everyone = self.processes()
        if role == "supervisor":
            roles = tuple(ROLE_PREFIX.values())
            others = [pid for pid, command in everyone.items() if not command.startswith(roles)]
            # The one-file executable's first process only unpacks, and waits for the second.
            parents = {parent for pid, (_, _, parent, _) in process_table().items() if pid in others}
            return [pid for pid in others if pid not in parents]
        prefix = ROLE_PREFIX[role]
        return sorted((pid for pid, name in everyone.items() if name.startswith(prefix)), key=lambda pid: everyone[pid])

    def wait_replaced(self, role: str, gone: int, count: int = 1, timeout_ns: int = START_TIMEOUT_NS) -> list[int]:
        """Waits until `count` processes of a kind live and `gone` is none of them; returns their pids."""
        deadline = time.monotonic_ns() + timeout_ns
        while True:
            now = self.pids(role)
            if gone not in now and len(now) >= count:
                return now
            if time.monotonic_ns() > deadline:
                raise self.failed(f"expected {count} {role} processes without pid {gone}, found {now}")
            time.sleep(POLL_S)

    # -- end ---------------------------------------------------------------------------------------------------------

    def stop(self, sign: int = signal.SIGTERM, code: int = 0, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Asks it to stop, waits, and checks: exit code, no process left, no port left."""
        self.process.send_signal(sign)
        self.wait_stopped(code, timeout_s)

    def wait_stopped(self, code: int = 0, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Waits for the end that something else has caused, and checks what `stop` checks."""
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise self.failed(f"expected the server to end within {timeout_s} s; living: {self.processes()}") from None
        if self.process.returncode != code:
            raise self.failed(f"expected exit code {code}, got {self.process.returncode}")
        self.assert_nothing_left()

    def assert_nothing_left(self, timeout_ns: int = 2_000_000_000) -> None:
        """No process of the session lives and no address of the banner accepts."""
        deadline = time.monotonic_ns() + timeout_ns
        while left := self.processes():
            if time.monotonic_ns() > deadline:
                raise self.failed(f"expected no process after the end, found {left}")
            time.sleep(POLL_S)
        for name, (host, port) in self.addresses.items():
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection((host, port), timeout=1):
                raise self.failed(f"expected no listener after the end, {name} port {port} accepts")

    def kill(self) -> None:
        """Ends whatever still lives, at once and without any check."""
        while left := self.processes():
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(POLL_S)
        self.process.wait()


def start(
    folder: Path, *arguments: str | Path, environment: Mapping[str, str] | None = None, http_port: int = 0
) -> Server:
    """Starts `headrace serve ARGUMENTS` on free ports and waits until it is ready; the caller stops it.

    Unless the arguments say otherwise it stops without the delay that load balancers need. folder takes its output.
    environment is added to this process's own.
    """
    command = [*executable(), "serve", *map(str, arguments)]
    for flag, value in (("--http-port", http_port), ("--metrics-port", 0), ("--drain-delay", 0)):
        if flag not in command and not ("--port" in command and flag.endswith("-port")):
            command += [flag, str(value)]
    server = Server(command, {**os.environ, **(environment or {})}, folder)
    try:
        server.wait_ready()
    except BaseException:
        server.kill()
        raise
    return server


@contextlib.contextmanager
def running(*arguments: str | Path, environment: Mapping[str, str] | None = None) -> Iterator[Server]:
    """A ready server for a block; stopped and checked at its end unless the block has stopped it or failed."""
    with tempfile.TemporaryDirectory(prefix="headrace-test-") as folder:
        server = start(Path(folder), *arguments, environment=environment)
        try:
            yield server
            if server.process.poll() is None:
                server.stop()
        finally:
            server.kill()


@contextlib.contextmanager
def running_command(folder: Path, *command: str, environment: Mapping[str, str] | None = None) -> Iterator[Server]:
    """A ready server that another command line than `headrace serve` starts; `folder` takes its output."""
    defaults = {"HEADRACE_WORKERS": "1", "HEADRACE_DRAIN_DELAY": "0"}
    server = Server(list(command), {**os.environ, **defaults, **(environment or {})}, folder)
    try:
        server.wait_ready()
        yield server
        server.stop()
    finally:
        server.kill()


def fetch(url: str, timeout_s: float = 10) -> Answer:
    """One GET of an absolute http:// address."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=timeout_s)
    try:
        connection.request("GET", parts.path or "/")
        reply = connection.getresponse()
        return Answer(reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read())
    finally:
        connection.close()
