"""How much memory there is, by files of a host that tests write, and whether a model fits into it."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.config import ServeConfig
from server.models import repository
from server.models.lane_settings import settings_of
from server.models.memory_policy import PROCESS_BYTES, expected_bytes, shortage
from server.observe.memory import available_bytes, total_bytes
from tests.support.onnx_writer import Graph, identity

GIB = 1 << 30


def host(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


MEMINFO = {"proc/meminfo": "MemTotal:  8388608 kB\nMemFree: 1 kB\nMemAvailable:    4194304 kB\n"}
OWN_GROUP = {"proc/self/cgroup": "0::/a/b\n"}
V2 = "sys/fs/cgroup/"
V1 = "sys/fs/cgroup/memory/"


@pytest.mark.parametrize(
    ("files", "available", "total"),
    [
        ({}, None, None),
        (MEMINFO, 4 * GIB, 8 * GIB),
        (MEMINFO | OWN_GROUP, 4 * GIB, 8 * GIB),
        (MEMINFO | OWN_GROUP | {V2 + "a/b/memory.max": "max"}, 4 * GIB, 8 * GIB),
        (
            MEMINFO | OWN_GROUP | {V2 + "a/b/memory.max": str(2 * GIB), V2 + "a/b/memory.current": str(GIB)},
            GIB,
            2 * GIB,
        ),
        # What the page cache holds inside of the limit can be had.
        (
            MEMINFO
            | OWN_GROUP
            | {
                V2 + "a/b/memory.max": str(2 * GIB),
                V2 + "a/b/memory.current": str(2 * GIB),
                V2 + "a/b/memory.stat": f"anon 5\ninactive_file {GIB}\n",
            },
            GIB,
            2 * GIB,
        ),
        # A group above may be tighter.
        (
            MEMINFO
            | OWN_GROUP
            | {
                V2 + "a/b/memory.max": str(2 * GIB),
                V2 + "a/b/memory.current": "0",
                V2 + "a/memory.max": str(GIB),
                V2 + "a/memory.current": str(GIB),
            },
            0,
            GIB,
        ),
        (
            MEMINFO
            | {
                "proc/self/cgroup": "5:cpu:/x\n4:memory:/c\n",
                V1 + "c/memory.limit_in_bytes": str(3 * GIB),
                V1 + "c/memory.usage_in_bytes": str(GIB),
                V1 + "memory.limit_in_bytes": "9223372036854771712",
            },
            2 * GIB,
            3 * GIB,
        ),
    ],
)
def test_what_there_is(files: dict[str, str], available: int | None, total: int | None, tmp_path: Path) -> None:
    root = host(tmp_path, files)
    assert (available_bytes(root), total_bytes(root)) == (available, total)


def expected(tmp_path: Path, content: bytes) -> int:
    (tmp_path / "m").mkdir(exist_ok=True)
    (tmp_path / "m" / "model.onnx").write_bytes(content)
    (found,) = repository.scan(tmp_path / "m")
    return expected_bytes(found, settings_of(found, ServeConfig()))


def test_what_a_model_needs(tmp_path: Path) -> None:
    small = expected(tmp_path, identity())
    assert PROCESS_BYTES < small < PROCESS_BYTES + (1 << 20)
    graph = Graph("large")
    graph.input("x", "FP32", [-1, 4])
    graph.constant("weights", "UINT8", [2 << 20], bytes(2 << 20))
    graph.node("Identity", ["x"], ["y"])
    graph.output("y", "FP32", [-1, 4])
    assert expected(tmp_path, graph.model()) > small + (2 << 20)


def test_one_that_fits_and_one_that_does_not() -> None:
    assert shortage(GIB, None, 0) == ""
    assert shortage(GIB, GIB, 0) == ""
    assert shortage(3 * GIB, 2 * GIB, 0).startswith(
        "it needs about 3072 MiB of memory beside what runs, 2048 MiB are available: unload a model"
    )
    assert "1024 of them for models that load" in shortage(2 * GIB, 2 * GIB, GIB)
