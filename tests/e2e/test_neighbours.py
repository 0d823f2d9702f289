"""Models side by side in their own executors: one that gets more requests than it can serve does not starve another."""

from __future__ import annotations

from pathlib import Path

from tests.support.askers import greedy_batches
from tests.support.onnx_writer import write_repository
from tests.support.oracle import model
from tests.support.server import running

#: A batch of the greedy model is one request of so many rows.
ROWS = 64
GREEDY_CONNECTIONS = 6
MODEST_COUNT = 150


def test_a_flooded_model_leaves_its_neighbour_its_share(tmp_path: Path) -> None:
    """The shares are the kernel's. A modest request never waits for the queue of the greedy model: while it is asked
    for one row at a time, the greedy one gets no more than a few batches done for each.
    """
    write_repository(tmp_path / "models", {"greedy": model(busy_width=256), "modest": model()})
    with running(tmp_path / "models", "--workers", "1", "--max-batch-size", str(ROWS)) as server:
        done = greedy_batches(server, GREEDY_CONNECTIONS, ROWS, MODEST_COUNT)
        print(f"{done} batches of the greedy model for {MODEST_COUNT} answers of the modest one")
        assert 0 < done < GREEDY_CONNECTIONS // 2 * MODEST_COUNT
