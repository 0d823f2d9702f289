"""`headrace serve`: reads the settings and hands over to the supervisor."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from server import config
from server.cli_parser import Parser


def run(arguments: list[str]) -> int:
    settings = read(arguments, os.environ)
    from server.supervisor.process import run as supervise

    return supervise(settings)


def read(arguments: list[str], environ: Mapping[str, str]) -> config.ServeConfig:
    """The settings that these arguments and variables ask for."""
    options = vars(parser().parse(arguments))
    path = options.pop("path")
    for name, near in config.misspelt(environ):
        sys.stderr.write(f"headrace: warning: {name} is not a setting; did you mean {near}?\n")
    return config.load(options, path=path, environ=environ, on_terminal=sys.stderr.isatty())


def parser() -> Parser:
    """One flag for each of config.OPTIONS."""
    result = Parser(
        "serve",
        "Serves ONNX models over HTTP. Every option is also an environment variable; the option wins.",
        [
            "headrace serve",
            "headrace serve model.onnx --http-port 0",
            "headrace serve repository/ --host 0.0.0.0 --max-queue-delay-us 500",
        ],
    )
    result.add_argument(
        "path",
        metavar="PATH",
        nargs="?",
        type=Path,
        help="NAME.onnx, a directory with model.onnx, or a tree NAME/VERSION/model.onnx (default: the demo model)",
    )
    groups: dict[str, argparse._ArgumentGroup] = {}
    for option in config.OPTIONS:
        if option.group not in groups:
            groups[option.group] = result.add_argument_group(option.group)
        default = option.shown_default or option.default
        groups[option.group].add_argument(
            option.flag,
            dest=option.name,
            metavar=option.metavar,
            type=_typed(option.parse),
            help=f"{option.help} (default: {default}) [{option.variable}]".replace("%", "%%"),
        )
    return result


def _typed(parse: Callable[[str], config.Value]) -> Callable[[str], config.Value]:
    """argparse shows the text of its own error class only."""

    def typed(text: str) -> config.Value:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return typed
