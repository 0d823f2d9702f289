"""`headrace load` and `headrace unload`: change which models a running server serves, and wait until it is so."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from server.cli_client import Client, add_server_options
from server.cli_parser import CommandError, Parser
from server.log import escape

#: Loading takes as long as a model takes to load, warm-up and golden checks included.
LOAD_TIMEOUT_S = 600.0
MAX_CONFIG_BYTES = 1 << 20


def load(arguments: list[str]) -> int:
    parser = Parser(
        "load",
        "Has a running server load a model, or load it anew where its files have changed, and waits for the end of it. "
        "What serves now serves on until the new version is ready. "
        "The server has to run with --model-control-mode explicit.",
        ["headrace load digits", "headrace load digits --config config.json --url unix:/run/headrace.sock"],
    )
    parser.add_argument("name", metavar="NAME", help="the model's name")
    parser.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        help="a ModelConfig in JSON in place of config.pbtxt, until the next load",
    )
    add_server_options(parser, LOAD_TIMEOUT_S)
    options = parser.parse(arguments)
    parameters = {} if options.config is None else {"config": _text_of(options.config)}
    client = Client(options.url, options.timeout)
    client.load(options.name, parameters)
    rows = [row for row in client.repository_index() if row.get("name") == options.name]
    return _report("loaded", rows, options.json)


def unload(arguments: list[str]) -> int:
    parser = Parser(
        "unload",
        "Has a running server unload a model: requests in flight are answered, new ones are not taken, and the memory "
        "goes back. The server has to run with --model-control-mode explicit.",
        ["headrace unload digits"],
    )
    parser.add_argument("name", metavar="NAME", help="the model's name")
    add_server_options(parser, LOAD_TIMEOUT_S)
    options = parser.parse(arguments)
    client = Client(options.url, options.timeout)
    client.unload(options.name)
    rows = [row for row in client.repository_index() if row.get("name") == options.name]
    return _report("unloaded", rows, options.json)


def _report(what: str, rows: list[dict[str, Any]], as_json: bool) -> int:
    if as_json:
        sys.stdout.write(json.dumps(rows) + "\n")
        return os.EX_OK
    for row in rows:
        name, version, state = (escape(str(row.get(key, ""))) for key in ("name", "version", "state"))
        sys.stdout.write(f"{what} {name} version {version}{f': {state}' if what == 'loaded' else ''}\n")
    return os.EX_OK


def _text_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CONFIG_BYTES + 1)
        text = data.decode()
        document = json.loads(text)
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}", os.EX_NOINPUT) from None
    except ValueError:
        document = None
    if not isinstance(document, dict) or len(data) > MAX_CONFIG_BYTES:
        raise CommandError(f"{path}: expected a ModelConfig as a JSON object", os.EX_DATAERR)
    return text
