"""Memory that really runs out: RLIMIT_DATA, and a model that needs as much as its input says."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path

from tests.support.onnx_writer import Graph

MIB = 1 << 20


def greedy() -> bytes:
    """`x` FP32 [-1, 1], `elements` INT64 [-1, 1] -> `y` FP32 [-1, 1] = tanh(x), by way of tensors in which each row
    has the largest of `elements` elements, two of them at a time. Zeros need nothing.
    """
    graph = Graph("greedy")
    graph.input("x", "FP32", [-1, 1])
    graph.input("elements", "INT64", [-1, 1])
    graph.integers("one", [1])
    graph.node("ReduceMax", ["elements"], ["most"], keepdims=0)
    graph.node("Max", ["most", "one"], ["width"])
    graph.node("Concat", ["one", "width"], ["shape"], axis=0)
    graph.node("Expand", ["x", "shape"], ["wide"])
    graph.node("Tanh", ["wide"], ["values"])
    graph.node("ReduceMax", ["values"], ["y"], axes=[1], keepdims=1)
    graph.output("y", "FP32", [-1, 1])
    return graph.model()


def wide(elements: int) -> bytes:
    """The same with as many elements in each row, whatever comes: `x` FP32 [-1, 1] -> `y` FP32 [-1, 1]."""
    graph = Graph("wide")
    graph.input("x", "FP32", [-1, 1])
    graph.integers("shape", [1, elements])
    graph.node("Expand", ["x", "shape"], ["wide"])
    graph.node("Tanh", ["wide"], ["values"])
    graph.node("ReduceMax", ["values"], ["y"], axes=[1], keepdims=1)
    graph.output("y", "FP32", [-1, 1])
    return graph.model()


def data_bytes(pid: int | str = "self") -> int:
    """What RLIMIT_DATA counts of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmData:")) * 1024


def limit(pid: int, more_bytes: int | None) -> None:
    """A process has so much memory beside what it has now; None: as much as there is."""
    _, most = resource.prlimit(pid, resource.RLIMIT_DATA)
    soft = most if more_bytes is None else data_bytes(pid) + more_bytes
    resource.prlimit(pid, resource.RLIMIT_DATA, (soft, most))


@contextlib.contextmanager
def at_most(more_bytes: int) -> Iterator[None]:
    """The same of this process, for a block."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (data_bytes() + more_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
