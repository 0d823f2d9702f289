"""Clients that ask a server again and again, one connection each, and what they get beside each other."""

from __future__ import annotations

import threading

from tests.support.oracle import Question
from tests.support.server import Server


class Asker:
    """One connection that asks again and again; how many right answers it got."""

    def __init__(self, server: Server, name: str, rows: int) -> None:
        self.link = server.connect()
        self.question = Question(1, name, rows).encoded()
        self.answered = 0

    def ask(self) -> None:
        self.link.sendall(self.question)
        got = self.link.recv(1 << 16)
        assert got.startswith(b"HTTP/1.1 200"), got[:200]
        head, _, body = got.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split()[0])
        while len(body) < length:
            body += self.link.recv(1 << 16)
        self.answered += 1


def greedy_batches(server: Server, connections: int, rows: int, modest_count: int) -> int:
    """The models `greedy` and `modest`: while the modest one answers so many requests of one row, one after the other,
    these connections ask the greedy one for so many rows each without pause. How many of them it answered meanwhile.
    """
    modest = Asker(server, "modest", 1)
    crowd = [Asker(server, "greedy", rows) for _ in range(connections)]
    is_over = threading.Event()

    def flood(asker: Asker) -> None:
        while not is_over.is_set():
            asker.ask()

    threads = [threading.Thread(target=flood, args=(asker,)) for asker in crowd]
    for thread in threads:
        thread.start()
    while sum(asker.answered for asker in crowd) < 2 * connections:
        modest.ask()
    before = sum(asker.answered for asker in crowd)
    for _ in range(modest_count):
        modest.ask()
    done = sum(asker.answered for asker in crowd) - before
    is_over.set()
    for thread in threads:
        thread.join()
    for asker in (modest, *crowd):
        asker.link.close()
    return done
