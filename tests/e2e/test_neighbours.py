"""Models side by side in their own executors: one that gets more requests than it can serve does not starve another."""

from __future__ import annotations

import threading
from pathlib import Path

from tests.support.onnx_writer import write_repository
from tests.support.oracle import Question, model
from tests.support.server import Server, running

#: A batch of the greedy model is one request of so many rows.
ROWS = 64
GREEDY_CONNECTIONS = 6
MODEST_COUNT = 150


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


def test_a_flooded_model_leaves_its_neighbour_its_share(tmp_path: Path) -> None:
    """The shares are the kernel's. A modest request never waits for the queue of the greedy model: while it is asked
    for one row at a time, the greedy one gets no more than a few batches done for each.
    """
    write_repository(tmp_path / "models", {"greedy": model(busy_width=256), "modest": model()})
    with running(tmp_path / "models", "--workers", "1", "--max-batch-size", str(ROWS)) as server:
        modest = Asker(server, "modest", 1)
        crowd = [Asker(server, "greedy", ROWS) for _ in range(GREEDY_CONNECTIONS)]
        is_over = threading.Event()

        def flood(asker: Asker) -> None:
            while not is_over.is_set():
                asker.ask()

        threads = [threading.Thread(target=flood, args=(asker,)) for asker in crowd]
        for thread in threads:
            thread.start()
        while sum(asker.answered for asker in crowd) < 2 * GREEDY_CONNECTIONS:
            modest.ask()
        before_greedy, before_modest = sum(asker.answered for asker in crowd), modest.answered
        while modest.answered < before_modest + MODEST_COUNT:
            modest.ask()
        done = sum(asker.answered for asker in crowd) - before_greedy
        is_over.set()
        for thread in threads:
            thread.join()
        for asker in (modest, *crowd):
            asker.link.close()
        print(f"{done} batches of the greedy model for {MODEST_COUNT} answers of the modest one")
        assert 0 < done < GREEDY_CONNECTIONS // 2 * MODEST_COUNT
