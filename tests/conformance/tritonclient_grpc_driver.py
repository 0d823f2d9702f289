"""Runs NVIDIA's gRPC client: a script for the interpreter of .venvs/tritonclient, nothing of the server is imported.

    python tritonclient_grpc_driver.py FOLDER

Jobs, requests and results are those of tritonclient_driver.py, with these values of "infer":
    sync, async, aio     infer, async_infer (all handed over at once), infer of the asyncio client (all at once)
    stream, aio_stream   start_stream and async_stream_infer, stream_infer; options of the stream as "client"; a reply
                         of the status "stream" came as an error within the stream
    typed                a message with the elements in typed contents, sent by the client's stub
    cancel               async_infer, each call cancelled at once
and with {"call": ..., "aio": true} for the asyncio client. Replies of a call are messages as JSON.
"""

import asyncio
import contextlib
import queue

import grpc
import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as aio
from google.protobuf import json_format
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException, deserialize_bytes_tensor
from tritonclient_job import ClientJob, main

#: Datatype -> (field of InferTensorContents, its number, dtype of the packed elements); None: a varint each.
CONTENTS = {
    "BOOL": ("bool_contents", 1, None),
    "INT8": ("int_contents", 2, None),
    "INT16": ("int_contents", 2, None),
    "INT32": ("int_contents", 2, None),
    "INT64": ("int64_contents", 3, None),
    "UINT8": ("uint_contents", 4, None),
    "UINT16": ("uint_contents", 4, None),
    "UINT32": ("uint_contents", 4, None),
    "UINT64": ("uint64_contents", 5, None),
    "FP32": ("fp32_contents", 6, np.float32),
    "FP64": ("fp64_contents", 7, np.float64),
    "BYTES": ("bytes_contents", 8, None),
}
TIMEOUT_S = 30


class Job(ClientJob):
    def result_of(self, step):
        if "call" in step:
            return asyncio.run(self.call_aio(step)) if step["arguments"].get("aio") else self.call(step)
        if step["infer"].startswith("aio"):
            return {"replies": asyncio.run(getattr(self, step["infer"])(step))}
        with triton.InferenceServerClient(self.url) as client:
            return {"replies": getattr(self, step["infer"])(client, step)}

    # -- calls

    def call(self, step):
        with triton.InferenceServerClient(self.url) as client:
            try:
                return {"value": document(getattr(client, step["call"])(**step["arguments"]))}
            except InferenceServerException as error:
                return failure(error)

    async def call_aio(self, step):
        arguments = {name: value for name, value in step["arguments"].items() if name != "aio"}
        async with aio.InferenceServerClient(self.url) as client:
            try:
                return {"value": document(await getattr(client, step["call"])(**arguments))}
            except InferenceServerException as error:
                return failure(error)

    # -- inference

    def sync(self, client, step):
        return [self.take(lambda one=one: client.infer(**self.arguments(one))) for one in step["requests"]]

    def async_(self, client, step):
        ends = [queue.SimpleQueue() for _ in step["requests"]]
        for one, end in zip(step["requests"], ends, strict=True):
            client.async_infer(**self.arguments(one), callback=lambda result, error, end=end: end.put((result, error)))
        return [self.take(lambda end=end: given(*end.get(timeout=TIMEOUT_S))) for end in ends]

    def cancel(self, client, step):
        ends = [queue.SimpleQueue() for _ in step["requests"]]
        for one, end in zip(step["requests"], ends, strict=True):
            call = client.async_infer(
                **self.arguments(one), callback=lambda result, error, end=end: end.put((result, error))
            )
            call.cancel()
        return [self.take(lambda end=end: given(*end.get(timeout=TIMEOUT_S))) for end in ends]

    async def aio(self, step):
        async with aio.InferenceServerClient(self.url) as client:
            waiting = [client.infer(**self.arguments(one)) for one in step["requests"]]
            answers = await asyncio.gather(*waiting, return_exceptions=True)
        return [self.take(lambda one=one: given(one, None)) for one in answers]

    def stream(self, client, step):
        """Ends early when the stream has broken; one with a time limit is left open until that is over."""
        came = queue.SimpleQueue()
        client.start_stream(lambda result, error: came.put((result, error)), **step["client"])
        with contextlib.suppress(InferenceServerException):  # a stream that broke takes no more; the callback says why
            for one in step["requests"]:
                client.async_stream_infer(**self.arguments(one))
        replies = []
        while len(replies) < len(step["requests"]) or "stream_timeout" in step["client"]:
            replies.append(self.take(lambda: given(*came.get(timeout=TIMEOUT_S))))
            if replies[-1].get("status", "stream") != "stream":
                break
        client.stop_stream()
        while not came.empty():
            replies.append(self.take(lambda: given(*came.get())))
        return replies

    async def aio_stream(self, step):
        async def requests():
            for one in step["requests"]:
                yield self.arguments(one)

        replies = []
        async with aio.InferenceServerClient(self.url) as client:
            try:
                async for result, error in client.stream_infer(requests(), **step["client"]):
                    replies.append(self.take(lambda result=result, error=error: given(result, error)))
            except grpc.aio.AioRpcError as error:
                replies.append({"error": error.details(), "status": str(error.code())})
        return replies

    def typed(self, client, step):
        return [self.take(lambda one=one: self.ask(client, self.typed_message(one))) for one in step["requests"]]

    def ask(self, client, message):
        try:
            return triton.InferResult(client._client_stub.ModelInfer(message, timeout=TIMEOUT_S))
        except grpc.RpcError as error:
            raise InferenceServerException(error.details(), str(error.code())) from None

    def typed_message(self, request):
        message = service_pb2.ModelInferRequest(model_name=request["model"], **request["options"])
        for one in request["inputs"]:
            array = self.arrays[one["array"]]
            tensor = message.inputs.add(name=one["name"], datatype=one["datatype"], shape=one["shape"])
            field, number, dtype = CONTENTS[one["datatype"]]
            if dtype is not None:
                # As bytes: Python's numbers do not keep the payloads of NaNs.
                tensor.contents.MergeFromString(bytes([number << 3 | 2]) + varint(array.nbytes) + array.tobytes())
                assert len(getattr(tensor.contents, field)) == array.size
            elif one["datatype"] == "BYTES":
                tensor.contents.bytes_contents.extend(deserialize_bytes_tensor(array.tobytes()).ravel().tolist())
            else:
                getattr(tensor.contents, field).extend(array.ravel().tolist())
        for one in request.get("outputs") or []:
            message.outputs.add(name=one["name"])
        return message

    def arguments(self, request):
        outputs = request.get("outputs")
        if outputs is not None:
            outputs = [triton.InferRequestedOutput(one["name"], request.get("classes", 0)) for one in outputs]
        inputs = [self.input(triton, one) for one in request["inputs"]]
        return {"model_name": request["model"], "inputs": inputs, "outputs": outputs, **request.get("options", {})}

    def take(self, ask):
        try:
            result = ask()
        except InferenceServerException as error:
            return failure(error)
        message = result.get_response()
        response = json_format.MessageToDict(message, preserving_proto_field_name=True)
        response.pop("raw_output_contents", None)
        response["outputs"] = []
        keys = {}
        for output in message.outputs:
            assert output.contents.ByteSize() == 0, "expected raw contents"
            array = result.as_numpy(output.name)
            shape = list(output.shape)
            response["outputs"].append({"name": output.name, "datatype": output.datatype, "shape": shape})
            keys[output.name] = self.keep(output.datatype, array)
        return {"response": response, "outputs": keys}


setattr(Job, "async", Job.async_)


def varint(value):
    made = bytearray()
    while value > 127:
        made.append(value & 127 | 128)
        value >>= 7
    return bytes([*made, value])


def document(value):
    return (
        value
        if value is None or isinstance(value, bool)
        else json_format.MessageToDict(
            value, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
    )


def given(result, error):
    if isinstance(result, BaseException):
        error = result
    if error is not None:
        raise error
    return result


def failure(error):
    return {"error": error.message(), "status": error.status() or "stream"}


if __name__ == "__main__":
    main(Job)
