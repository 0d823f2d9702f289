"""docs/operations.md: its commands are run in their order, and print what stands below them, but for the numbers."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from tests.support.server import executable

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "operations.md"
_BLOCK = re.compile(r"^```(sh|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MARK = "=== block "


def blocks() -> list[tuple[str, list[str]]]:
    """Each block of commands with the lines that it has to print."""
    found: list[tuple[str, list[str]]] = []
    for kind, text in _BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if kind == "sh":
            found.append((text, []))
        else:
            found[-1][1].extend(text.splitlines())
    return found


def plain(line: str) -> str:
    """A line without its numbers and its spacing."""
    return " ".join(re.sub(r"\d+(\.\d+)?", "#", line).split())


def test_the_commands_of_the_page(tmp_path: Path) -> None:
    missing = [name for name in ("bash", "curl", "pgrep", "timeout") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed")
    commands = blocks()
    assert len(commands) > 8
    (tmp_path / "server").symlink_to(ROOT / "server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # -m as in a terminal: each background job is a process group of its own.
    script = "set -meuo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n"
    for number, (text, _) in enumerate(commands):
        script += f"echo; echo '{_MARK}{number}'\n{text.replace('8000', str(port))}"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "headrace").symlink_to(executable()[0])
    environment = {
        **os.environ,
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "HEADRACE_URL": f"http://127.0.0.1:{port}",
        "HEADRACE_DRAIN_DELAY": "0",
    }
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    log = tmp_path / "headrace.log"
    told = f"{done.stdout}\n--- log\n{log.read_text() if log.exists() else ''}"
    assert done.returncode == 0, told
    printed = re.split(rf"^{_MARK}\d+\n", done.stdout, flags=re.MULTILINE)[1:]
    assert len(printed) == len(commands)
    for (text, expected), output in zip(commands, printed, strict=True):
        lines = iter([plain(line) for line in output.splitlines()])
        for line in expected:
            assert plain(line) in lines, f"{text}\nexpected, in its place: {line}\ngot:\n{output}"
