"""Programs of the system that tests run beside the server; a machine without one skips the test and says so."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

#: Program -> Debian package.
PACKAGES = {"curl": "curl", "h2load": "nghttp2-client", "nginx": "nginx-light", "haproxy": "haproxy"}


def program(name: str) -> str:
    """Path of a program; skips the test where it is not installed."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed; on Debian: apt-get install {PACKAGES[name]}")
    return found


def run(command: Sequence[str | Path], timeout_s: float = 60) -> bytes:
    """What it prints; fails with all that it printed when its exit code is not 0."""
    line = list(map(str, command))
    done = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=timeout_s)
    assert done.returncode == 0, f"{line}\n{done.stdout!r}\n{done.stderr.decode(errors='replace')}"
    return done.stdout
