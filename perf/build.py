"""Builds the C programs of the harness (floors and load clients) with gcc -O2 into build/perf."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "build" / "perf"
SOURCES = {
    "http_floor": ROOT / "perf" / "floors" / "http_floor.c",
    "h2_floor": ROOT / "perf" / "floors" / "h2_floor.c",
    "float_floor": ROOT / "perf" / "floors" / "float_floor.cpp",
    "http_load": ROOT / "perf" / "load" / "http_load.c",
    "h2_load": ROOT / "perf" / "load" / "h2_load.c",
    "open_loop": ROOT / "perf" / "load" / "open_loop.c",
}
LIBRARIES = {
    "h2_floor": ("-lnghttp2",),
    "http_load": ("-lm",),
    "h2_load": ("-lnghttp2", "-lm"),
    "open_loop": ("-lm",),
}
FLAGS = ("-O2", "-Wall", "-Wextra", "-Werror")
#: Compiler and language by the source's suffix.
COMPILERS = {".c": ("gcc", "-std=gnu11"), ".cpp": ("g++", "-std=c++17")}


def program(name: str) -> Path:
    """Path of a built program; builds it if its source or a header beside that is newer."""
    source, target = SOURCES[name], OUTPUT / name
    newest = max(
        path.stat().st_mtime for path in (source, *source.parent.glob("*.h"), *source.parent.parent.glob("*.h"))
    )
    if not target.exists() or target.stat().st_mtime < newest:
        OUTPUT.mkdir(parents=True, exist_ok=True)
        command = [*COMPILERS[source.suffix], *FLAGS, "-o", str(target), str(source), *LIBRARIES.get(name, ())]
        subprocess.run(command, check=True)
    return target


def compiler() -> str:
    version = subprocess.run(["gcc", "--version"], capture_output=True, text=True, check=True).stdout
    return f"{version.splitlines()[0]}, {' '.join(FLAGS)}"
