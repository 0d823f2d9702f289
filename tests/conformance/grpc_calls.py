"""The same gRPC calls made by several projects' clients, each in a process of its own: grpcio, grpclib, grpc-js.

A job is a JSON object {"address": "host:port", "calls": [call, ...]}, and a driver prints a list of results. A call:
    path, stream     the method; whether it is a stream in both directions (else one message, one reply)
    messages         hexadecimal, sent one after the other, the next when the reply to the one before has come
    metadata         [[name, text]], or [[name-bin, hexadecimal]]
    timeout_ms       or null
    cancel           "begun": before any message, "replied": after the first reply, or null
    open             the sending side is left open: only the deadline ends the call
A result: code (gRPC's number), text, replies (hexadecimal).
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from server.protocol import messages
from tests.support import clients
from tests.support.server import Server

HERE = Path(__file__).parent
TIMEOUT_S = 60
#: Stack -> (environment, driver, further arguments).
STACKS = {
    "grpcio": ("grpcio", "grpcio_driver.py", ["sync"]),
    "grpcio-aio": ("grpcio", "grpcio_driver.py", ["aio"]),
    "grpclib": ("grpclib", "grpclib_driver.py", []),
    "grpc-js": ("grpcjs", "grpcjs_driver.js", []),
}
V2 = "/inference.GRPCInferenceService/"
REQUEST = messages.message_class("inference.ModelInferRequest")
RESPONSE = messages.message_class("inference.ModelInferResponse")
STREAM_RESPONSE = messages.message_class("inference.ModelStreamInferResponse")


class Call(NamedTuple):
    """One call; see above."""

    path: str
    messages: Sequence[bytes] = ()
    stream: bool = False
    metadata: Sequence[tuple[str, str | bytes]] = ()
    timeout_ms: int | None = 20_000
    cancel: str | None = None
    open: bool = False


class Result(NamedTuple):
    """What the client says that came back."""

    code: int
    text: str
    replies: list[bytes]


def missing(stack: str) -> str | None:
    """Why a stack cannot run on this machine."""
    if stack == "grpc-js" and not (shutil.which("node") and shutil.which("npm")):
        return "grpc-js needs node and npm, which this machine lacks"
    return None


def command(stack: str) -> list[str]:
    environment, driver, arguments = STACKS[stack]
    if driver.endswith(".js"):
        packages = str(clients.environment(environment) / "node_modules")
        return [shutil.which("node") or "node", "--throw-deprecation", str(HERE / driver), packages]
    return [clients.python(environment), "-W", "error", str(HERE / driver), *arguments]


def run(stack: str, server: Server, calls: Mapping[str, Call]) -> dict[str, Result]:
    """All calls, one after the other, on one connection."""
    described = [
        {
            **call._asdict(),
            "messages": [one.hex() for one in call.messages],
            "metadata": [[name, one.hex() if isinstance(one, bytes) else one] for name, one in call.metadata],
        }
        for call in calls.values()
    ]
    job = json.dumps({"address": f"{server.host}:{server.port}", "calls": described})
    done = subprocess.run(command(stack), input=job, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    assert done.returncode == 0, f"{stack}: {done.stdout}{done.stderr}"
    found: list[dict[str, Any]] = json.loads(done.stdout)
    results = [Result(one["code"], one["text"], [bytes.fromhex(reply) for reply in one["replies"]]) for one in found]
    return dict(zip(calls, results, strict=True))


def payload(data: bytes, model: str = "bytes") -> bytes:
    """A ModelInferRequest with one row of bytes."""
    request = REQUEST(model_name=model, raw_input_contents=[data])
    request.inputs.add(name="x", datatype="UINT8", shape=[1, len(data)])
    return bytes(request.SerializeToString())


def returned(reply: bytes, *, stream: bool = False) -> bytes:
    """The bytes of the row that came back."""
    if stream:
        answer = STREAM_RESPONSE.FromString(reply)
        assert not answer.error_message, answer.error_message
        response = answer.infer_response
    else:
        response = RESPONSE.FromString(reply)
    (output,), (raw,) = response.outputs, response.raw_output_contents
    assert (output.datatype, list(output.shape)) == ("UINT8", [1, len(raw)])
    return bytes(raw)
