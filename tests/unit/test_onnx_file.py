"""The ONNX header reader: what it finds in honest files, and that it refuses every other kind of file by name."""

from __future__ import annotations

import os
import random
import struct
import time
from pathlib import Path

import pytest

from server.models import external_data, onnx_file
from server.models.onnx_file import ModelFileError, TensorInfo, read_model
from tests.support import onnx_writer
from tests.support.onnx_writer import Graph

DEMO = Path(__file__).resolve().parents[2] / "server" / "demo" / "digits" / "1" / "model.onnx"


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def packed(field: int, body: bytes | str) -> bytes:
    raw = body.encode() if isinstance(body, str) else body
    return varint(field << 3 | 2) + varint(len(raw)) + raw


def value_info(name: str, elem_type: int, dims: list[bytes] | None) -> bytes:
    """ValueInfoProto of a dense tensor; `dims` are bodies of Dimension messages."""
    shape = b"" if dims is None else packed(2, b"".join(packed(1, dim) for dim in dims))
    return packed(1, name) + packed(2, packed(1, number(1, elem_type) + shape))


def model(graph: bytes, **changes: bytes) -> bytes:
    parts = {
        "ir": number(1, 8),
        "producer": packed(2, "hand"),
        "graph": packed(7, graph),
        "opset": packed(8, packed(1, "") + number(2, 17)),
    }
    return b"".join((parts | changes).values())


ONE_BY_FOUR = [number(1, 1), number(1, 4)]
GRAPH = packed(11, value_info("x", 1, ONE_BY_FOUR)) + packed(12, value_info("y", 1, ONE_BY_FOUR))


def read(tmp_path: Path, content: bytes) -> onnx_file.OnnxModel:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    return read_model(path)


def refusal(tmp_path: Path, content: bytes) -> str:
    with pytest.raises(ModelFileError) as caught:
        read(tmp_path, content)
    return str(caught.value)


def test_demo_model() -> None:
    found = read_model(DEMO)
    assert found.inputs == (TensorInfo("image", "FP32", ("batch", 64)),)
    assert found.outputs == (
        TensorInfo("probabilities", "FP32", ("batch", 10)),
        TensorInfo("label", "INT64", ("batch",)),
    )
    assert (found.ir_version, found.opset, found.producer, found.node_count) == (8, 17, "headrace", 8)
    assert found.op_counts["Gemm"] == 2
    assert found.inputs[0].dims == [-1, 64]
    assert found.file_bytes == DEMO.stat().st_size <= 100_000
    assert found.external_data == ()


@pytest.mark.parametrize("dtype", sorted(onnx_writer.ELEMENT_TYPES))
def test_every_datatype(tmp_path: Path, dtype: str) -> None:
    found = read(tmp_path, onnx_writer.identity(dtype, (-1, 4)))
    assert [tensor.dtype for tensor in found.inputs + found.outputs] == [dtype, dtype]


@pytest.mark.parametrize(
    ("elem_type", "name"), [(0, "undefined"), (14, "complex64"), (17, "float8e4m3fn"), (22, "int4"), (99, "type 99")]
)
def test_types_without_a_v2_name(tmp_path: Path, elem_type: int, name: str) -> None:
    graph = packed(11, value_info("x", elem_type, ONE_BY_FOUR)) + packed(12, value_info("y", 1, ONE_BY_FOUR))
    assert read(tmp_path, model(graph)).inputs[0].dtype == name


@pytest.mark.parametrize(("member", "name"), [(4, "sequence"), (5, "map"), (8, "sparse tensor"), (9, "optional")])
def test_types_that_are_no_tensor(tmp_path: Path, member: int, name: str) -> None:
    graph = packed(11, packed(1, "x") + packed(2, packed(member, b""))) + packed(12, value_info("y", 1, []))
    assert read(tmp_path, model(graph)).inputs == (TensorInfo("x", name, None),)


@pytest.mark.parametrize(
    ("dims", "shape"),
    [
        (None, None),
        ([], ()),
        ([number(1, 3)], (3,)),
        ([packed(2, "N"), number(1, 3)], ("N", 3)),
        ([b"", number(1, -1), packed(2, "")], (None, None, None)),
        ([number(1, 0)], (0,)),
        ([number(1, (1 << 63) - 1)], ((1 << 63) - 1,)),
        ([packed(3, "DATA_BATCH") + packed(2, "B")], ("B",)),
    ],
)
def test_shapes(tmp_path: Path, dims: list[bytes] | None, shape: tuple[object, ...] | None) -> None:
    graph = packed(11, value_info("x", 1, dims)) + packed(12, value_info("y", 1, []))
    assert read(tmp_path, model(graph)).inputs[0].shape == shape


def test_inputs_that_an_initializer_provides_are_left_out(tmp_path: Path) -> None:
    dense = packed(5, number(1, 4) + number(2, 1) + packed(8, "w") + packed(9, bytes(16)))
    sparse = packed(15, packed(1, number(2, 1) + packed(8, "s")) + packed(2, packed(8, "indices")))
    weights = packed(11, value_info("w", 1, [number(1, 4)])) + packed(11, value_info("s", 1, [number(1, 4)]))
    # The initializers stand behind the inputs here; the order of fields is free in protobuf.
    found = read(tmp_path, model(weights + GRAPH + dense + sparse))
    assert [tensor.name for tensor in found.inputs] == ["x"]
    assert found.initializer_count == 2


def test_weights_are_stepped_over_and_not_read(tmp_path: Path) -> None:
    """A file with a hole of 1 GiB of weights: reading it would take the memory and the time."""
    raw_bytes = 1 << 30
    head = packed(8, "w") + varint(9 << 3 | 2) + varint(raw_bytes)
    tensor_head = varint(5 << 3 | 2) + varint(len(head) + raw_bytes)
    graph_head = varint(7 << 3 | 2) + varint(len(tensor_head) + len(head) + raw_bytes + len(GRAPH))
    start = number(1, 8) + graph_head + tensor_head + head
    path = tmp_path / "model.onnx"
    with path.open("wb") as file:
        file.write(start)
        file.seek(raw_bytes, os.SEEK_CUR)
        file.write(GRAPH)
    begin_ns = time.monotonic_ns()
    found = read_model(path)
    assert [tensor.name for tensor in found.inputs] == ["x"]
    assert time.monotonic_ns() - begin_ns < 1_000_000_000


def test_nodes_in_subgraphs_and_functions_count(tmp_path: Path) -> None:
    inner = packed(1, packed(4, "Relu"))
    branch = packed(5, packed(1, "then_branch") + packed(6, inner) + number(20, 5))
    function = packed(25, packed(1, "f") + packed(7, packed(4, "Tanh") + packed(7, "com.example")))
    found = read(tmp_path, model(packed(1, packed(4, "If") + branch) + GRAPH) + function)
    assert found.op_counts == {"If": 1, "Relu": 1, "com.example.Tanh": 1}
    assert found.function_count == 1


def test_two_opset_domains(tmp_path: Path) -> None:
    opsets = packed(8, packed(1, "ai.onnx.ml") + number(2, 3)) + packed(8, packed(1, "ai.onnx") + number(2, 15))
    found = read(tmp_path, model(GRAPH, opset=opsets))
    assert found.opsets == {"ai.onnx.ml": 3, "": 15}
    assert found.opset == 15


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"PK\x03\x04" + bytes(60), "ZIP archive"),
        (b"\x20\0\0\0ORTM" + bytes(60), ".ort format"),
        (b"\n <!DOCTYPE html><html>", "HTML"),
        (b"hello, world", "is not a readable ONNX file"),
        (bytes(64), "field number 0"),
        (b"\x08" + b"\xff" * 10, "does not end"),
        (b"\x08\xff", "does not end"),
        (b"\x08", "a number is missing"),
        (b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "does not end"),
        (b"\x3a\x7f", "claims 127 bytes, 0 are left"),
        (b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "claims 9223372036854775807 bytes"),
        (b"\x3b", "wire type 3"),
        (number(1, 8), "it has 0 graphs"),
        (model(GRAPH, ir=b""), "no ir_version"),
        (model(GRAPH) + packed(7, GRAPH), "it has 2 graphs"),
        (number(1, 8) + number(7, 5), "graph at byte 4 is a number"),
        (model(GRAPH, ir=packed(1, "8")), "ir_version at byte 2 is a length and bytes, expected a number"),
        (model(packed(11, value_info("x", 1, []))), "has no outputs"),
        (model(GRAPH + packed(11, value_info("x", 1, []))), "2 inputs named 'x'"),
        (model(packed(11, value_info("", 1, [])) + GRAPH), "input without a name"),
        (model(packed(11, value_info("n" * 5000, 1, [])) + GRAPH), "input.name of 5000 bytes"),
        (model(packed(11, packed(1, b"\xff\xfe")) + GRAPH), "not UTF-8"),
        (model(packed(11, value_info("z", 1, [b""] * 65)) + GRAPH), "more than 64 dimensions"),
        (model(packed(12, value_info("z", 1, [])) * 4097), "more than 4096 outputs"),
        (model(packed(11, packed(1, "z") + packed(2, b"") * 2) + GRAPH), "type of input 'z' twice"),
        (model(packed(11, packed(1, "z") + packed(2, packed(1, b"") + packed(4, b""))) + GRAPH), "2 types"),
        (model(packed(11, packed(1, "z") + packed(2, packed(1, packed(2, b"") * 2))) + GRAPH), "shape of input 'z' tw"),
    ],
)
def test_refusals(tmp_path: Path, content: bytes, said: str) -> None:
    assert said in refusal(tmp_path, content)


def test_subgraphs_nested_for_ever(tmp_path: Path) -> None:
    graph = b""
    for _ in range(40):
        graph = packed(1, packed(5, packed(6, graph)))
    assert "nested deeper than 32" in refusal(tmp_path, model(graph + GRAPH))


def test_a_flood_of_fields_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.models.protobuf_reader.Reader.__init__.__kwdefaults__", {"max_fields": 1000})
    assert "more fields than any model" in refusal(tmp_path, model(GRAPH) + number(5, 1) * 2000)


def test_a_fifo_and_a_directory_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.onnx")
    with pytest.raises(ModelFileError, match="not a regular file"):
        read_model(tmp_path / "model.onnx")
    with pytest.raises(ModelFileError, match="not a regular file"):
        read_model(tmp_path)


def test_a_file_that_protobuf_could_not_hold(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with path.open("wb") as file:
        file.truncate(1 << 31)
    with pytest.raises(ModelFileError, match="save the weights as external data"):
        read_model(path)


@pytest.mark.parametrize("source", ["demo", "classifier", "subgraph"])
def test_every_truncation_is_refused_or_harmless(tmp_path: Path, source: str) -> None:
    """Cut anywhere, the reader raises nothing but ModelFileError."""
    inner = packed(1, packed(4, "Relu")) * 3
    content = {
        "demo": DEMO.read_bytes()[-700:],
        "classifier": onnx_writer.classifier(4, 3),
        "subgraph": model(packed(1, packed(4, "If") + packed(5, packed(6, inner))) + GRAPH),
    }[source]
    for end in range(len(content)):
        try:
            read(tmp_path, content[:end])
        except ModelFileError as error:
            assert str(error)


def test_flipped_bits_raise_nothing_else(tmp_path: Path) -> None:
    rng = random.Random(5)
    content = onnx_writer.identities([("a", "FP32", [-1, 3]), ("b", "INT64", [-1])])
    for _ in range(400 * int(os.environ.get("HEADRACE_STRESS", "1") or "1")):
        damaged = bytearray(content)
        for _ in range(rng.randint(1, 4)):
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        try:
            read(tmp_path, bytes(damaged))
        except ModelFileError as error:
            assert str(error)


def external_model(location: str, **ranges: str) -> bytes:
    entries = {"location": location, **ranges}
    body = b"".join(packed(13, packed(1, key) + packed(2, value)) for key, value in entries.items())
    return model(packed(5, packed(8, "w") + body + number(14, 1)) + GRAPH)


def check(tmp_path: Path, content: bytes) -> None:
    external_data.check(read(tmp_path, content))


def test_external_data_beside_the_model(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(bytes(100))
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "w").symlink_to(tmp_path / "weights.bin")
    check(tmp_path, external_model("weights.bin"))
    check(tmp_path, external_model("weights.bin", offset="40", length="60"))
    check(tmp_path, external_model("sub/w"))
    found = read(tmp_path, external_model("weights.bin", offset="40", length="60"))
    assert found.external_data == (onnx_file.ExternalData("w", "weights.bin", 40, 60),)


@pytest.mark.parametrize(
    "location",
    ["", "/etc/passwd", "../secret", "a/../../secret", "./w", "a//w", "w\0", "..", "*/_ORT_MEM_ADDR_/*", "a\\w"],
)
def test_external_data_that_leads_away(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    (folder / "a").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(b"secret")
    with pytest.raises(ModelFileError, match=r"expected a (plain )?file name"):
        check(folder, external_model(location))


def test_external_data_through_links(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(64))
    (folder / "file_link").symlink_to(secret)
    (folder / "parent_link").symlink_to(tmp_path)
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "proc_link").symlink_to("/proc/self/fd")
    os.link(secret, folder / "hard_link")
    os.mkfifo(folder / "fifo")
    for location, said in [
        ("file_link", "leads out"),
        ("parent_link/secret", "leads out"),
        ("proc_link/0", "leads out|cannot be read"),
        ("loop", "cannot be read"),
        ("missing", "cannot be read"),
        ("hard_link", "hard links"),
        ("fifo", "not a regular file"),
    ]:
        with pytest.raises(ModelFileError, match=said):
            check(folder, external_model(location))


@pytest.mark.parametrize(
    ("ranges", "said"),
    [
        ({"offset": "90", "length": "11"}, "wants bytes 90 to 101"),
        ({"offset": "101"}, "wants bytes 101 to 101"),
        ({"length": str(10**18 - 1)}, "wants bytes 0 to"),
        ({"offset": "-1"}, "expected a number of bytes"),
        ({"length": "1e3"}, "expected a number of bytes"),
        ({"length": "9" * 19}, "expected a number of bytes"),
    ],
)
def test_external_data_outside_its_file(tmp_path: Path, ranges: dict[str, str], said: str) -> None:
    (tmp_path / "weights.bin").write_bytes(bytes(100))
    with pytest.raises(ModelFileError, match=said):
        check(tmp_path, external_model("weights.bin", **ranges))


def test_external_data_of_constants_in_subgraphs_is_seen(tmp_path: Path) -> None:
    entry = packed(13, packed(1, "location") + packed(2, "/etc/passwd"))
    constant = packed(1, packed(4, "Constant") + packed(5, packed(5, packed(8, "c") + entry)))
    branch = packed(1, packed(4, "If") + packed(5, packed(6, constant)))
    with pytest.raises(ModelFileError, match="/etc/passwd"):
        check(tmp_path, model(branch + GRAPH))


def test_reads_a_graph_of_many_nodes_in_time(tmp_path: Path) -> None:
    graph = Graph("chain")
    graph.input("x", "FP32", [-1, 4])
    node = packed(1, packed(1, "a") + packed(2, "b") + packed(3, "n") + packed(4, "Relu"))
    body = node * 20_000 + packed(9, struct.pack("<f", 0.0))
    begin_ns = time.monotonic_ns()
    found = read(tmp_path, model(body + GRAPH))
    assert found.op_counts == {"Relu": 20_000}
    assert time.monotonic_ns() - begin_ns < 3_000_000_000
