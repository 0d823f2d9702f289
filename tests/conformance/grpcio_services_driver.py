"""Asks a server with grpcio's own packages for reflection, health and status: a script for .venvs/grpcio.

    python grpcio_services_driver.py ADDRESS SCENARIO    prints the scenario's result as JSON

`watch` prints a JSON line for each health status that comes, and at the end how each stream ended.
"""

import asyncio
import json
import sys
import threading

import grpc
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status

TIMEOUT_S = 10
NO_PROXY = ("grpc.enable_http_proxy", 0)
MIB = 1 << 20


def failure(error):
    return [error.code().name, error.details()]


def outcome(ask, *arguments, **named):
    """What came back, or code and text."""
    try:
        return ask(*arguments, timeout=TIMEOUT_S, **named)
    except grpc.RpcError as error:
        # What grpcio-status reads from a refusal; the server sends no details.
        assert rpc_status.from_call(error) is None
        return failure(error)


# -- reflection


def caller(channel, pool, service, method):
    """A method by its descriptors alone."""
    found = pool.FindServiceByName(service).FindMethodByName(method)
    request = message_factory.GetMessageClass(found.input_type)
    reply = message_factory.GetMessageClass(found.output_type)
    path = f"/{service}/{method}"
    ask = channel.unary_unary(
        path, request_serializer=request.SerializeToString, response_deserializer=reply.FromString
    )
    return request, ask


def reflection(channel):
    """Through the package's database: what there is, what it looks like, and calls made with what was found."""
    database = ProtoReflectionDescriptorDatabase(channel)
    pool = descriptor_pool.DescriptorPool(database)
    services = list(database.get_services())
    methods = {name: sorted(one.name for one in pool.FindServiceByName(name).methods) for name in services}
    asked = pool.FindMessageTypeByName("inference.ModelInferRequest")
    fields = {field.name: field.number for field in asked.fields}
    make, ready = caller(channel, pool, "inference.GRPCInferenceService", "ModelReady")
    is_ready = ready(make(name="bytes"), timeout=TIMEOUT_S).ready
    make, infer = caller(channel, pool, "inference.GRPCInferenceService", "ModelInfer")
    request = make(model_name="bytes", raw_input_contents=[b"reflected"])
    request.inputs.add(name="x", datatype="UINT8", shape=[1, 9])
    inferred = infer(request, timeout=TIMEOUT_S).raw_output_contents[0].decode()
    make, status = caller(channel, pool, "tensorflow.serving.ModelService", "GetModelStatus")
    request = make()
    request.model_spec.name = "bytes"
    state = json_format.MessageToDict(status(request, timeout=TIMEOUT_S), descriptor_pool=pool)
    return {"methods": methods, "fields": fields, "ready": is_ready, "inferred": inferred, "state": state}


def reflection_versions(channel):
    """Both versions of the service answer the same questions alike, and say what they do not know."""
    ask = reflection_pb2.ServerReflectionRequest
    questions = [
        ask(list_services=""),
        ask(file_by_filename="grpc/health/v1/health.proto"),
        ask(file_containing_symbol="inference.GRPCInferenceService.ModelInfer"),
        ask(file_containing_symbol="tensorflow.TensorProto"),
        ask(file_containing_symbol="no.such.Symbol"),
        ask(file_by_filename="nothing.proto"),
    ]
    found = {}
    for version in ("v1", "v1alpha"):
        method = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=ask.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        found[version] = [json_format.MessageToDict(reply) for reply in method(iter(questions), timeout=TIMEOUT_S)]
    return found


# -- health


SERVICES = ("", "bytes", "inference.GRPCInferenceService", "nobody")


def status_name(reply):
    return health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)


def health(channel):
    stub = health_pb2_grpc.HealthStub(channel)
    checks, watches = {}, {}
    for name in SERVICES:
        answer = outcome(stub.Check, health_pb2.HealthCheckRequest(service=name))
        checks[name] = answer[0] if isinstance(answer, list) else status_name(answer)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=name), timeout=TIMEOUT_S)
        watches[name] = status_name(next(watch))
        watch.cancel()
    return {"checks": checks, "watches": watches}


def health_aio(address):
    async def ask():
        checks, watches = {}, {}
        async with grpc.aio.insecure_channel(address, [NO_PROXY]) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            for name in SERVICES:
                try:
                    answer = await stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=TIMEOUT_S)
                    checks[name] = status_name(answer)
                except grpc.aio.AioRpcError as error:
                    checks[name] = error.code().name
                watch = stub.Watch(health_pb2.HealthCheckRequest(service=name), timeout=TIMEOUT_S)
                watches[name] = status_name(await watch.read())
                watch.cancel()
        return {"checks": checks, "watches": watches}

    return asyncio.run(ask())


def say(name, text):
    """One write, so that the lines of two threads stay apart."""
    sys.stdout.write(json.dumps([name, text]) + "\n")
    sys.stdout.flush()


def watch(channel, *, leaves=True):
    """A line for each status; goes when the server says that it serves no more, or stays until the server ends it."""
    stub = health_pb2_grpc.HealthStub(channel)
    flows = {name: stub.Watch(health_pb2.HealthCheckRequest(service=name)) for name in ("", "bytes")}

    def follow(name):
        try:
            for reply in flows[name]:
                say(name, status_name(reply))
                if leaves and not name and reply.status == health_pb2.HealthCheckResponse.NOT_SERVING:
                    for flow in flows.values():
                        flow.cancel()
        except grpc.RpcError:
            pass
        say(name, f"ended {flows[name].code().name}")

    threads = [threading.Thread(target=follow, args=[name]) for name in flows]
    for one in threads:
        one.start()
    for one in threads:
        one.join()


def watch_to_the_end(channel):
    watch(channel, leaves=False)


# -- connections and messages


def infer_message(size):
    """ModelInferRequest by hand: this client has no generated code of the service."""

    def field(number, data):
        return varint(number << 3 | 2) + varint(len(data)) + data

    tensor = field(1, b"x") + field(2, b"UINT8") + field(3, varint(1) + varint(size))
    return field(1, b"bytes") + field(5, tensor) + field(7, b"\xa5" * size)


def varint(value):
    made = bytearray()
    while value > 127:
        made.append(value & 127 | 128)
        value >>= 7
    return bytes([*made, value])


def keepalive(address):
    """Pings all the time while a call is open; the connection must stay the same one."""
    options = [
        NO_PROXY,
        ("grpc.keepalive_time_ms", 20),
        ("grpc.keepalive_timeout_ms", 5000),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    states = []
    with grpc.insecure_channel(address, options) as channel:
        channel.subscribe(lambda state: states.append(state.name))
        request = health_pb2.HealthCheckRequest()
        flow = health_pb2_grpc.HealthStub(channel).Watch(request, timeout=0.7)
        try:
            came = [status_name(reply) for reply in flow]
        except grpc.RpcError:
            came = flow.code().name
        after = status_name(health_pb2_grpc.HealthStub(channel).Check(request, timeout=TIMEOUT_S))
    return {"watch": came, "after": after, "connections": states.count("READY")}


def sizes(address):
    """The server takes 4 MiB; a client takes and sends what its own options say."""
    path = "/inference.GRPCInferenceService/ModelInfer"
    found = {}
    cases = {
        "large": ([("grpc.max_receive_message_length", -1)], 4 * MIB - 1000),
        "above the server's limit": ([("grpc.max_receive_message_length", -1)], 4 * MIB + 1000),
        "above what the client takes": ([("grpc.max_receive_message_length", 1000)], 2000),
        "above what the client sends": ([("grpc.max_send_message_length", 1000)], 2000),
    }
    for name, (options, size) in cases.items():
        with grpc.insecure_channel(address, [NO_PROXY, *options]) as channel:
            answer = outcome(channel.unary_unary(path), infer_message(size))
            after = outcome(channel.unary_unary(path), infer_message(10))
        found[name] = [answer if isinstance(answer, list) else answer.count(b"\xa5") == size, isinstance(after, bytes)]
    return found


def main():
    address, scenario = sys.argv[1:]
    if scenario in ("keepalive", "sizes", "health_aio"):
        result = globals()[scenario](address)
    else:
        with grpc.insecure_channel(address, [NO_PROXY]) as channel:
            result = globals()[scenario](channel)
    if result is not None:
        json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
