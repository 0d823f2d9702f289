"""`headrace serve`: reads the settings and hands over to the supervisor."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from server import config
from server.cli_parser import Parser
from server.option_values import Value


def run(arguments: list[str]) -> int:
    if arguments and arguments[0].partition("=")[0] == "--as":
        return _run_as(arguments)
    settings = read(arguments, os.environ)
    from server.supervisor.process import run as supervise

    return supervise(settings)


def _run_as(arguments: list[str]) -> int:
    """--as PROGRAM, or --as=PROGRAM, and that program's arguments."""
    _, has_name, name = arguments[0].partition("=")
    rest = arguments[1:] if has_name else arguments[2:]
    name = name if has_name else "".join(arguments[1:2])
    if name == "tritonserver":
        from server import cli_tritonserver as chosen
    elif name == "tensorflow_model_server":
        from server import cli_tensorflow_model_server as chosen  # type: ignore[no-redef]
    else:
        sys.stderr.write(f"headrace serve: --as: expected tritonserver or tensorflow_model_server, got {name!r}\n")
        return os.EX_USAGE
    return chosen.run(chosen.PROGRAM, rest)


def read(arguments: list[str], environ: Mapping[str, str]) -> config.ServeConfig:
    """The settings that these arguments and variables ask for."""
    reader = parser()
    options = vars(reader.parse(arguments))
    path = options.pop("path")
    if options.pop("program") is not None:
        reader.error("--as comes first, and what follows it is that program's command line")
    for name, near in config.misspelt(environ):
        sys.stderr.write(f"headrace: warning: {name} is not a setting; did you mean {near}?\n")
    return config.load(options, path=path, environ=environ, on_terminal=config.is_on_terminal())


def parser() -> Parser:
    """One flag for each of config.OPTIONS."""
    result = Parser(
        "serve",
        "Serves ONNX models over HTTP. Every option is also an environment variable; the option wins.",
        [
            "headrace serve",
            "headrace serve model.onnx --http-port 0",
            "headrace serve repository/ --host 0.0.0.0 --max-queue-delay-us 500",
            "headrace serve --as tritonserver --model-repository=repository/     # or tensorflow_model_server",
        ],
    )
    result.add_argument(
        "path",
        metavar="PATH",
        nargs="?",
        type=Path,
        help="NAME.onnx, a directory with model.onnx, or a tree NAME/VERSION/model.onnx (default: the demo model)",
    )
    result.add_argument(
        "--as",
        dest="program",
        metavar="PROGRAM",
        help="first: take the command line of tritonserver or tensorflow_model_server; see --as PROGRAM --help",
    )
    groups: dict[str, argparse._ArgumentGroup] = {}
    for option in config.OPTIONS:
        if option.group not in groups:
            groups[option.group] = result.add_argument_group(option.group)
        _add(groups[option.group], option)
    return result


class _Extend(argparse.Action):
    """A list's flag may come several times: its values add up."""

    def __call__(
        self, parser: object, namespace: argparse.Namespace, values: Any, option_string: object = None
    ) -> None:
        setattr(namespace, self.dest, (getattr(namespace, self.dest) or ()) + values)


def _add(group: argparse._ArgumentGroup, option: config.Option) -> None:
    default = option.shown_default or (
        {True: 1, False: 0}[option.default] if isinstance(option.default, bool) else option.default
    )
    text = f"{option.help} (default: {default}) [{option.variable}]".replace("%", "%%")
    if option.is_switch:
        group.add_argument(option.flag, dest=option.name, action=argparse.BooleanOptionalAction, help=text)
        return
    group.add_argument(
        option.flag,
        dest=option.name,
        metavar=option.metavar,
        type=_typed(option.parse),
        action=_Extend if option.is_list else "store",
        help=text,
    )


def _typed(parse: Callable[[str], Value]) -> Callable[[str], Value]:
    """argparse shows the text of its own error class only."""

    def typed(text: str) -> Value:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return typed
