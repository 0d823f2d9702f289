"""A client that knows every right answer: many keep-alive connections, distinct inputs, each answer checked.

The model's answer is a function of its input and the input is different in every request, so an answer that belongs to
another request, to another row or to no request at all is seen. A connection knows which worker process holds it: when
it breaks, that is an error unless the test has killed that worker; only then are its open requests sent again, and
counted apart.
"""

from __future__ import annotations

import asyncio
import json
import random
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.support.faults import worker_of
from tests.support.onnx_writer import Graph
from tests.support.server import Server

FACTOR, OFFSET = 3, 7
_RETRY_S = 0.05


def model(busy_width: int = 0) -> bytes:
    """`x` INT64 [-1, 2] -> `y` INT64 [-1, 2] = 3 x + 7.

    busy_width > 0: products of this width are computed beside it and add nothing, so that a batch takes its time and a
    killed executor is likely to be in the middle of one.
    """
    graph = Graph("oracle")
    graph.input("x", "INT64", [-1, 2])
    graph.constant("factor", "INT64", [1], struct.pack("<q", FACTOR))
    graph.constant("offset", "INT64", [1], struct.pack("<q", OFFSET))
    graph.node("Mul", ["x", "factor"], ["scaled"])
    if not busy_width:
        graph.node("Add", ["scaled", "offset"], ["y"])
    else:
        rng = random.Random(7)
        graph.weights("w_in", [2, busy_width], rng)
        graph.weights("w", [busy_width, busy_width], rng)
        graph.constant("nothing", "FP32", [1], struct.pack("<f", 0.0))
        graph.constant("axis", "INT64", [1], struct.pack("<q", 1))
        graph.node("Cast", ["x"], ["h"], to=1)
        graph.node("MatMul", ["h", "w_in"], ["h0"])
        for layer in range(8):
            graph.node("MatMul", [f"h{layer}", "w"], [f"m{layer}"])
            graph.node("Tanh", [f"m{layer}"], [f"h{layer + 1}"])
        graph.node("ReduceSum", ["h8", "axis"], ["sum"], keepdims=1)
        graph.node("Mul", ["sum", "nothing"], ["zero"])
        graph.node("Cast", ["zero"], ["zero_int"], to=7)
        graph.node("Add", ["scaled", "offset"], ["shifted"])
        graph.node("Add", ["shifted", "zero_int"], ["y"])
    graph.output("y", "INT64", [-1, 2])
    return graph.model()


@dataclass(frozen=True, slots=True)
class Question:
    """One request: which model, and what makes its rows like no other's."""

    serial: int
    model: str
    row_count: int

    def values(self) -> tuple[int, ...]:
        """Two numbers a row; no two rows of a run are equal."""
        return tuple(
            number
            for row in range(self.row_count)
            for number in (self.serial << 12 | row, -1 - (self.serial << 12) - row)
        )

    def encoded(self) -> bytes:
        data = struct.pack(f"<{2 * self.row_count}q", *self.values())
        head = (
            b'{"id":"%d","inputs":[{"name":"x","shape":[%d,2],"datatype":"INT64","parameters":{"binary_data_size":%d}}],'
            b'"parameters":{"binary_data_output":true}}' % (self.serial, self.row_count, len(data))
        )
        return (
            (
                b"POST /v2/models/%s/infer HTTP/1.1\r\nHost: oracle\r\nContent-Type: application/octet-stream\r\n"
                b"Inference-Header-Content-Length: %d\r\nContent-Length: %d\r\n\r\n"
                % (self.model.encode(), len(head), len(head) + len(data))
            )
            + head
            + data
        )

    def complaint(self, status: int, headers: dict[bytes, bytes], body: bytes) -> str:
        """'' when this is the right answer, else what is wrong with it."""
        if status != 200:
            return f"request {self.serial} got status {status}: {body[:200]!r}"
        cut = int(headers.get(b"inference-header-content-length", b"-1"))
        if cut < 0:
            return f"request {self.serial} asked for binary output and got {body[:200]!r}"
        said = json.loads(body[:cut])
        if said.get("id") != str(self.serial):
            return f"request {self.serial} got the answer with id {said.get('id')!r}"
        if said["outputs"][0]["shape"] != [self.row_count, 2]:
            return f"request {self.serial} with {self.row_count} rows got shape {said['outputs'][0]['shape']}"
        expected = struct.pack(f"<{2 * self.row_count}q", *(FACTOR * number + OFFSET for number in self.values()))
        if body[cut:] != expected:
            return f"request {self.serial} got wrong numbers: {body[cut : cut + 64]!r} for {expected[:64]!r}"
        return ""


@dataclass
class Tally:
    """What happened, over all connections."""

    answered: int = 0
    resent: int = 0
    reconnects: int = 0
    complaints: list[str] = field(default_factory=list)

    def complain(self, text: str) -> None:
        if len(self.complaints) < 20:
            self.complaints.append(text)


class Oracle:
    """Asks `server` until `enough(answered)` holds; connections with `window` requests outstanding each.

    killed: pids of workers that the test has killed, put there before the signal is sent. choose: the next question for
    a serial number.
    """

    def __init__(
        self,
        server: Server,
        *,
        connection_count: int,
        window: int,
        choose: Callable[[int], Question],
        enough: Callable[[int], bool],
    ) -> None:
        self.server = server
        self.connection_count = connection_count
        self.window = window
        self.tally = Tally()
        self.killed: set[int] = set()
        self._choose = choose
        self._enough = enough
        self._serial = 0
        self._again: deque[Question] = deque()

    def next_question(self) -> Question | None:
        """What to ask next; None when it is enough."""
        if self._again:
            return self._again.popleft()
        if self._enough(self.tally.answered):
            return None
        self._serial += 1
        return self._choose(self._serial)

    @property
    def asked(self) -> int:
        """Distinct questions put so far."""
        return self._serial

    async def run(self, timeout_s: float) -> Tally:
        """Asks until it is enough and every question is answered."""
        tasks = [asyncio.create_task(self._keep_asking(number)) for number in range(self.connection_count)]
        done, waiting = await asyncio.wait(tasks, timeout=timeout_s)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for task in done:
            task.result()
        if waiting:
            self.tally.complain(f"{len(waiting)} connections still wait for answers after {timeout_s} s")
        if self._again:
            self.tally.complain(f"{len(self._again)} requests were never sent again")
        if self.tally.answered != self._serial:
            self.tally.complain(f"{self._serial} requests, {self.tally.answered} answers")
        return self.tally

    async def _keep_asking(self, number: int) -> None:
        """One connection after another until it is enough."""
        loop = asyncio.get_running_loop()
        while not self._enough(self.tally.answered) or self._again:
            link = _Link(self)
            try:
                transport, _ = await loop.create_connection(lambda link=link: link, self.server.host, self.server.port)  # type: ignore[misc]
            except OSError as error:
                self.tally.complain(f"connection {number} was refused: {error}")
                return
            try:
                link.live()
                await link.placed
                link.worker = worker_of(self.server, transport.get_extra_info("sockname")[1])
                link.fill()
                await link.ended
            finally:
                transport.abort()
            if not link.is_broken:
                continue
            self.tally.reconnects += 1
            # A connection whose first answer never came was accepted by a worker that nobody can name any more.
            if link.worker not in self.killed and not (link.worker is None and self.killed):
                self.tally.complain(f"connection {number} of living worker {link.worker} broke: {link.reason}")
                return
            self.tally.resent += len(link.open)
            self._again.extend(link.open)
            await asyncio.sleep(_RETRY_S)


class _Link(asyncio.Protocol):
    """One connection: requests out, answers in, in order."""

    def __init__(self, oracle: Oracle) -> None:
        loop = asyncio.get_running_loop()
        self.worker: int | None = None
        self.open: deque[Question] = deque()
        #: Done with the first answer, or with the end before it.
        self.placed: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self.is_broken = False
        self.reason = "end of file"
        self._oracle = oracle
        self._input = bytearray()
        self._greeted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def live(self) -> None:
        """The first request: when it is answered the connection has been accepted."""
        self._transport.write(b"GET /v2/health/live HTTP/1.1\r\nHost: oracle\r\n\r\n")

    def fill(self) -> None:
        """Sends as many questions as may be open; ends when there are none."""
        if self.is_broken:
            return
        out = b""
        while len(self.open) < self._oracle.window:
            question = self._oracle.next_question()
            if question is None:
                break
            self.open.append(question)
            out += question.encoded()
        if out:
            self._transport.write(out)
        elif not self.open and not self.ended.done():
            self.ended.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._input += data
        while (end := self._input.find(b"\r\n\r\n")) >= 0:
            lines = bytes(self._input[:end]).split(b"\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines[1:])}
            total = end + 4 + int(headers[b"content-length"])
            if len(self._input) < total:
                break
            body = bytes(self._input[end + 4 : total])
            del self._input[:total]
            self._answer(int(lines[0].split()[1]), headers, body)
        if self._greeted:
            self.fill()

    def _answer(self, status: int, headers: dict[bytes, bytes], body: bytes) -> None:
        tally = self._oracle.tally
        if not self._greeted:
            self._greeted = True
            if status != 200:
                tally.complain(f"the liveness request got {status}")
            self.placed.set_result(None)
            return
        if not self.open:
            tally.complain(f"an answer that nobody asked for: {status} {body[:200]!r}")
            return
        complaint = self.open.popleft().complaint(status, headers, body)
        if complaint:
            tally.complain(complaint)
        tally.answered += 1

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self.reason = str(exc)
        self.is_broken = not self.ended.done()
        for future in (self.placed, self.ended):
            if not future.done():
                future.set_result(None)
