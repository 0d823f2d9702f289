"""What an ONNX file says about itself: inputs, outputs, opsets, operators, external data. No tensor is loaded.

Source: onnx.proto3 (ModelProto, GraphProto, ValueInfoProto, TensorProto). The reader takes hostile files: every
length is checked against the message around it, nesting and counts are bounded, and anything that does not fit is a
ModelFileError that names the reason. Whether ONNX Runtime accepts the graph is not decided here.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from server.errors import ConfigurationError
from server.models.function_calls import FunctionCalls, FunctionError, operator_name
from server.models.protobuf_reader import BYTES, FIXED32, FIXED64, VARINT, Field, ProtobufError, Reader, signed

#: TensorProto.DataType -> datatype of the V2 protocol. Types without one are named as in onnx.proto3, in lower case.
V2_DATATYPES = {
    1: "FP32",
    2: "UINT8",
    3: "INT8",
    4: "UINT16",
    5: "INT16",
    6: "INT32",
    7: "INT64",
    8: "BYTES",
    9: "BOOL",
    10: "FP16",
    11: "FP64",
    12: "UINT32",
    13: "UINT64",
    16: "BF16",
}
OTHER_DATATYPES = {
    0: "undefined",
    14: "complex64",
    15: "complex128",
    17: "float8e4m3fn",
    18: "float8e4m3fnuz",
    19: "float8e5m2",
    20: "float8e5m2fnuz",
    21: "uint4",
    22: "int4",
    23: "float4e2m1",
    24: "float8e8m0",
    25: "uint2",
    26: "int2",
}
#: TypeProto's members that are not a dense tensor.
OTHER_TYPES = {4: "sequence", 5: "map", 7: "opaque", 8: "sparse tensor", 9: "optional"}

#: Protobuf refuses a message of 2 GiB, and so does every ONNX reader.
MAX_FILE_BYTES = (1 << 31) - 1
MAX_NAME_BYTES = 4096
MAX_TENSOR_COUNT = 4096
MAX_DIMENSION_COUNT = 64
MAX_EXTERNAL_COUNT = 1_000_000
#: Graphs inside If, Loop and Scan, and functions.
MAX_DEPTH = 32

#: What may be said of a tensor's external data.
EXTERNAL_KEYS = frozenset({"location", "offset", "length", "checksum"})
#: Nodes that hold, or name a file with, a graph compiled for one device: code, not a model.
COMPILED = "com.microsoft.EPContext"

Dimension = int | str | None


class ModelFileError(ConfigurationError):
    """The file cannot be served as an ONNX model; the text says why and, where there is one, the remedy."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A graph input or output.

    `dtype` is the V2 datatype (FP32, INT64, BYTES ...) or, in lower case, what V2 has no name for (sequence,
    complex64 ...). `shape` holds a size, a dimension's name, or None for a free dimension without a name; it is None
    as a whole if the file does not even give the rank.
    """

    name: str
    dtype: str
    shape: tuple[Dimension, ...] | None

    @property
    def dims(self) -> list[int]:
        """The shape as the V2 protocol writes it: -1 for every free dimension; [] if the rank is unknown."""
        return [size if isinstance(size, int) else -1 for size in self.shape or ()]


@dataclass(frozen=True, slots=True)
class ExternalData:
    """Weights kept in another file: `location` is as written in the model and has not been checked."""

    tensor: str
    location: str
    offset_bytes: int
    length_bytes: int | None


@dataclass(frozen=True, slots=True)
class OnnxModel:
    """The header of one ONNX file; `inputs` excludes names that an initializer provides."""

    path: Path
    file_bytes: int
    ir_version: int
    opsets: dict[str, int]
    producer: str
    graph_name: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    node_count: int
    op_counts: dict[str, int]
    initializer_count: int
    function_count: int
    external_data: tuple[ExternalData, ...]

    @property
    def opset(self) -> int:
        """Version of the standard operator set; 0 if the model imports none."""
        return self.opsets.get("", 0)


def read_model(path: str | os.PathLike[str]) -> OnnxModel:
    """Reads the header of the ONNX file at `path`; raises ModelFileError, or OSError if it cannot be opened."""
    where = Path(path)
    # O_NONBLOCK: opening a FIFO under that name must not wait for a writer.
    descriptor = os.open(where, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ModelFileError("is not a regular file")
        with open(descriptor, "rb", buffering=0, closefd=False) as file:
            return _read_file(where, file, status.st_size)
    finally:
        os.close(descriptor)


def _read_file(path: Path, file: BinaryIO, size_bytes: int) -> OnnxModel:
    if size_bytes == 0:
        raise ModelFileError("is empty: the copy or the export did not finish")
    if size_bytes > MAX_FILE_BYTES:
        raise ModelFileError(
            f"has {size_bytes} bytes; an ONNX file ends at {MAX_FILE_BYTES}: save the weights as external data"
        )
    _refuse_look_alikes(file.read(64))
    scan = _Scan(Reader(file, size_bytes))
    try:
        scan.model(size_bytes)
    except ProtobufError as error:
        raise ModelFileError(f"is not a readable ONNX file: it {error}") from None
    return scan.result(path, size_bytes)


def _refuse_look_alikes(head: bytes) -> None:
    """Names the files that are most often found under the name model.onnx and are none."""
    if head.startswith(b"version https://git-lfs"):
        raise ModelFileError("is a Git LFS pointer, not the model: run `git lfs pull`")
    if head[:2] == b"PK":
        raise ModelFileError("is a ZIP archive (a PyTorch or Keras file?), not an ONNX model: export it to ONNX")
    if head[4:8] == b"ORTM":
        raise ModelFileError("is in ONNX Runtime's .ort format: give the .onnx file that it was made from")
    if head.lstrip()[:1] == b"<":
        raise ModelFileError("is an HTML or XML page, not an ONNX model: the download failed?")


@dataclass(slots=True)
class _Scan:
    """Collects what `_read_file` returns while it walks the messages once."""

    reader: Reader
    ir_version: int = 0
    opsets: dict[str, int] = field(default_factory=dict)
    producer_name: str = ""
    producer_version: str = ""
    graph_name: str = ""
    graph_count: int = 0
    inputs: list[TensorInfo] = field(default_factory=list)
    outputs: list[TensorInfo] = field(default_factory=list)
    initializers: set[str] = field(default_factory=set)
    initializer_count: int = 0
    function_count: int = 0
    op_counts: Counter[str] = field(default_factory=Counter)
    calls: FunctionCalls = field(default_factory=FunctionCalls)
    external: list[ExternalData] = field(default_factory=list)

    def model(self, end: int) -> None:
        for item in self.reader.fields(0, end):
            match item.number:
                case 1:
                    self.ir_version = _integer(item, "ir_version")
                case 2:
                    self.producer_name = self._text(item, "producer_name")
                case 3:
                    self.producer_version = self._text(item, "producer_version")
                case 7:
                    _expect(item, BYTES, "graph")
                    self.graph_count += 1
                    self._graph(item, 0)
                case 8:
                    self._opset(item)
                case 25:
                    _expect(item, BYTES, "functions")
                    self.function_count += 1
                    self._function(item)

    def result(self, path: Path, size_bytes: int) -> OnnxModel:
        if self.graph_count != 1:
            raise ModelFileError(f"is not an ONNX model: it has {self.graph_count} graphs, expected 1")
        if self.ir_version < 1:
            raise ModelFileError("is not an ONNX model: it has no ir_version")
        inputs = tuple(tensor for tensor in self.inputs if tensor.name not in self.initializers)
        for kind, tensors in (("input", inputs), ("output", tuple(self.outputs))):
            name, count = Counter(tensor.name for tensor in tensors).most_common(1)[0] if tensors else ("", 0)
            if count > 1:
                raise ModelFileError(f"has {count} {kind}s named {name!r}")
        if not self.outputs:
            raise ModelFileError("has no outputs")
        if self.op_counts[COMPILED]:
            raise ModelFileError(f"holds {COMPILED}, a graph compiled for one device: give the model it was made from")
        try:
            self.calls.check(self.op_counts)
        except FunctionError as error:
            raise ModelFileError(str(error)) from None
        return OnnxModel(
            path=path,
            file_bytes=size_bytes,
            ir_version=self.ir_version,
            opsets=self.opsets,
            producer=f"{self.producer_name} {self.producer_version}".strip(),
            graph_name=self.graph_name,
            inputs=inputs,
            outputs=tuple(self.outputs),
            node_count=self.op_counts.total(),
            op_counts=dict(self.op_counts.most_common()),
            initializer_count=self.initializer_count,
            function_count=self.function_count,
            external_data=tuple(self.external),
        )

    def _opset(self, entry: Field) -> None:
        _expect(entry, BYTES, "opset_import")
        domain, version = "", 0
        for item in self.reader.fields(entry.start, entry.end):
            if item.number == 1:
                domain = self._text(item, "opset_import.domain")
            elif item.number == 2:
                version = _integer(item, "opset_import.version")
        self.opsets["" if domain == "ai.onnx" else domain] = version

    def _graph(self, graph: Field, depth: int) -> None:
        """Depth 0 is the model's graph; the graphs inside operators only add nodes and external data."""
        if depth > MAX_DEPTH:
            raise ModelFileError(f"has graphs nested deeper than {MAX_DEPTH}")
        top = depth == 0
        for item in self.reader.fields(graph.start, graph.end):
            number = item.number
            if number == 1:
                self._node(item, depth)
            elif number == 5:
                self._tensor(item, top)
            elif number == 15:
                self._sparse_tensor(item, top)
            elif not top:
                continue
            elif number == 2:
                self.graph_name = self._text(item, "graph.name")
            elif number == 11:
                self._value_info(item, self.inputs, "input")
            elif number == 12:
                self._value_info(item, self.outputs, "output")

    def _function(self, function: Field) -> None:
        name = domain = ""
        before, self.op_counts = self.op_counts, Counter()
        for item in self.reader.fields(function.start, function.end):
            if item.number == 1:
                name = self._text(item, "function.name")
            elif item.number == 10:
                domain = self._text(item, "function.domain")
            elif item.number == 7:
                self._node(item, 1)
        self.calls.add(operator_name(domain, name), self.op_counts)
        self.op_counts = before + self.op_counts

    def _node(self, node: Field, depth: int) -> None:
        _expect(node, BYTES, "node")
        op_type = ""
        domain = ""
        for item in self.reader.fields(node.start, node.end):
            if item.number == 4:
                op_type = self._text(item, "op_type")
            elif item.number == 7:
                domain = self._text(item, "node.domain")
            elif item.number == 5:
                self._attribute(item, depth)
        self.op_counts[operator_name(domain, op_type)] += 1

    def _attribute(self, attribute: Field, depth: int) -> None:
        _expect(attribute, BYTES, "attribute")
        for item in self.reader.fields(attribute.start, attribute.end):
            if item.number in (5, 10):
                self._tensor(item, False)
            elif item.number in (6, 11):
                _expect(item, BYTES, "subgraph")
                self._graph(item, depth + 1)
            elif item.number in (22, 23):
                self._sparse_tensor(item, False)

    def _sparse_tensor(self, sparse: Field, top: bool) -> None:
        """Values and indices are tensors; the values' name is the initializer's."""
        _expect(sparse, BYTES, "sparse_tensor")
        for item in self.reader.fields(sparse.start, sparse.end):
            if item.number == 1:
                self._tensor(item, top)
            elif item.number == 2:
                self._tensor(item, False)

    def _tensor(self, tensor: Field, top: bool) -> None:
        _expect(tensor, BYTES, "tensor")
        name = ""
        entries: list[Field] = []
        is_external = False
        for item in self.reader.fields(tensor.start, tensor.end):
            if item.number == 8:
                name = self._text(item, "tensor.name")
            elif item.number == 13:
                entries.append(item)
            elif item.number == 14:
                is_external = _integer(item, "data_location") == 1
        if top:
            self.initializers.add(name)
            self.initializer_count += 1
        # Entries without the location flag count too: readers differ in whether the flag is needed.
        if is_external or entries:
            self._external(name, entries)

    def _external(self, name: str, entries: list[Field]) -> None:
        if len(self.external) >= MAX_EXTERNAL_COUNT or len(entries) > 64:
            raise ModelFileError("has more external data entries than any model needs")
        values: dict[str, str] = {}
        for entry in entries:
            _expect(entry, BYTES, "external_data")
            key = value = ""
            for item in self.reader.fields(entry.start, entry.end):
                if item.number == 1:
                    key = self._text(item, "external_data.key")
                elif item.number == 2:
                    value = self._text(item, "external_data.value")
            if key in values:
                raise ModelFileError(f"gives {key!r} of the external data of tensor {name!r} twice")
            values[key] = value
        # ONNX Runtime's own pre-packed weights are memory images of another machine.
        if others := sorted(values.keys() - EXTERNAL_KEYS):
            raise ModelFileError(f"says {others[0][:64]!r} of the external data of tensor {name!r}, which is not read")
        self.external.append(
            ExternalData(
                tensor=name,
                location=values.get("location", ""),
                offset_bytes=_decimal(values.get("offset", "0"), name, "offset"),
                length_bytes=_decimal(values["length"], name, "length") if "length" in values else None,
            )
        )

    def _value_info(self, info: Field, into: list[TensorInfo], kind: str) -> None:
        _expect(info, BYTES, kind)
        if len(into) >= MAX_TENSOR_COUNT:
            raise ModelFileError(f"has more than {MAX_TENSOR_COUNT} {kind}s")
        name = ""
        dtype = "undefined"
        shape: tuple[Dimension, ...] | None = None
        type_count = 0
        for item in self.reader.fields(info.start, info.end):
            if item.number == 1:
                name = self._text(item, f"{kind}.name")
            elif item.number == 2:
                _expect(item, BYTES, f"{kind}.type")
                type_count += 1
                dtype, shape = self._type(item, kind, name)
        if not name:
            raise ModelFileError(f"has an {kind} without a name")
        if type_count > 1:
            raise ModelFileError(f"gives the type of {kind} {name!r} twice")
        into.append(TensorInfo(name, dtype, shape))

    def _type(self, type_proto: Field, kind: str, name: str) -> tuple[str, tuple[Dimension, ...] | None]:
        dtype = "undefined"
        shape: tuple[Dimension, ...] | None = None
        member_count = 0
        for item in self.reader.fields(type_proto.start, type_proto.end):
            if item.number in OTHER_TYPES:
                member_count += 1
                dtype = OTHER_TYPES[item.number]
            elif item.number == 1:
                _expect(item, BYTES, f"{kind}.type")
                member_count += 1
                for part in self.reader.fields(item.start, item.end):
                    if part.number == 1:
                        code = _integer(part, "elem_type")
                        dtype = V2_DATATYPES.get(code) or OTHER_DATATYPES.get(code, f"type {code}")
                    elif part.number == 2:
                        _expect(part, BYTES, f"{kind}.shape")
                        if shape is not None:
                            raise ModelFileError(f"gives the shape of {kind} {name!r} twice")
                        shape = self._shape(part, kind, name)
        if member_count > 1:
            raise ModelFileError(f"gives {member_count} types for {kind} {name!r}")
        return dtype, shape

    def _shape(self, shape: Field, kind: str, name: str) -> tuple[Dimension, ...]:
        dimensions: list[Dimension] = []
        for item in self.reader.fields(shape.start, shape.end):
            if item.number != 1:
                continue
            _expect(item, BYTES, f"{kind}.shape")
            if len(dimensions) >= MAX_DIMENSION_COUNT:
                raise ModelFileError(f"has more than {MAX_DIMENSION_COUNT} dimensions on {kind} {name!r}")
            size: Dimension = None
            for part in self.reader.fields(item.start, item.end):
                if part.number == 1:
                    value = _integer(part, "dim_value")
                    # Exporters write -1 for a free dimension, which the format does not foresee but everybody reads.
                    size = value if value >= 0 else None
                elif part.number == 2:
                    size = self._text(part, "dim_param") or None
            dimensions.append(size)
        return tuple(dimensions)

    def _text(self, item: Field, what: str) -> str:
        _expect(item, BYTES, what)
        if item.end - item.start > MAX_NAME_BYTES:
            raise ModelFileError(f"has a {what} of {item.end - item.start} bytes; at most {MAX_NAME_BYTES} are read")
        try:
            return self.reader.read(item.start, item.end).decode()
        except UnicodeDecodeError:
            raise ModelFileError(f"has a {what} that is not UTF-8, at byte {item.start}") from None


_WIRE_NAMES = {VARINT: "a number", FIXED64: "8 bytes", BYTES: "a length and bytes", FIXED32: "4 bytes"}


def _expect(item: Field, wire: int, what: str) -> None:
    if item.wire != wire:
        raise ModelFileError(
            f"is not a readable ONNX file: {what} at byte {item.start} is {_WIRE_NAMES[item.wire]}, "
            f"expected {_WIRE_NAMES[wire]}"
        )


def _integer(item: Field, what: str) -> int:
    _expect(item, VARINT, what)
    return signed(item.value)


def _decimal(text: str, name: str, what: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise ModelFileError(
            f"has {what} {text[:32]!r} for the external data of tensor {name!r}; expected a number of bytes"
        )
    return int(text)
