"""Models that behave badly on some inputs, written byte by byte."""

from __future__ import annotations

import struct

from tests.support.onnx_writer import Graph, _bytes, _integer


def endless() -> bytes:
    """`x` INT64 [-1, 1] -> `y` INT64 [-1, 1] = x, after as many rounds of a loop as the largest x of the batch says.

    The loop's trip count is taken from the data, so one row can keep the whole batch, and its executor, busy for ever.
    """
    body = Graph("body")
    body.input("round", "INT64", [])
    body.input("go_on", "BOOL", [])
    body.input("sum", "INT64", [])
    body.constant("one", "INT64", [], struct.pack("<q", 1))
    body.node("Identity", ["go_on"], ["still"])
    body.node("Add", ["sum", "one"], ["next"])
    body.output("still", "BOOL", [])
    body.output("next", "INT64", [])
    graph = Graph("endless")
    graph.input("x", "INT64", [-1, 1])
    graph.constant("zero", "INT64", [], struct.pack("<q", 0))
    graph.constant("true", "BOOL", [], b"\1")
    graph.node("ReduceMax", ["x"], ["rounds"], keepdims=0)
    _loop(graph, ["rounds", "true", "zero"], ["counted"], body)
    graph.node("Mul", ["counted", "zero"], ["nothing"])
    graph.node("Add", ["x", "nothing"], ["y"])
    graph.output("y", "INT64", [-1, 1])
    return graph.model()


def _loop(graph: Graph, inputs: list[str], outputs: list[str], body: Graph) -> None:
    """NodeProto `Loop` with its body: an AttributeProto with g = 6 and type = 20 (GRAPH 5)."""
    node = b"".join(_bytes(1, name) for name in inputs) + b"".join(_bytes(2, name) for name in outputs)
    node += _bytes(3, "loop") + _bytes(4, "Loop")
    content = body.nodes + _bytes(2, body.name) + body.initializers + body.inputs + body.outputs
    node += _bytes(5, _bytes(1, "body") + _bytes(6, content) + _integer(20, 5))
    graph.nodes += _bytes(1, node)
