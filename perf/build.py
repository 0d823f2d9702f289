"""Builds the C programs of the harness (floors and load client) with gcc -O2 into build/perf."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "build" / "perf"
SOURCES = {
    "http_floor": ROOT / "perf" / "floors" / "http_floor.c",
    "http_load": ROOT / "perf" / "load" / "http_load.c",
}
FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror")


def program(name: str) -> Path:
    """Path of a built program; builds it if the source is newer."""
    source, target = SOURCES[name], OUTPUT / name
    if not target.exists() or target.stat().st_mtime < source.stat().st_mtime:
        OUTPUT.mkdir(parents=True, exist_ok=True)
        subprocess.run(["gcc", *FLAGS, "-o", str(target), str(source)], check=True)
    return target


def compiler() -> str:
    version = subprocess.run(["gcc", "--version"], capture_output=True, text=True, check=True).stdout
    return f"{version.splitlines()[0]}, {' '.join(FLAGS)}"
