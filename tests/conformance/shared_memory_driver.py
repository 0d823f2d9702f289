"""NVIDIA's client with its own shared memory module, for the interpreter of .venvs/tritonclient; nothing of ours.

    python shared_memory_driver.py HOST:PORT

Creates, registers and destroys objects, infers with inputs and outputs in them, and prints the datatypes that came back
bit for bit. The server has models `rows` FP32 [-1, 4], `flat` INT64 [3], `flags` BOOL [-1, 4], `text` BYTES [-1, -1].
"""

import sys
import uuid

import numpy as np
import tritonclient.http as http
import tritonclient.utils.shared_memory as shm
from tritonclient.utils import InferenceServerException, serialize_byte_tensor, serialized_byte_size

CASES = [
    ("rows", "FP32", np.arange(8, dtype=np.float32).reshape(2, 4)),
    ("flat", "INT64", np.array([1, -2, 2**62], np.int64)),
    ("flags", "BOOL", np.array([[True, False, True, True]])),
    ("text", "BYTES", np.array([[b"a", b"", b"\xff\xfe"], ["é".encode(), b"x" * 100, b"0"]], object)),
]


def round_trip(client, model, datatype, array):
    key = f"/headrace-test-{uuid.uuid4().hex}"
    handle = shm.create_shared_memory_region("region", key, 4096)
    try:
        sent = serialize_byte_tensor(array) if datatype == "BYTES" else array
        shm.set_shared_memory_region(handle, [sent])
        client.register_system_shared_memory("region", key, 4096)
        assert [row["key"] for row in client.get_system_shared_memory_status()] == [key]
        try:
            client.register_system_shared_memory("region", key, 4096)
        except InferenceServerException as error:
            assert "already in manager" in str(error), error
        else:
            raise AssertionError("registered twice")
        size = serialized_byte_size(sent) if datatype == "BYTES" else array.nbytes
        given = http.InferInput("x", list(array.shape), datatype)
        given.set_shared_memory("region", size)
        wanted = http.InferRequestedOutput("y")
        wanted.set_shared_memory("region", 2048, offset=2048)
        output = client.infer(model, [given], outputs=[wanted]).get_output("y")
        assert output["parameters"]["shared_memory_region"] == "region", output
        assert output["parameters"]["shared_memory_byte_size"] == size, output
        back = shm.get_contents_as_numpy(handle, array.dtype, list(array.shape), offset=2048)
        assert back.tolist() == array.tolist(), back
        client.unregister_system_shared_memory("region")
        assert client.get_system_shared_memory_status() == []
    finally:
        shm.destroy_shared_memory_region(handle)
    return datatype


with http.InferenceServerClient(sys.argv[1]) as client:
    print(*(round_trip(client, *case) for case in CASES))
