"""System shared memory through a whole server: REST, gRPC and NVIDIA's client; then clients that mean no good."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.protocol import messages
from tests.conformance import zoo
from tests.reference import bytes_form
from tests.reference import infer_wire as wire_twin
from tests.support import clients, onnx_writer
from tests.support.faults import stopped
from tests.support.server import Answer, Server, running
from tests.support.shared_objects import (
    FOLDER,
    SharedObject,
    grpc,
    grpc_infer,
    grpc_refusal,
    place,
    register,
    set_place,
    shared_object,
    unregister,
)

pytestmark = pytest.mark.slow

MODELS = {
    "text": onnx_writer.identity("BYTES", [-1, -1]),
    "rows": onnx_writer.identity("FP32", [-1, 4]),
    "shaped": onnx_writer.identity("FP32", [-1, -1]),
    "flat": onnx_writer.identity("INT64", [3]),
    "every_dtype": zoo.every_dtype(),
    "flags": onnx_writer.identity("BOOL", [-1, 4]),
}
SIZE = 1 << 16
DRIVER = Path(__file__).with_name("shared_memory_driver.py")


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = onnx_writer.write_repository(tmp_path_factory.mktemp("shared"), MODELS)
    with running(root, "--workers", "2", "--allow-client-shm", "--max-batch-size", "8") as server:
        yield server


def held(server: Server) -> list[str]:
    """Links of all descriptors of test objects that the server's processes have."""
    found = []
    for pid in server.processes():
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            link = os.readlink(fd)
            if "headrace-test-" in link and link.startswith("/dev/shm/"):
                found.append(link)
    return found


@pytest.fixture
def server(shared_server: Server) -> Iterator[Server]:
    """Fails a test after which a process has been replaced or holds an object."""
    before = shared_server.processes()
    yield shared_server
    assert unregister(shared_server).status == 200
    assert shared_server.processes() == before, shared_server.log()
    assert held(shared_server) == []


@pytest.fixture
def memory(server: Server) -> Iterator[SharedObject]:
    """An object that is registered as "r", whole."""
    with shared_object(SIZE) as made:
        assert register(server, "r", made.key, SIZE).status == 200
        yield made


def tensor(datatype: str, shape: list[int], where: dict[str, Any], name: str = "x") -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": where}


def infer(server: Server, model: str, inputs: list[Any], outputs: dict[str, dict[str, Any]] | None = None) -> Answer:
    asked = [{"name": name, "parameters": where} for name, where in (outputs or {}).items()]
    return server.post(f"/v2/models/{model}/infer", {"inputs": inputs, "outputs": asked})


def error(answer: Answer) -> str:
    assert answer.status == 400, answer
    text: str = answer.json()["error"]
    return text


# ---- what it is for


@pytest.mark.parametrize(("model", "rows"), [("rows", 1), ("rows", 27), ("shaped", 2), ("shaped", 27)])
def test_rows_come_back(server: Server, memory: SharedObject, model: str, rows: int) -> None:
    """Also in more than one part: a slab has eight rows."""
    data = np.random.default_rng(rows).standard_normal((rows, 4), np.float32).tobytes()
    memory.write(40, data)
    where = place("r", len(data) + 9, 4096)
    answer = infer(server, model, [tensor("FP32", [rows, 4], place("r", len(data), 40))], {"y": where})
    assert answer.json()["outputs"] == [
        {
            "name": "y",
            "datatype": "FP32",
            "shape": [rows, 4],
            "parameters": {
                "shared_memory_region": "r",
                "shared_memory_offset": 4096,
                "shared_memory_byte_size": len(data),
            },
        }
    ]
    assert memory.read(4096, len(data) + 4) == data + bytes(4)
    message = wire_twin.REQUEST(model_name=model)
    set_place(message.inputs.add(name="x", datatype="FP32", shape=[rows, 4]), "r", len(data), 40)
    set_place(message.outputs.add(name="y"), "r", len(data))
    reply = grpc_infer(server, message)
    assert {
        key: getattr(value, value.WhichOneof("parameter_choice")) for key, value in reply.outputs[0].parameters.items()
    } == {"shared_memory_region": "r", "shared_memory_byte_size": len(data)}
    assert list(reply.raw_output_contents) == [b""]
    assert memory.read(0, len(data)) == data


def test_every_datatype_bit_for_bit(server: Server, memory: SharedObject) -> None:
    """All inputs and outputs, at odd offsets, over REST and over gRPC."""
    rng = np.random.default_rng(5)
    inputs, outputs, expected, at = [], {}, {}, 1
    message = wire_twin.REQUEST(model_name="every_dtype")
    for name in zoo.FIXED_WIDTH_TYPES:
        size = 2 * zoo.EVERY_DTYPE_WIDTH * messages_width(name)
        data = rng.integers(0, 2 if name == "BOOL" else 256, size, np.uint8).tobytes()
        memory.write(at, data)
        inputs.append(tensor(name, [2, zoo.EVERY_DTYPE_WIDTH], place("r", size, at), name.lower()))
        outputs[f"{name.lower()}_out"] = place("r", size, at + 30001)
        set_place(message.inputs.add(name=name.lower(), datatype=name, shape=[2, zoo.EVERY_DTYPE_WIDTH]), "r", size, at)
        set_place(message.outputs.add(name=f"{name.lower()}_out"), "r", size, at + 10001)
        expected[at] = data
        at += size + 3
    assert at < 10000
    assert infer(server, "every_dtype", inputs, outputs).status == 200
    assert len(grpc_infer(server, message).outputs) == len(outputs)
    for at, data in expected.items():
        assert memory.read(at + 30001, len(data)) == data
        assert memory.read(at + 10001, len(data)) == data


def messages_width(datatype: str) -> int:
    return 1 if datatype in ("BOOL", "INT8", "UINT8") else 2 if datatype == "BF16" else int(datatype[-2:]) // 8


def test_strings_and_mixed_sources(server: Server, memory: SharedObject) -> None:
    data = bytes_form.pack([b"a", b"", b"\xff\0" * 300, "é".encode()])
    memory.write(7, data)
    where = [tensor("BYTES", [2, 2], place("r", len(data), 7))]
    assert infer(server, "text", where, {"y": place("r", SIZE - 2048, 2048)}).status == 200
    assert memory.read(2048, len(data)) == data
    answer = server.request(
        "POST",
        "/v2/models/text/infer",
        json.dumps({"inputs": where, "outputs": [{"name": "y", "parameters": {"binary_data": True}}]}).encode(),
    )
    assert answer.body.endswith(data)
    inline = [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]
    assert infer(server, "rows", inline, {"y": place("r", 16)}).status == 200
    assert memory.read(0, 16) == np.array([1, 2, 3, 4], np.float32).tobytes()


def test_a_part_of_an_object_by_a_name_of_any_letters(server: Server) -> None:
    name = '日本 "\\\n\x01é'
    with shared_object(4096) as memory:
        message = messages.message_class("inference.SystemSharedMemoryRegisterRequest")(
            name=name, key=memory.key, offset=100, byte_size=64
        )
        frames, _ = grpc(server, "SystemSharedMemoryRegister", message)
        assert frames
        assert grpc_refusal(server, "SystemSharedMemoryRegister", message)[0] == 6
        memory.write(104, bytes(range(12)))
        outputs = {"y": place(name, 24, 40)}
        for _ in range(4):  # whichever worker takes it
            answer = infer(
                server, "flat", [{**tensor("INT64", [3], {}), "data": [1, 2, 3], "parameters": None}], outputs
            )
            assert answer.json()["outputs"][0]["parameters"]["shared_memory_region"] == name
        assert memory.read(140, 24) == np.array([1, 2, 3], np.int64).tobytes()
        assert "Invalid offset + byte size" in error(infer(server, "flat", [tensor("INT64", [3], place(name, 24, 41))]))


def test_both_workers_know_a_region_at_once(server: Server) -> None:
    with shared_object(64) as memory:
        for number in range(10):
            assert register(server, f"n{number}", memory.key, 64).status == 200
            for _ in range(4):
                where = [tensor("INT64", [3], place(f"n{number}", 24))]
                assert infer(server, "flat", where).status == 200
            assert unregister(server, f"n{number}").status == 200
            for _ in range(4):
                assert "Unable to find" in error(infer(server, "flat", where))


def test_nvidias_client(server: Server) -> None:
    command = [clients.python("tritonclient"), "-W", "error", str(DRIVER), f"{server.host}:{server.port}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "FP32 INT64 BOOL BYTES\n"), done.stderr


# ---- refusals

MOST = 2**64 - 1
PLACES = [
    (place("q", 24), "Unable to find shared memory region: 'q'"),
    (place("r\0", 24), "Unable to find shared memory region: 'r"),
    (place("r" * 5000, 24), "Unable to find shared memory region: 'rrr"),
    (place("\ud800", 24), "invalid JSON: expected a valid escape"),
    (place("r", 24, SIZE - 23), "Invalid offset + byte size for shared memory region: 'r'"),
    (place("r", 24, SIZE + 1), "Invalid offset for shared memory region: 'r'"),
    (place("r", 24, MOST), "Invalid offset for shared memory region: 'r'"),
    (place("r", 24, MOST - 23), "Invalid offset for shared memory region: 'r'"),
    (place("r", 24, 2**63), "Invalid offset for shared memory region: 'r'"),
]


@pytest.mark.parametrize(("where", "text"), PLACES, ids=range(len(PLACES)))
def test_places_that_are_not_there(server: Server, memory: SharedObject, where: dict[str, Any], text: str) -> None:
    assert text in error(infer(server, "flat", [tensor("INT64", [3], where)]))
    inline = [{**tensor("INT64", [3], {}), "data": [1, 2, 3]}]
    assert text in error(infer(server, "flat", inline, {"y": where}))


def test_sizes_that_do_not_fit(server: Server, memory: SharedObject) -> None:
    for size in (0, 23, 25, MOST):
        assert f"Expected 24, got {size}" in error(infer(server, "flat", [tensor("INT64", [3], place("r", size))]))
    inline = [{**tensor("INT64", [3], {}), "data": [1, 2, 3]}]
    assert "(23 bytes) should be at least 24 bytes to hold" in error(
        infer(server, "flat", inline, {"y": place("r", 23)})
    )
    assert "Invalid offset + byte size" in error(infer(server, "text", [tensor("BYTES", [1, 1], place("r", MOST))]))
    memory.write(0, b"\0\1\2\0")
    assert "BOOL elements" in error(infer(server, "flags", [tensor("BOOL", [1, 4], place("r", 4))]))


BAD_KEYS = [
    "",
    "/",
    ".",
    "..",
    "/..",
    "a/b",
    "/a/b",
    "../etc/passwd",
    "a\0b",
    "x" * 300,
    "\ud800",
    5,
    None,
    "/no-such-object",
]


@pytest.mark.parametrize("key", BAD_KEYS, ids=repr)
def test_keys_that_are_refused(server: Server, key: object) -> None:
    assert register(server, "bad", key, 8).status == 400
    assert server.get("/v2/systemsharedmemory/status").json() == []


def test_only_plain_objects_are_opened(server: Server, tmp_path: Path) -> None:
    """No link, no FIFO, no folder; nothing blocks and nothing stays open."""
    with shared_object(64) as memory:
        other = Path(f"{memory.path}-other")
        for make in (lambda: other.symlink_to(memory.path), lambda: os.mkfifo(other), other.mkdir):
            make()
            try:
                assert "shared memory region" in error(register(server, "bad", f"/{other.name}", 8))
            finally:
                other.rmdir() if other.is_dir() and not other.is_symlink() else other.unlink()
        for size, offset in (
            (65, 0),
            (1, 64),
            (MOST, 0),
            (1, MOST),
            (2**63, 2**63),
            (0, 0),
            (-1, 0),
            (1.5, 0),
            ("8", 0),
        ):
            assert register(server, "bad", memory.key, size, offset).status == 400


# ---- memory that does not keep still


def test_a_shorter_object_fails_its_own_requests(server: Server, memory: SharedObject) -> None:
    memory.cut(20)
    where = [tensor("INT64", [3], place("r", 24))]
    assert "its object has become shorter" in error(infer(server, "flat", where))
    inline = [{**tensor("INT64", [3], {}), "data": [1, 2, 3]}]
    assert "its object has become shorter" in error(infer(server, "flat", inline, {"y": place("r", 24)}))
    assert memory.path.stat().st_size == 20
    assert infer(server, "flat", inline).status == 200


def test_an_object_that_is_replaced_is_not_followed(server: Server, memory: SharedObject) -> None:
    """The region is the object that was registered, not its name."""
    memory.write(0, np.array([1, 2, 3], np.int64).tobytes())
    memory.path.unlink()
    memory.path.write_bytes(bytes(SIZE))
    for _ in range(4):
        answer = infer(server, "flat", [tensor("INT64", [3], place("r", 24))])
        assert answer.json()["outputs"][0]["data"] == [1, 2, 3]


def wait_in_flight(server: Server) -> None:
    deadline = time.monotonic_ns() + 10_000_000_000
    while 'headrace_inflight_requests{model="flat",version="1"} 1' not in server.get(
        "/metrics", port=server.metrics_port
    ).body.decode().replace(".0", ""):
        assert time.monotonic_ns() < deadline, server.log()
        time.sleep(0.005)


def test_a_region_unregistered_while_a_request_waits(server: Server, memory: SharedObject) -> None:
    """The answer still goes where the request said; then the object is let go."""
    inline = [{**tensor("INT64", [3], {}), "data": [4, 5, 6]}]
    found: list[Answer] = []
    asking = threading.Thread(target=lambda: found.append(infer(server, "flat", inline, {"y": place("r", 24, 8)})))
    with contextlib.ExitStack() as stack:
        stack.callback(asking.join)
        for pid in server.pids("executor"):
            stack.enter_context(stopped(pid))
        asking.start()
        wait_in_flight(server)
        assert unregister(server, "r").status == 200
        assert register(server, "r", memory.key, 8).status == 200
        assert memory.read(8, 24) == bytes(24)
    assert [answer.status for answer in found] == [200]
    assert memory.read(8, 24) == np.array([4, 5, 6], np.int64).tobytes()


def hammer(server: Server, body: dict[str, Any], model: str, count: int, found: list[Answer]) -> None:
    for _ in range(count):
        found.append(server.post(f"/v2/models/{model}/infer", body))


def test_unregistered_cut_and_grown_while_requests_run(server: Server) -> None:
    """Requests that name the region are answered 200 or 400; those of others are right all the time."""
    with shared_object(SIZE) as memory:
        memory.write(0, np.arange(108, dtype=np.float32).tobytes())
        body = {
            "inputs": [tensor("FP32", [27, 4], place("moving", 432))],
            "outputs": [{"name": "y", "parameters": place("moving", 432, 1000)}],
        }
        other = {"inputs": [{**tensor("FP32", [1, 4], {}), "data": [1, 2, 3, 4]}]}
        found: list[Answer] = []
        calm: list[Answer] = []
        threads = [threading.Thread(target=hammer, args=(server, body, "rows", 150, found)) for _ in range(3)]
        threads.append(threading.Thread(target=hammer, args=(server, other, "rows", 150, calm)))
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            assert register(server, "moving", memory.key, 4096).status == 200
            memory.cut(100)
            memory.cut(SIZE)
            assert unregister(server, "moving").status == 200
        for thread in threads:
            thread.join()
    assert {answer.status for answer in calm} == {200}
    assert {answer.status for answer in found} <= {200, 400}
    assert all("shared memory region" in answer.body.decode() for answer in found if answer.status == 400)


WRITER = """
import os, random, sys
fd = os.open(sys.argv[1], os.O_RDWR)
data = bytes.fromhex(sys.argv[2])
r = random.Random(3)
print("ready", flush=True)
while True:
    for _ in range(50):
        os.pwrite(fd, r.randbytes(4), r.randrange(len(data)))
        os.pwrite(fd, r.choice([b"\\0\\0\\0\\0", b"\\1\\0\\0\\0", b"\\xff" * 4]), r.randrange(0, len(data) - 4, 4))
    os.pwrite(fd, data, 0)
"""


def test_strings_that_another_process_keeps_writing(server: Server) -> None:
    """200 or 400, whatever it writes: what is checked is what is used."""
    data = bytes_form.pack([b"abcd" * 5] * 40)
    with shared_object(SIZE) as memory:
        memory.write(0, data)
        assert register(server, "wild", memory.key, SIZE).status == 200
        command = [sys.executable, "-c", WRITER, str(memory.path), data.hex()]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert writer.stdout is not None
        try:
            writer.stdout.readline()
            found: list[Answer] = []
            body = {
                "inputs": [tensor("BYTES", [4, 10], place("wild", len(data)))],
                "outputs": [{"name": "y", "parameters": place("wild", SIZE - 4096, 4096)}],
            }
            hammer(server, body, "text", 400, found)
        finally:
            writer.kill()
            writer.wait()
            writer.stdout.close()
        for answer in found:
            assert answer.status in (200, 400), answer
        assert {answer.status for answer in found} == {200, 400}
        assert not [name for name in os.listdir(FOLDER) if name.startswith("headrace-test") and name != memory.key[1:]]
