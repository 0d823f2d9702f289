"""The model repository of Triton's documentation, docs/examples/model_repository: its layout and its configurations as
they are there, the models written here to the same inputs and outputs, since theirs cannot be committed.
"""

from __future__ import annotations

import struct
from pathlib import Path

from tests.support.onnx_writer import Graph
from tests.support.triton_repository import densenet_config, put, simple_config

IDENTITY = """\
name: "simple_identity"
platform: "onnxruntime_onnx"
max_batch_size: 8
version_policy: { latest { num_versions: 1 }}
input [
  {
    name: "INPUT0"
    data_type: TYPE_STRING
    dims: [ -1 ]
  }
]
output [
  {
    name: "OUTPUT0"
    data_type: TYPE_STRING
    dims: [ -1 ]
  }
]
"""
SEQUENCE = """\
name: "simple_sequence"
platform: "onnxruntime_onnx"
max_batch_size: 8

sequence_batching {
  max_sequence_idle_microseconds: 5000000
  control_input [
    {
      name: "START"
      control [
        {
          kind: CONTROL_SEQUENCE_START
          int32_false_true: [ 0, 1 ]
        }
      ]
    }
  ]
}
input [
  {
    name: "INPUT"
    data_type: TYPE_INT32
    dims: [ 1 ]
  }
]
output [
  {
    name: "OUTPUT"
    data_type: TYPE_INT32
    dims: [ 1 ]
  }
]
"""
CLASSES = 1000


def densenet() -> bytes:
    """`data_0` FP32 [1, 3, 224, 224] -> `fc6_1` FP32 [1, 1000, 1, 1]: class k has the red mean times k."""
    graph = Graph("densenet")
    graph.input("data_0", "FP32", [1, 3, 224, 224])
    weights = b"".join(struct.pack("<3f", float(number), 0.0, 0.0) for number in range(CLASSES))
    graph.constant("w", "FP32", [CLASSES, 3, 1, 1], weights)
    graph.node("GlobalAveragePool", ["data_0"], ["means"])
    graph.node("Conv", ["means", "w"], ["fc6_1"])
    graph.output("fc6_1", "FP32", [1, CLASSES, 1, 1])
    return graph.model()


def add_sub(datatype: str) -> bytes:
    """INPUT0, INPUT1 [-1, 16] -> their sum and their difference; strings are the numbers in decimal."""
    graph = Graph("add_sub")
    is_text = datatype == "BYTES"
    for name in ("INPUT0", "INPUT1"):
        graph.input(name, datatype, [-1, 16])
        if is_text:
            graph.node("Cast", [name], [f"{name}_number"], to=6)
    inputs = [f"{name}_number" if is_text else name for name in ("INPUT0", "INPUT1")]
    for operator, name in (("Add", "OUTPUT0"), ("Sub", "OUTPUT1")):
        graph.node(operator, inputs, [f"{name}_number" if is_text else name])
        if is_text:
            graph.node("Cast", [f"{name}_number"], [name], to=8)
        graph.output(name, datatype, [-1, 16])
    return graph.model()


def identity() -> bytes:
    graph = Graph("identity")
    graph.input("INPUT0", "BYTES", [-1, -1])
    graph.node("Identity", ["INPUT0"], ["OUTPUT0"])
    graph.output("OUTPUT0", "BYTES", [-1, -1])
    return graph.model()


def sequence() -> bytes:
    graph = Graph("sequence")
    graph.input("INPUT", "INT32", [-1, 1])
    graph.input("START", "INT32", [-1, 1])
    graph.node("Add", ["INPUT", "START"], ["OUTPUT"])
    graph.output("OUTPUT", "INT32", [-1, 1])
    return graph.model()


def write(root: Path) -> Path:
    """The repository."""
    folder = put(root, "densenet_onnx", densenet(), densenet_config(224, CLASSES))
    (folder / "densenet_labels.txt").write_text("".join(f"LABEL {number}\n" for number in range(CLASSES)))
    for name, config, datatype in (
        ("simple", "TYPE_INT32", "INT32"),
        ("simple_int8", "TYPE_INT8", "INT8"),
        ("simple_string", "TYPE_STRING", "BYTES"),
    ):
        put(root, name, add_sub(datatype), simple_config(name, config))
    put(root, "simple_identity", identity(), IDENTITY)
    put(root, "simple_sequence", sequence(), SEQUENCE)
    return root
