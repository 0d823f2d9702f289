"""Models that behave badly on some inputs, written byte by byte."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

from tests.support.onnx_writer import Graph, _bytes, _integer, _varint, identity


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


# -- models that must be refused: each is written into a version's directory, beside which lies `outside`

#: What no process may open; the name stands nowhere else.
CANARY = "headrace-canary-outside"
WIDTH = 16


def external_tensor(name: str, shape: list[int], entries: dict[str, str]) -> bytes:
    """An initializer FP32 that lies in another file; `entries` say where."""
    said = b"".join(_bytes(13, _bytes(1, key) + _bytes(2, value)) for key, value in entries.items())
    dims = b"".join(_integer(1, size) for size in shape)
    return _bytes(5, dims + _integer(2, 1) + _bytes(8, name) + said + _integer(14, 1))


def with_external(entries: dict[str, str], count: int = 1) -> bytes:
    """y = x + w, w FP32 [WIDTH] being external data with these entries; `count` such weights."""
    graph = Graph("external")
    graph.input("x", "FP32", [-1, WIDTH])
    last = "x"
    for number in range(count):
        graph.initializers += external_tensor(f"w{number}", [WIDTH], entries)
        graph.node("Add", [last, f"w{number}"], [f"h{number}"])
        last = f"h{number}"
    graph.node("Identity", [last], ["y"])
    graph.output("y", "FP32", [-1, WIDTH])
    return graph.model()


def at(location: str, **ranges: str) -> Callable[[Path, Path], None]:
    def write(folder: Path, outside: Path) -> None:
        (folder / "model.onnx").write_bytes(with_external({"location": location.format(outside=outside), **ranges}))

    return write


def weights_as(
    make: Callable[[Path, Path], object], location: str = "w", **ranges: str
) -> Callable[[Path, Path], None]:
    """External data in `location`, which `make(folder, outside)` puts there."""

    def write(folder: Path, outside: Path) -> None:
        make(folder, outside)
        at(location, **ranges)(folder, outside)

    return write


def of(content: Callable[[], bytes]) -> Callable[[Path, Path], None]:
    def write(folder: Path, outside: Path) -> None:
        (folder / "model.onnx").write_bytes(content())

    return write


def _enormous_input() -> bytes:
    graph = Graph("enormous")
    graph.input("x", "FP32", [-1, 1 << 40])
    graph.node("Identity", ["x"], ["y"])
    graph.output("y", "FP32", [-1, 1 << 40])
    return graph.model()


def _overflowing_input() -> bytes:
    graph = Graph("overflowing")
    graph.input("x", "FP32", [-1, 1 << 62, 1 << 62])
    graph.node("Identity", ["x"], ["y"])
    graph.output("y", "FP32", [-1, 1 << 62, 1 << 62])
    return graph.model()


def _enormous_weight() -> bytes:
    graph = Graph("weight")
    graph.input("x", "FP32", [-1, 4])
    dims = _integer(1, 1 << 40) + _integer(1, 1 << 20)
    graph.initializers += _bytes(5, dims + _integer(2, 1) + _bytes(8, "w") + _bytes(9, bytes(16)))
    graph.node("ReduceSum", ["w"], ["sum"], keepdims=0)
    graph.node("Add", ["x", "sum"], ["y"])
    graph.output("y", "FP32", [-1, 4])
    return graph.model()


def _enormous_constant() -> bytes:
    """Folding its constants takes 4 TiB."""
    graph = Graph("constant")
    graph.input("x", "FP32", [-1, 4])
    graph.integers("shape", [1 << 40, 4])
    graph.node("ConstantOfShape", ["shape"], ["w"])
    graph.node("ReduceSum", ["w"], ["sum"], keepdims=0)
    graph.node("Add", ["x", "sum"], ["y"])
    graph.output("y", "FP32", [-1, 4])
    return graph.model()


def _opset(version: int) -> bytes:
    whole = identity()
    head, _, _ = whole.rpartition(_bytes(8, _bytes(1, "") + _integer(2, 17)))
    return head + _bytes(8, _bytes(1, "") + _integer(2, version))


def _function(name: str, calls: list[str]) -> bytes:
    """FunctionProto: name = 1, input = 4, output = 5, node = 7, opset_import = 9, domain = 10."""
    nodes, last = b"", "a"
    for number, call in enumerate(calls):
        out = "b" if number == len(calls) - 1 else f"t{number}"
        domain = "" if call == "Relu" else "local"
        nodes += _bytes(7, _bytes(1, last) + _bytes(2, out) + _bytes(4, call) + _bytes(7, domain))
        last = out
    opsets = _bytes(9, _bytes(1, "") + _integer(2, 17)) + _bytes(9, _bytes(1, "local") + _integer(2, 1))
    return _bytes(25, _bytes(1, name) + _bytes(4, "a") + _bytes(5, "b") + nodes + opsets + _bytes(10, "local"))


def _calling(first: str, functions: dict[str, list[str]]) -> bytes:
    graph = Graph("calls")
    graph.input("x", "FP32", [-1, 4])
    graph.node(first, ["x"], ["y"], "local")
    graph.output("y", "FP32", [-1, 4])
    whole = graph.model()
    return whole + b"".join(_function(name, calls) for name, calls in functions.items())


def _bombs(depth: int = 30) -> bytes:
    """Each function calls the next ten times."""
    functions = {f"f{number}": [f"f{number + 1}"] * 10 for number in range(depth)}
    return _calling("f0", {**functions, f"f{depth}": ["Relu"]})


def _unknown_operator() -> bytes:
    graph = Graph("custom")
    graph.input("x", "FP32", [-1, 4])
    graph.node("Evil", ["x"], ["y"], "com.example", library="/tmp/evil.so")
    graph.output("y", "FP32", [-1, 4])
    return graph.model()


def _compiled(name: str) -> bytes:
    graph = Graph("compiled")
    graph.input("x", "FP32", [-1, 4])
    graph.node("EPContext", ["x"], ["y"], "com.microsoft", embed_mode=[0], ep_cache_context=name)
    graph.output("y", "FP32", [-1, 4])
    return graph.model()


def _length_lie() -> bytes:
    """A field that claims 3 GB."""
    whole = identity()
    return whole + _varint(7 << 3 | 2) + _varint(3 << 30) + b"graph"


def _many_nodes(count: int) -> bytes:
    graph = Graph("many")
    graph.input("x", "FP32", [-1, 4])
    node = _bytes(1, _bytes(1, "x") + _bytes(2, "y") + _bytes(3, "n") + _bytes(4, "Relu"))
    graph.nodes = node * count
    graph.output("y", "FP32", [-1, 4])
    return graph.model()


def _link_parent(folder: Path, outside: Path) -> None:
    (folder / "sub").symlink_to(outside.parent)


#: What -> (writes the version's files, what the reason has to say). Every one is refused; none opens what lies outside.
REFUSED: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "by dots": (at("../../../" + CANARY), "expected a plain file name without '..'"),
    "by dots behind a name": (at("sub/../../../../" + CANARY), "expected a plain file name without '..'"),
    "absolute": (at("{outside}"), "expected a file name relative to the model"),
    "descriptors": (at("/proc/self/fd/0"), "expected a file name relative to the model"),
    "NUL": (at("w\0.bin"), "expected a file name relative to the model"),
    "64 KB name": (at("w" * 65536), "of 65536 bytes; at most 4096 are read"),
    "address": (at("*/_ORT_MEM_ADDR_/*", offset="4096", length="64"), "expected a file name relative to the model"),
    "no file": (at("w"), "cannot be read (No such file or directory)"),
    "link": (weights_as(lambda folder, outside: (folder / "w").symlink_to(outside)), "leads out of the model's dir"),
    "link of a parent": (weights_as(_link_parent, "sub/" + CANARY), "leads out of the model's directory"),
    "link to descriptors": (
        weights_as(lambda folder, outside: (folder / "w").symlink_to("/proc/self/fd/0")),
        "a link that leads out|cannot be read|not a regular file",
    ),
    "hard link": (weights_as(lambda folder, outside: os.link(outside, folder / "w")), "has 2 hard links"),
    "FIFO": (weights_as(lambda folder, outside: os.mkfifo(folder / "w")), "not a regular file"),
    "device": (weights_as(lambda folder, outside: (folder / "w").symlink_to("/dev/zero")), "leads out of the model's"),
    "directory": (weights_as(lambda folder, outside: (folder / "w").mkdir()), "not a regular file"),
    "beyond the file": (
        weights_as(lambda folder, outside: (folder / "w").write_bytes(bytes(64)), offset="1", length="64"),
        "wants bytes 1 to 65 of 'w' for tensor 'w0'; the file has 64",
    ),
    "offset that overflows": (
        weights_as(lambda folder, outside: (folder / "w").write_bytes(bytes(64)), offset="999999999999999999"),
        "the file has 64",
    ),
    "file too short": (weights_as(lambda folder, outside: (folder / "w").write_bytes(bytes(63))), "w0|external|bytes"),
    "pre-packed": (
        weights_as(lambda folder, outside: (folder / "w").write_bytes(bytes(64)), prepacked_0="k|0;64"),
        "says 'prepacked_0' of the external data of tensor 'w0'",
    ),
    "enormous input": (of(_enormous_input), "MiB of memory|has no room|out of memory|no memory"),
    "input that overflows": (of(_overflowing_input), "memory|dimension|large"),
    "enormous weight": (of(_enormous_weight), "w|memory"),
    "enormous constant": (of(_enormous_constant), "memory|alloc|Failed"),
    "opset of tomorrow": (of(lambda: _opset(9999)), "opset"),
    "opset 0": (of(lambda: _opset(0)), "opset|not supported|version"),
    "function that calls itself": (of(lambda: _calling("f", {"f": ["f"]})), "call themselves: local.f -> local.f"),
    "functions in a circle": (
        of(lambda: _calling("f", {"f": ["g"], "g": ["h"], "h": ["g"]})),
        "call themselves: local.g -> local.h -> local.g",
    ),
    "functions that multiply": (of(_bombs), "more than 10000000 nodes"),
    "operator of a library": (of(_unknown_operator), "com.example"),
    "compiled graph": (of(lambda: _compiled("../../../" + CANARY)), "a graph compiled for one device"),
    "length that lies": (of(_length_lie), "claims 3221225472 bytes"),
    "duplicate names": (of(lambda: _many_nodes(1000)), "two nodes with same node name"),
    "empty": (lambda folder, outside: (folder / "model.onnx").touch(), "is empty"),
    "Git LFS": (of(lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "git lfs pull"),
    "FIFO as model": (lambda folder, outside: os.mkfifo(folder / "model.onnx"), "not a regular file"),
}
