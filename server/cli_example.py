"""`headrace example`: prints a client for one model that works when pasted or piped."""

from __future__ import annotations

import json
import os
import shlex
import sys
from urllib.parse import quote

from server.cli_client import DEFAULT_URL, Client
from server.cli_parser import CommandError, Parser
from server.cli_tensor import ModelInput, model_inputs
from server.demo import files
from server.supervisor.banner import Tensor, example_body

#: Longest request that is printed into a client.
MAX_BODY_CHARS = 64 * 1024

_PYTHON = '''\
"""Asks the model {name} once; standard library only."""

import json
import urllib.request

request = urllib.request.Request(
    {url!r},
    data=json.dumps({body}).encode(),
    headers={{"Content-Type": "application/json"}},
)
with urllib.request.urlopen(request, timeout=30) as response:
    for output in json.load(response)["outputs"]:
        print(output["name"], output["shape"], output["data"])
'''


def run(arguments: list[str]) -> int:
    parser = Parser(
        "example",
        "Prints a client for a model of a running server. The demo model needs no server.",
        ["headrace example digits | sh", "headrace example digits --lang python > client.py"],
    )
    parser.add_argument("name", metavar="NAME", help="the model's name")
    parser.add_argument(
        "--lang", choices=("curl", "python", "json"), default="curl", help="json is the request's body alone"
    )
    url = os.environ.get("HEADRACE_URL", DEFAULT_URL)
    parser.add_argument("--url", default=url, help=f"the server (default: {DEFAULT_URL}) [HEADRACE_URL]")
    options = parser.parse(arguments)
    client = Client(options.url, timeout_s=5.0)
    body = body_for(options.name, _inputs(client, options.name))
    target = f"{client.url}/v2/models/{quote(options.name, safe='')}/infer"
    sys.stdout.write(_client(options.lang, options.name, target, body))
    return os.EX_OK


def _inputs(client: Client, name: str) -> list[ModelInput] | None:
    """The model's inputs; None: no server there, but the model is the demo."""
    try:
        return model_inputs(client.metadata(name))
    except CommandError as error:
        if name == files.MODEL.name and error.exit_code == os.EX_UNAVAILABLE:
            return None
        raise


def body_for(name: str, inputs: list[ModelInput] | None) -> str:
    """A request's body: a real digit for the demo model, zeros of the right shape for any other."""
    demo = [ModelInput("image", "FP32", (-1, 64))]
    if inputs is None or (name == files.MODEL.name and inputs == demo):
        return files.example_request()
    tensors = [Tensor(item.name, item.dtype, item.shape) for item in inputs]
    body = example_body(tensors, MAX_BODY_CHARS)
    if body is None:
        raise CommandError(
            f"{name}: a request in JSON is too large to print; use `headrace infer {name} --random`", os.EX_DATAERR
        )
    return body


def _client(lang: str, name: str, target: str, body: str) -> str:
    if lang == "json":
        return body + "\n"
    if lang == "python":
        # The body as a Python literal: the same text but for these three words.
        literal = repr(json.loads(body))
        return _PYTHON.format(name=name, url=target, body=literal)
    return f"curl -s {shlex.quote(target)} -H 'Content-Type: application/json' -d {shlex.quote(body)}\n"
