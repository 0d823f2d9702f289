"""Runs KServe's SDK, kserve, a script for the interpreter of .venvs/kserve.

    python kserve_driver.py FOLDER

FOLDER/job.json: {"rest": "host:port", "grpc": "host:port"}; FOLDER/inputs.npz: the inputs of the model `types`, which
answers NAME_out for each. All three clients of the SDK ask: InferenceRESTClient with protocol v1 and v2, and
InferenceGRPCClient. What they say goes to FOLDER/results.json, the arrays to FOLDER/outputs.npz as FORM/NAME.
Nothing of ours is imported.
"""

import asyncio
import json
import logging
import sys
from pathlib import Path

import grpc
import httpx
import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput
from kserve.utils.numpy_codec import from_np_dtype

#: The SDK prints the traceback of whatever it raises.
logging.disable(logging.CRITICAL)
LINES = {"instances": [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]}


def request(arrays, binary, **options):
    inputs = []
    for name, array in arrays.items():
        made = InferInput(name, list(array.shape), from_np_dtype(array.dtype))
        made.set_data_from_numpy(array, binary_data=binary)
        inputs.append(made)
    return InferRequest(model_name="types", infer_inputs=inputs, **options)


async def ask(call, *arguments, **named):
    """The result, or the exception's class and text."""
    try:
        return await call(*arguments, **named)
    except httpx.HTTPStatusError as error:
        return [error.response.status_code, str(error).partition(", '")[0]]
    except grpc.aio.AioRpcError as error:
        return [error.code().name, error.details()]


class Run:
    def __init__(self, folder):
        job = json.loads((folder / "job.json").read_text())
        self.base = f"http://{job['rest']}"
        self.grpc_address = job["grpc"]
        with np.load(folder / "inputs.npz", allow_pickle=True) as stored:
            self.arrays = dict(stored)
        self.outputs = {}

    def keep(self, form, response):
        """Puts a response's arrays away and returns the rest of it."""
        for output in response.outputs:
            self.outputs[f"{form}/{output.name}"] = output.as_numpy()
        return {
            "model": response.model_name,
            "version": response.model_version,
            "id": response.id,
            "datatypes": {output.name: output.datatype for output in response.outputs},
        }

    async def v1(self):
        async with InferenceRESTClient(RESTConfig(protocol="v1")) as client:
            return {
                "live": await ask(client.is_server_live, self.base),
                "ready": await ask(client.is_model_ready, self.base, "mnist"),
                "unknown": await ask(client.is_model_ready, self.base, "none"),
                "infer": await ask(client.infer, self.base, LINES, model_name="mnist"),
                "explain": await ask(client.explain, self.base, "mnist", LINES),
                "refused": await ask(client.infer, self.base, {"instances": [["a"]]}, model_name="mnist"),
            }

    async def v2(self):
        async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
            one = {"int64": self.arrays["int64"]}
            found = {
                "live": await ask(client.is_server_live, self.base),
                "ready": await ask(client.is_server_ready, self.base),
                "model": await ask(client.is_model_ready, self.base, "types"),
                "unknown": await ask(client.is_model_ready, self.base, "none"),
                "refused": await ask(client.infer, self.base, request(one, True), model_name="types"),
            }
            forms = {
                "json": self.mixed(),
                "binary": request(self.arrays, True, parameters={"binary_data_output": True}, request_id="seven"),
            }
            for form, made in forms.items():
                response = await client.infer(self.base, made, model_name="types")
                found[form] = self.keep(form, response)
            chosen = [RequestedOutput("int64_out", {"binary_data": True}), RequestedOutput("bytes_out")]
            response = await client.infer(
                self.base, request(self.arrays, True, request_outputs=chosen), model_name="types"
            )
            found["chosen"] = self.keep("chosen", response)
            return found

    def mixed(self):
        """As JSON what the SDK sends as JSON, all but FP16."""
        made = request(self.arrays, False)
        for one in made.inputs:
            if one.datatype == "FP16":
                one.set_data_from_numpy(self.arrays[one.name], binary_data=True)
        return made

    async def grpc(self):
        async with InferenceGRPCClient(self.grpc_address) as client:
            found = {
                "live": await ask(client.is_server_live),
                "ready": await ask(client.is_server_ready),
                "model": await ask(client.is_model_ready, "types"),
                "unknown": await ask(client.is_model_ready, "none"),
                "refused": await ask(client.infer, request({"int64": self.arrays["int64"]}, True)),
            }
            response = await client.infer(request(self.arrays, True, request_id="eight"), headers=(("x-a", "b"),))
            found["raw"] = self.keep("raw", response)
            # Typed contents have no field for FP16, and a request is raw or typed as a whole.
            typed = request({name: array for name, array in self.arrays.items() if array.dtype != np.float16}, False)
            typed.model_name = "typed"
            found["typed"] = self.keep("typed", await client.infer(typed))
            return found


async def main(folder):
    run = Run(folder)
    results = {"v1": await run.v1(), "v2": await run.v2(), "grpc": await run.grpc()}
    (folder / "results.json").write_text(json.dumps(results))
    np.savez(folder / "outputs.npz", **run.outputs)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
