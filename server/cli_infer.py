"""`headrace infer`: asks a running server once, with a file or random data, and prints the answer as a table."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from server.cli_client import Client, add_server_options
from server.cli_parser import CommandError, Parser
from server.cli_table import answer_lines
from server.cli_tensor import Pixels, model_inputs, random_request, request_from_files
from server.log import escape


def run(arguments: list[str]) -> int:
    options = parser().parse(arguments)
    if not options.file and not options.random:
        raise CommandError("expected --file FILE or --random", os.EX_USAGE)
    client = Client(options.url, options.timeout)
    inputs = model_inputs(client.metadata(options.name))
    if options.random:
        request = random_request(inputs, options.rows, options.seed)
    else:
        request = request_from_files(inputs, options.file, Pixels(options.scale, options.invert))
    body = json.dumps(request, separators=(",", ":"))
    begin_ns = time.monotonic_ns()
    answer = client.infer(options.name, body)
    took_ms = (time.monotonic_ns() - begin_ns) / 1e6
    if options.json:
        sys.stdout.write(json.dumps(answer) + "\n")
    else:
        sys.stdout.write(table(answer, took_ms, unicode=_speaks_unicode()))
    return os.EX_OK


def table(answer: dict[str, Any], took_ms: float, *, unicode: bool) -> str:
    """The answer for people: a head line, then each output."""
    version = answer.get("model_version")
    head = f"{escape(str(answer.get('model_name')))}{f' version {escape(str(version))}' if version else ''}"
    return "\n".join([f"{head}, {took_ms:.1f} ms", *answer_lines(answer, unicode=unicode)]) + "\n"


def parser() -> Parser:
    result = Parser(
        "infer",
        "Asks a running server once and prints the answer as a table.",
        [
            "headrace infer digits --file samples/7.png",
            "headrace infer digits --random --rows 4 --json",
            "headrace infer add_sub --file INPUT0=a.npy --file INPUT1=b.npy",
        ],
    )
    result.add_argument("name", metavar="NAME", help="the model's name")
    source = result.add_mutually_exclusive_group()
    source.add_argument(
        "--file",
        metavar="[INPUT=]FILE",
        action="append",
        help=".png, .npy or .json (an array, or a whole V2 request); once for each input",
    )
    source.add_argument("--random", action="store_true", help="random data of the right shape")
    result.add_argument("--rows", metavar="N", type=_whole(1), default=1, help="rows with --random (default: 1)")
    result.add_argument("--seed", metavar="N", type=_whole(0), default=0, help="of --random (default: 0)")
    result.add_argument("--scale", metavar="F", type=float, default=1.0, help="pixel 0..255 times F (default: 1)")
    result.add_argument("--invert", action="store_true", help="dark on light pictures for a light on dark model")
    add_server_options(result, 30.0)
    return result


def _whole(low: int) -> Callable[[str], int]:
    def whole_number(text: str) -> int:
        if not text.isdecimal() or int(text) < low:
            raise argparse.ArgumentTypeError(f"expected a whole number from {low}, got {text!r}")
        return int(text)

    return whole_number


def _speaks_unicode() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
