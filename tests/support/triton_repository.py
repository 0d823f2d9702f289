"""A model repository as Triton's public examples lay it out: written here, since their weights cannot be committed."""

from __future__ import annotations

from pathlib import Path

from tests.support import onnx_writer
from tests.support.onnx_writer import Graph

BATCHED = """\
backend: "onnxruntime"
max_batch_size: 32
# Two at a time.
instance_group [ { count: 2 kind: KIND_CPU } ]
dynamic_batching {
  preferred_batch_size: [ 4, 8 ]
  max_queue_delay_microseconds: 100
  default_queue_policy {
    timeout_action: REJECT
    default_timeout_microseconds: 5000000
    allow_timeout_override: true
    max_queue_size: 128
  }
}
model_warmup [
  {
    name: "largest"
    batch_size: 32
    inputs { key: "x" value: { data_type: TYPE_FP32 dims: [ 4 ] random_data: true } }
    count: 2
  }
]
optimization { graph { level: 1 } }
parameters { key: "intra_op_thread_count" value: { string_value: "1" } }
parameters { key: "execution_mode" value: { string_value: "0" } }
"""
STRINGS = """\
name: "strings"
platform: "onnxruntime_onnx"
max_batch_size: 8
input { name: "text" data_type: TYPE_STRING dims: -1 }
output { name: "upper" data_type: TYPE_STRING dims: -1 }
version_policy: { all { } }
"""
SCALARS = """\
max_batch_size: 16
input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] reshape { shape: [ ] } }
output { name: "y" data_type: TYPE_FP32 dims: [ 1 ] reshape { shape: [ ] } }
"""


def densenet_config(edge: int, class_count: int) -> str:
    """Images of edge x edge pixels, an axis for the batch that is not one."""
    return f"""\
name: "densenet_onnx"
platform: "onnxruntime_onnx"
max_batch_size : 0
input [
  {{
    name: "data_0"
    data_type: TYPE_FP32
    format: FORMAT_NCHW
    dims: [ 3, {edge}, {edge} ]
    reshape {{ shape: [ 1, 3, {edge}, {edge} ] }}
  }}
]
output [
  {{
    name: "fc6_1"
    data_type: TYPE_FP32
    dims: [ {class_count} ]
    reshape {{ shape: [ 1, {class_count}, 1, 1 ] }}
    label_filename: "densenet_labels.txt"
  }}
]
"""


def _tensors(kind: str, names: tuple[str, str], datatype: str) -> str:
    one = '  {{\n    name: "{}"\n    data_type: {}\n    dims: [ 16 ]\n  }}'
    return f"{kind} [\n" + ",\n".join(one.format(name, datatype) for name in names) + "\n]\n"


def simple_config(name: str, datatype: str) -> str:
    """`simple`, `simple_int8` and `simple_string` differ in nothing else."""
    head = f'name: "{name}"\nplatform: "onnxruntime_onnx"\nmax_batch_size: 8\n'
    inputs, outputs = ("INPUT0", "INPUT1"), ("OUTPUT0", "OUTPUT1")
    return head + _tensors("input", inputs, datatype) + _tensors("output", outputs, datatype)


def channel_means() -> bytes:
    """`data_0` FP32 [1, 3, 8, 8] -> `fc6_1` FP32 [1, 3, 1, 1]: the mean of each channel."""
    graph = Graph("channel_means")
    graph.input("data_0", "FP32", [1, 3, 8, 8])
    graph.node("GlobalAveragePool", ["data_0"], ["fc6_1"])
    graph.output("fc6_1", "FP32", [1, 3, 1, 1])
    return graph.model()


def put(root: Path, name: str, content: bytes, config: str | None, version: int = 1) -> Path:
    """One model; its directory."""
    folder = root / name
    (folder / str(version)).mkdir(parents=True, exist_ok=True)
    (folder / str(version) / "model.onnx").write_bytes(content)
    if config is not None:
        (folder / "config.pbtxt").write_text(config)
    return folder


def strings() -> bytes:
    """`text` BYTES [-1, -1] -> `upper`, the same strings."""
    graph = Graph("strings")
    graph.input("text", "BYTES", [-1, -1])
    graph.node("Identity", ["text"], ["upper"])
    graph.output("upper", "BYTES", [-1, -1])
    return graph.model()


def write(root: Path) -> Path:
    """The repository."""
    folder = put(root, "densenet_onnx", channel_means(), densenet_config(8, 3))
    (folder / "densenet_labels.txt").write_text("RED\nGREEN\nBLUE\n")
    put(root, "simple", onnx_writer.add_sub(), simple_config("simple", "TYPE_FP32"))
    put(root, "batched", onnx_writer.identity(), BATCHED)
    put(root, "strings", strings(), STRINGS)
    put(root, "strings", strings(), None, version=3)
    put(root, "scalars", onnx_writer.identity(dims=(-1,)), SCALARS)
    put(root, "plain", onnx_writer.identity(), None)
    put(root, "broken", onnx_writer.identity(), "max_batch_size: 4\n\nensemble_scheduling { }\n")
    return root
