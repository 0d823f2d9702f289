"""Small ONNX models written byte by byte, with the standard library alone.

An ONNX file is one protobuf message (onnx.proto3: ModelProto). The few fields that a small model needs are encoded
here, so neither tests nor measurements depend on the onnx package. Every builder returns the bytes of a complete model
and is deterministic: weights come from a seed. Shapes are lists where -1 is a free axis (written as a named dimension).
"""

from __future__ import annotations

import array
import random
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

#: The V2 protocol's datatype -> TensorProto.DataType.
ELEMENT_TYPES = {
    "FP32": 1,
    "UINT8": 2,
    "INT8": 3,
    "UINT16": 4,
    "INT16": 5,
    "INT32": 6,
    "INT64": 7,
    "BYTES": 8,
    "BOOL": 9,
    "FP16": 10,
    "FP64": 11,
    "UINT32": 12,
    "UINT64": 13,
    "BF16": 16,
}
#: Every datatype with a fixed width, in the order of the V2 specification.
FIXED_WIDTH_TYPES = tuple(name for name in ELEMENT_TYPES if name != "BYTES")
#: Bytes of one element.
ELEMENT_BYTES = {
    "BOOL": 1,
    "UINT8": 1,
    "INT8": 1,
    "UINT16": 2,
    "INT16": 2,
    "FP16": 2,
    "BF16": 2,
    "UINT32": 4,
    "INT32": 4,
    "FP32": 4,
    "UINT64": 8,
    "INT64": 8,
    "FP64": 8,
}
IR_VERSION = 8
OPSET_VERSION = 17
ML_OPSET_VERSION = 2
Shape = Sequence[int]
Attribute = float | str | Sequence[int] | Sequence[str]


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _integer(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _bytes(number: int, value: bytes | str) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(raw)) + raw


def _attribute(name: str, value: Attribute) -> bytes:
    """AttributeProto: name = 1, f = 2, i = 3, s = 4, ints = 8, strings = 9, type = 20.

    Types: FLOAT 1, INT 2, STRING 3, INTS 7, STRINGS 8.
    """
    if isinstance(value, str):
        return _bytes(1, name) + _bytes(4, value) + _integer(20, 3)
    if isinstance(value, float):
        return _bytes(1, name) + _varint(2 << 3 | 5) + struct.pack("<f", value) + _integer(20, 1)
    if isinstance(value, int):
        return _bytes(1, name) + _integer(3, value) + _integer(20, 2)
    texts = [item for item in value if isinstance(item, str)]
    if texts:
        return _bytes(1, name) + b"".join(_bytes(9, item) for item in texts) + _integer(20, 8)
    return _bytes(1, name) + b"".join(_integer(8, item) for item in value if isinstance(item, int)) + _integer(20, 7)


def _value_info(name: str, dtype: str, shape: Shape | None) -> bytes:
    """ValueInfoProto; a free axis is a named dimension, `batch` for the first; None leaves the shape out."""
    if shape is None:
        return _bytes(1, name) + _bytes(2, _bytes(1, _integer(1, ELEMENT_TYPES[dtype])))
    dims = b""
    for axis, size in enumerate(shape):
        free = _bytes(2, "batch" if axis == 0 else f"axis{axis}")
        dims += _bytes(1, free if size == -1 else _integer(1, size))
    tensor_type = _integer(1, ELEMENT_TYPES[dtype]) + _bytes(2, dims)
    return _bytes(1, name) + _bytes(2, _bytes(1, tensor_type))


def _tensor(name: str, dtype: str, shape: Shape, raw: bytes) -> bytes:
    """TensorProto: dims = 1, data_type = 2, name = 8, raw_data = 9."""
    dims = b"".join(_integer(1, size) for size in shape)
    return dims + _integer(2, ELEMENT_TYPES[dtype]) + _bytes(8, name) + _bytes(9, raw)


@dataclass
class Graph:
    """A graph in the making: call the methods in order, then `model()` for the file's bytes."""

    name: str
    nodes: bytes = b""
    initializers: bytes = b""
    inputs: bytes = b""
    outputs: bytes = b""
    node_count: int = field(default=0)
    domains: set[str] = field(default_factory=set)

    def input(self, name: str, dtype: str, shape: Shape) -> str:
        self.inputs += _bytes(11, _value_info(name, dtype, shape))
        return name

    def output(self, name: str, dtype: str, shape: Shape | None) -> str:
        self.outputs += _bytes(12, _value_info(name, dtype, shape))
        return name

    def constant(self, name: str, dtype: str, shape: Shape, raw: bytes) -> str:
        """An initialiser from packed little-endian bytes."""
        self.initializers += _bytes(5, _tensor(name, dtype, shape, raw))
        return name

    def strings(self, name: str, shape: Shape, values: Sequence[str | bytes]) -> str:
        """A BYTES initialiser: TensorProto.string_data = 6."""
        dims = b"".join(_integer(1, size) for size in shape)
        texts = b"".join(_bytes(6, value) for value in values)
        self.initializers += _bytes(5, dims + _integer(2, ELEMENT_TYPES["BYTES"]) + texts + _bytes(8, name))
        return name

    def integers(self, name: str, values: Sequence[int]) -> str:
        """An INT64 vector."""
        return self.constant(name, "INT64", [len(values)], struct.pack(f"<{len(values)}q", *values))

    def weights(self, name: str, shape: Shape, rng: random.Random) -> str:
        """FP32 values uniform in ±sqrt(3 / first axis), so that a layer keeps the variance of its input."""
        count = 1
        for size in shape:
            count *= size
        bound = (3 / shape[0]) ** 0.5
        values = array.array("f", (rng.uniform(-bound, bound) for _ in range(count)))
        return self.constant(name, "FP32", shape, values.tobytes())

    def node(
        self,
        op_type: str,
        inputs: Iterable[str],
        outputs: Iterable[str],
        domain: str = "",
        **attributes: Attribute,
    ) -> None:
        """NodeProto: input = 1, output = 2, name = 3, op_type = 4, attribute = 5, domain = 7."""
        body = b"".join(_bytes(1, name) for name in inputs) + b"".join(_bytes(2, name) for name in outputs)
        body += _bytes(3, f"{op_type}_{self.node_count}") + _bytes(4, op_type)
        body += b"".join(_bytes(5, _attribute(name, value)) for name, value in attributes.items())
        if domain:
            body += _bytes(7, domain)
            self.domains.add(domain)
        self.nodes += _bytes(1, body)
        self.node_count += 1

    def model(self) -> bytes:
        """ModelProto: ir_version = 1, producer_name = 2, graph = 7, opset_import = 8."""
        graph = self.nodes + _bytes(2, self.name) + self.initializers + self.inputs + self.outputs
        opset = _bytes(1, "") + _integer(2, OPSET_VERSION)
        others = b"".join(_bytes(8, _bytes(1, name) + _integer(2, ML_OPSET_VERSION)) for name in sorted(self.domains))
        return _integer(1, IR_VERSION) + _bytes(2, "onnx_writer") + _bytes(7, graph) + _bytes(8, opset) + others


def mlp(inputs: int = 64, hidden: int = 128, outputs: int = 10, seed: int = 1) -> bytes:
    """`x` FP32 [-1, inputs] -> Gemm, Relu, Gemm -> `y` FP32 [-1, outputs]."""
    rng = random.Random(seed)
    graph = Graph("mlp")
    graph.input("x", "FP32", [-1, inputs])
    graph.weights("w1", [inputs, hidden], rng)
    graph.weights("b1", [hidden], rng)
    graph.weights("w2", [hidden, outputs], rng)
    graph.weights("b2", [outputs], rng)
    graph.node("Gemm", ["x", "w1", "b1"], ["h1"])
    graph.node("Relu", ["h1"], ["h2"])
    graph.node("Gemm", ["h2", "w2", "b2"], ["y"])
    graph.output("y", "FP32", [-1, outputs])
    return graph.model()


def _hidden_layers(graph: Graph, inputs: int, width: int, outputs: int, layers: int, rng: random.Random) -> None:
    """From `x` to `y`; all hidden layers share one weight."""
    graph.weights("w_in", [inputs, width], rng)
    graph.weights("w", [width, width], rng)
    graph.weights("w_out", [width, outputs], rng)
    graph.node("MatMul", ["x", "w_in"], ["h0"])
    for layer in range(layers):
        graph.node("MatMul", [f"h{layer}", "w"], [f"m{layer}"])
        graph.node("Tanh", [f"m{layer}"], [f"h{layer + 1}"])
    graph.node("MatMul", [f"h{layers}", "w_out"], ["y"])


def heavy(
    inputs: int = 64,
    width: int = 512,
    layers: int = 16,
    outputs: int = 10,
    seed: int = 2,
) -> bytes:
    """`x` FP32 [-1, inputs] -> `layers` times (MatMul width x width, Tanh) -> `y` FP32 [-1, outputs].

    All hidden layers share one weight, so the file stays at width * width * 4 bytes however deep it is.
    """
    rng = random.Random(seed)
    graph = Graph("heavy")
    graph.input("x", "FP32", [-1, inputs])
    _hidden_layers(graph, inputs, width, outputs, layers, rng)
    graph.output("y", "FP32", [-1, outputs])
    return graph.model()


def variable_mlp(inputs: int = 16, width: int = 32, outputs: int = 8, layers: int = 1, seed: int = 4) -> bytes:
    """`x` FP32 [-1, -1, inputs] -> `y` FP32 [-1, -1, outputs] step by step, and `mean` FP32 [-1, outputs] over steps.

    The second axis is free beside the batch axis: requests have as many steps as they like.
    """
    rng = random.Random(seed)
    graph = Graph("variable_mlp")
    graph.input("x", "FP32", [-1, -1, inputs])
    _hidden_layers(graph, inputs, width, outputs, layers, rng)
    graph.node("ReduceMean", ["y"], ["mean"], axes=[1], keepdims=0)
    graph.output("y", "FP32", [-1, -1, outputs])
    graph.output("mean", "FP32", [-1, outputs])
    return graph.model()


def identity(dtype: str = "FP32", dims: Shape = (-1, 4)) -> bytes:
    """`x` -> Identity -> `y`, both of this datatype and shape; any datatype of ELEMENT_TYPES."""
    graph = Graph("identity")
    graph.input("x", dtype, dims)
    graph.node("Identity", ["x"], ["y"])
    graph.output("y", dtype, dims)
    return graph.model()


def identities(tensors: Sequence[tuple[str, str, Shape]]) -> bytes:
    """Several inputs and outputs: each (name, datatype, dims) as input `name`, copied to output `name_out`."""
    graph = Graph("identities")
    for name, dtype, dims in tensors:
        graph.input(name, dtype, dims)
        graph.node("Identity", [name], [f"{name}_out"])
        graph.output(f"{name}_out", dtype, dims)
    return graph.model()


def add_sub(dtype: str = "FP32", width: int = 16) -> bytes:
    """The field's example model: INPUT0, INPUT1 [-1, width] -> OUTPUT0 = sum, OUTPUT1 = difference."""
    graph = Graph("add_sub")
    for name in ("INPUT0", "INPUT1"):
        graph.input(name, dtype, [-1, width])
    graph.node("Add", ["INPUT0", "INPUT1"], ["OUTPUT0"])
    graph.node("Sub", ["INPUT0", "INPUT1"], ["OUTPUT1"])
    for name in ("OUTPUT0", "OUTPUT1"):
        graph.output(name, dtype, [-1, width])
    return graph.model()


def classifier(inputs: int = 64, classes: int = 10, seed: int = 3) -> bytes:
    """`image` FP32 [-1, inputs] -> `probabilities` FP32 [-1, classes] and `label` INT64 [-1] (rank 1 output)."""
    rng = random.Random(seed)
    graph = Graph("classifier")
    graph.input("image", "FP32", [-1, inputs])
    graph.weights("w", [inputs, classes], rng)
    graph.weights("b", [classes], rng)
    graph.node("Gemm", ["image", "w", "b"], ["scores"])
    graph.node("Softmax", ["scores"], ["probabilities"], axis=-1)
    graph.node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0)
    graph.output("probabilities", "FP32", [-1, classes])
    graph.output("label", "INT64", [-1])
    return graph.model()


def fails_on_index(table_size: int = 16) -> bytes:
    """`index` INT64 [-1, 1] -> `value` FP32 [-1, 1] = 10 * index; the run fails if any index is >= table_size.

    One bad row makes ONNX Runtime throw for the whole batch, which is what bisecting a failed batch needs.
    """
    graph = Graph("fails_on_index")
    graph.input("index", "INT64", [-1, 1])
    table = array.array("f", (10.0 * position for position in range(table_size)))
    graph.constant("table", "FP32", [table_size], table.tobytes())
    graph.node("Gather", ["table", "index"], ["value"], axis=0)
    graph.output("value", "FP32", [-1, 1])
    return graph.model()


def string_source() -> bytes:
    """`shape` INT64 -> Expand of "abc" -> `strings` BYTES of that shape: the model inside of the ONNX backend."""
    graph = Graph("strings")
    graph.input("shape", "INT64", [-1])
    graph.strings("text", [], ["abc"])
    graph.node("Expand", ["text", "shape"], ["strings"])
    graph.output("strings", "BYTES", None)
    return graph.model()


def upper_case() -> bytes:
    """`text` BYTES [-1] -> StringNormalizer -> `upper` BYTES [-1]: every string in upper case."""
    graph = Graph("upper_case")
    graph.input("text", "BYTES", [-1])
    graph.node("StringNormalizer", ["text"], ["upper"], case_change_action="UPPER", locale="C")
    graph.output("upper", "BYTES", [-1])
    return graph.model()


def word_numbers(words: Sequence[str] = ("cat", "dog", "bird")) -> bytes:
    """`word` BYTES [-1, 1], `scale` INT64 [-1, 1] -> `number` INT64: the word's place in `words` (-1: none) * scale,
    and `again` BYTES: the word of that number.
    """
    graph = Graph("word_numbers")
    graph.input("word", "BYTES", [-1, 1])
    graph.input("scale", "INT64", [-1, 1])
    places = list(range(len(words)))
    graph.node(
        "LabelEncoder", ["word"], ["place"], "ai.onnx.ml",
        keys_strings=list(words), values_int64s=places, default_int64=-1,
    )  # fmt: skip
    graph.node("Mul", ["place", "scale"], ["number"])
    graph.node(
        "LabelEncoder", ["place"], ["again"], "ai.onnx.ml",
        keys_int64s=places, values_strings=list(words), default_string="?",
    )  # fmt: skip
    graph.output("number", "INT64", [-1, 1])
    graph.output("again", "BYTES", [-1, 1])
    return graph.model()


def batch_probe() -> bytes:
    """`x` FP32 [-1, 1] -> `rows` INT64 [-1, 1]: every row of the answer holds the size of the batch it ran in."""
    graph = Graph("batch_probe")
    graph.input("x", "FP32", [-1, 1])
    graph.integers("zero", [0])
    graph.node("Shape", ["x"], ["shape"])
    graph.node("Gather", ["shape", "zero"], ["size"], axis=0)
    graph.node("Expand", ["size", "shape"], ["rows"])
    graph.output("rows", "INT64", [-1, 1])
    return graph.model()


def fixed_batch(batch: int = 4, width: int = 3) -> bytes:
    """`x` FP32 [batch, width] -> `y` = x + x: the first axis is not free, so it cannot be batched."""
    graph = Graph("fixed_batch")
    graph.input("x", "FP32", [batch, width])
    graph.node("Add", ["x", "x"], ["y"])
    graph.output("y", "FP32", [batch, width])
    return graph.model()


def batch_not_first(time_steps: int = 2, width: int = 3) -> bytes:
    """`state` FP32 [time_steps, -1, width] and scalar `rate` INT64 [] -> both through Identity: served unbatched."""
    graph = Graph("batch_not_first")
    graph.input("state", "FP32", [time_steps, -1, width])
    graph.input("rate", "INT64", [])
    graph.node("Identity", ["state"], ["next_state"])
    graph.node("Identity", ["rate"], ["same_rate"])
    graph.output("next_state", "FP32", [time_steps, -1, width])
    graph.output("same_rate", "INT64", [])
    return graph.model()


def write_repository(root: Path, models: dict[str, bytes], version: int = 1) -> Path:
    """Lays the models out as ROOT/NAME/VERSION/model.onnx and returns ROOT."""
    for name, content in models.items():
        folder = root / name / str(version)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.onnx").write_bytes(content)
    return root
