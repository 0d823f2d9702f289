"""What this build was made from, for `headrace version`, `--version -v` and the results of `make perf`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from server import __version__

#: Written by the build (tools/build_info.py); part of the executable.
RECORD = Path(__file__).with_name("_build.json")


def is_executable() -> bool:
    """Whether this is the one executable (or directory): no package can be added to it."""
    return bool(getattr(sys, "frozen", False))


def build_info(record: Path = RECORD) -> dict[str, str]:
    """Version, git revision, build variant, compiler, Cython, Python and machine, in that order.

    Where nothing was built (or the record cannot be read) there is the version alone, with revision and variant
    'unknown'.
    """
    info = {"version": __version__, "revision": "unknown", "variant": "unknown"}
    try:
        stored = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return info
    if isinstance(stored, dict):
        info |= {str(key): str(value) for key, value in stored.items()}
    return info
