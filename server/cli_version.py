"""`headrace version`, `headrace --version -v`: what this build is, for people and, with --json, for programs."""

from __future__ import annotations

import json
import os
import platform
import sys

from server.build_info import build_info, is_executable
from server.cli_parser import Parser


def run(arguments: list[str]) -> int:
    parser = Parser("version", "Prints the version.")
    parser.add_argument("-v", "--verbose", action="store_true", help="everything about the build")
    parser.add_argument("--json", action="store_true", help="as one JSON object")
    options = parser.parse(arguments)
    info = full_info() if options.verbose else {"version": build_info()["version"]}
    if options.json:
        sys.stdout.write(json.dumps(info) + "\n")
        return os.EX_OK
    sys.stdout.write(f"headrace {info.pop('version')}\n")
    for key, value in info.items():
        sys.stdout.write(f"  {key:<12} {value}\n")
    return os.EX_OK


def full_info() -> dict[str, str]:
    """The build's record, and the interpreter and libraries that run it."""
    info = build_info()
    for package in ("onnxruntime", "onnxruntime-gpu", "uvloop", "numpy"):
        version = package_version(package)
        if version is not None:
            info[package] = version
    info["runtime"] = f"Python {platform.python_version()}, {platform.system()} {platform.release()}"
    info["executable"] = "one file" if is_executable() else sys.prefix
    return info


def package_version(package: str) -> str | None:
    """Version of an installed package from its metadata, without importing it."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None
