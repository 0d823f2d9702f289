"""What the scripts that run NVIDIA's clients have in common: the files of a job and the forms of arrays in them.

Imported by tritonclient_driver.py, where the format is described, and tritonclient_grpc_driver.py, in the interpreter
of .venvs/tritonclient; nothing of the server is imported.
"""

import json
import struct
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
from tritonclient.utils import deserialize_bytes_tensor


class ClientJob:
    """A job's steps and arrays. result_of(step) is the driver's."""

    def __init__(self, folder):
        self.folder = folder
        description = json.loads((folder / "job.json").read_text())
        self.url = description["url"]
        self.steps = description["steps"]
        with np.load(folder / "inputs.npz") as stored:
            self.arrays = dict(stored)
        self.outputs = {}

    def run(self):
        results = [self.result_of(step) for step in self.steps]
        (self.folder / "results.json").write_text(json.dumps(results))
        np.savez(self.folder / "outputs.npz", **self.outputs)

    def result_of(self, step):
        raise NotImplementedError

    def input(self, module, one, **options):
        """An InferInput; options: of set_data_from_numpy."""
        array = self.arrays[one["array"]]
        if one["datatype"] == "BF16":
            array = array.view(ml_dtypes.bfloat16)
        if one["datatype"] == "BYTES":
            array = deserialize_bytes_tensor(array.tobytes()).reshape(one["shape"])
        made = module.InferInput(one["name"], list(array.shape), one["datatype"])
        return made.set_data_from_numpy(array, **options)

    def keep(self, datatype, array):
        """The key under which an output stands in outputs.npz."""
        key = f"output{len(self.outputs)}"
        if datatype == "BF16":
            array = array.view(np.uint16)
        if datatype == "BYTES":
            array = np.frombuffer(b"".join(element(one) for one in array.ravel()), np.uint8)
        self.outputs[key] = array
        return key


def element(one):
    """A length and the bytes; the HTTP client makes text of what came as JSON."""
    raw = one.encode() if isinstance(one, str) else bytes(one)
    return struct.pack("<I", len(raw)) + raw


def main(job_class):
    job_class(Path(sys.argv[1])).run()
