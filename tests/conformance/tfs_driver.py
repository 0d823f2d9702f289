"""Runs TensorFlow Serving's client, tensorflow-serving-api, a script for the interpreter of .venvs/tfsclient.

    python tfs_driver.py FOLDER

FOLDER/job.json: {"url", "protos", "steps": [step, ...]}; FOLDER/inputs.npz: the arrays that steps name. A step is
    {"call": "GetModelStatus", "request": the message as JSON}    -> {"value": the reply as JSON}
    {"raw": path, "bytes": hexadecimal}                           -> {"bytes": hexadecimal}
    {"predict": [request, ...], "at_once": bool, "compression": 0 | 1 | 2}  -> {"replies": [reply, ...]}
    {"cancel": [request, ...]}: sent and cancelled at once        -> {"cancelled": how many}
and what the server refuses is {"code": "NOT_FOUND", "text"}. A request is {"model_spec": as JSON, "inputs": {name:
{"dtype": number, "array", "form"}}, "output_filter", "timeout_s"}, a reply {"model_spec", "outputs": {name: {"dtype",
"array", "form"}}}; arrays of BF16 are uint16 bits. Forms: "content", "values", "single" (one value for all elements)
and "tensorflow", what tf.make_tensor_proto makes: tensor_content for more than one element, else the field of the
datatype. Results go to FOLDER/results.json and FOLDER/outputs.npz. Nothing of ours is imported.
"""

import json
import sys
import types
from pathlib import Path

import grpc
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, json_format

#: DataType -> (field of the elements, dtype of arrays)
FIELDS = {
    1: ("float_val", np.float32),
    2: ("double_val", np.float64),
    3: ("int_val", np.int32),
    4: ("int_val", np.uint8),
    5: ("int_val", np.int16),
    6: ("int_val", np.int8),
    9: ("int64_val", np.int64),
    10: ("bool_val", np.bool_),
    14: ("half_val", np.uint16),
    17: ("int_val", np.uint16),
    19: ("half_val", np.float16),
    22: ("uint32_val", np.uint32),
    23: ("uint64_val", np.uint64),
}
CODES = (
    "OK CANCELLED UNKNOWN INVALID_ARGUMENT DEADLINE_EXCEEDED NOT_FOUND ALREADY_EXISTS PERMISSION_DENIED "
    "RESOURCE_EXHAUSTED FAILED_PRECONDITION ABORTED OUT_OF_RANGE UNIMPLEMENTED INTERNAL UNAVAILABLE DATA_LOSS "
    "UNAUTHENTICATED"
)


def find_tensorflow(folder):
    """TensorFlow's messages without TensorFlow: tensorflow-protobuf, but its error codes, which another version has."""
    sys.path.append(folder)
    file = descriptor_pb2.FileDescriptorProto(
        name="tensorflow/core/protobuf/error_codes.proto", package="tensorflow.error", syntax="proto3"
    )
    codes = file.enum_type.add(name="Code")
    for number, name in enumerate(CODES.split()):
        codes.value.add(name=name, number=number)
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
    module = types.ModuleType("tensorflow.core.protobuf.error_codes_pb2")
    module.xla_dot_tsl_dot_protobuf_dot_error__codes__pb2 = None
    sys.modules[module.__name__] = module


def make_tensor(api, described, arrays):
    """A TensorProto."""
    array = arrays[described["array"]]
    proto = api.TensorProto(dtype=described["dtype"])
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    field, dtype = FIELDS[described["dtype"]]
    assert array.dtype == dtype, (array.dtype, dtype)
    form = described["form"]
    if form == "tensorflow":
        form = "content" if array.size > 1 else "values"
    if form == "content":
        proto.tensor_content = array.tobytes()
        return proto
    values = array.reshape(-1)[: 1 if form == "single" else None]
    getattr(proto, field).extend((values.view(np.uint16) if field == "half_val" else values).tolist())
    return proto


def read_tensor(proto):
    """The array, and the form that it came in."""
    field, dtype = FIELDS[proto.dtype]
    shape = [dim.size for dim in proto.tensor_shape.dim]
    if proto.tensor_content:
        return np.frombuffer(proto.tensor_content, dtype).reshape(shape), "content"
    values = np.array(getattr(proto, field), np.uint16 if field == "half_val" else dtype)
    return values.view(dtype).reshape(shape), "values"


class Api:
    """The client's modules, which need TensorFlow's."""

    def __init__(self):
        from tensorflow.core.framework.tensor_pb2 import TensorProto
        from tensorflow_serving.apis import (
            get_model_metadata_pb2,
            model_service_pb2_grpc,
            predict_pb2,
            prediction_service_pb2_grpc,
        )

        self.TensorProto = TensorProto
        self.PredictRequest = predict_pb2.PredictRequest
        self.SignatureDefMap = get_model_metadata_pb2.SignatureDefMap
        self.PredictionServiceStub = prediction_service_pb2_grpc.PredictionServiceStub
        self.ModelServiceStub = model_service_pb2_grpc.ModelServiceStub

    def request_class(self, method):
        """The message that a method takes."""
        from tensorflow_serving.apis import model_service_pb2, prediction_service_pb2

        for module, name in ((prediction_service_pb2, "PredictionService"), (model_service_pb2, "ModelService")):
            service = module.DESCRIPTOR.services_by_name[name]
            if method in service.methods_by_name:
                return service.methods_by_name[method].input_type._concrete_class
        raise ValueError(f"no method {method}")


class Job:
    def __init__(self, folder):
        self.folder = folder
        description = json.loads((folder / "job.json").read_text())
        find_tensorflow(description["protos"])
        self.api = Api()
        self.url = description["url"]
        self.steps = description["steps"]
        with np.load(folder / "inputs.npz") as stored:
            self.arrays = dict(stored)
        self.outputs = {}

    def run(self):
        # Connections of their own, so that several workers get some.
        options = [("grpc.use_local_subchannel_pool", 1)]
        self.channels = [grpc.insecure_channel(self.url, options) for _ in range(4)]
        results = []
        for step in self.steps:
            (kind,) = {"call", "raw", "predict", "cancel"} & set(step)
            results.append(getattr(self, kind)(step))
        (self.folder / "results.json").write_text(json.dumps(results))
        np.savez(self.folder / "outputs.npz", **self.outputs)
        for channel in self.channels:
            channel.close()

    def call(self, step):
        method = step["call"]
        request = json_format.ParseDict(step["request"], self.api.request_class(method)())
        stub = self.api.PredictionServiceStub(self.channels[0])
        if not hasattr(stub, method):
            stub = self.api.ModelServiceStub(self.channels[0])
        try:
            reply = getattr(stub, method)(request, 10.0)
        except grpc.RpcError as error:
            return failure(error)
        if method == "GetModelMetadata":
            signatures = self.api.SignatureDefMap()
            assert reply.metadata["signature_def"].Unpack(signatures)
            reply.metadata["signature_def"].Pack(signatures)
        return {"value": json_format.MessageToDict(reply, preserving_proto_field_name=True)}

    def raw(self, step):
        ask = self.channels[0].unary_unary(step["raw"])
        try:
            return {"bytes": ask(bytes.fromhex(step["bytes"]), timeout=10.0).hex()}
        except grpc.RpcError as error:
            return failure(error)

    def predict(self, step):
        compression = grpc.Compression(step.get("compression", 0))
        calls = []
        for at, described in enumerate(step["predict"]):
            stub = self.api.PredictionServiceStub(self.channels[at % len(self.channels)])
            request, timeout_s = self.request(described), described["timeout_s"]
            calls.append(stub.Predict.future(request, timeout_s, compression=compression))
            if not step.get("at_once"):
                calls[-1].exception()  # waits
        return {"replies": [self.take(call) for call in calls]}

    def cancel(self, step):
        stub = self.api.PredictionServiceStub(self.channels[0])
        calls = []
        for described in step["cancel"]:
            calls.append(stub.Predict.future(self.request(described), described["timeout_s"]))
        for call in calls:
            call.cancel()
        return {"cancelled": sum(call.cancelled() for call in calls)}

    def request(self, described):
        request = self.api.PredictRequest(output_filter=described["output_filter"])
        json_format.ParseDict(described["model_spec"], request.model_spec)
        for name, tensor in described["inputs"].items():
            request.inputs[name].CopyFrom(make_tensor(self.api, tensor, self.arrays))
        return request

    def take(self, call):
        try:
            reply = call.result()
        except grpc.RpcError as error:
            return failure(error)
        outputs = {}
        for name, proto in reply.outputs.items():
            key = f"output{len(self.outputs)}"
            self.outputs[key], form = read_tensor(proto)
            outputs[name] = {"dtype": proto.dtype, "array": key, "form": form}
        return {"model_spec": json_format.MessageToDict(reply.model_spec), "outputs": outputs}


def failure(error):
    return {"code": error.code().name, "text": error.details()}


if __name__ == "__main__":
    Job(Path(sys.argv[1])).run()
