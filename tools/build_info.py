"""Writes what a build was made from into server/_build.json, read by `headrace --version -v` and `make perf`."""

from __future__ import annotations

import argparse
import json
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def command_line(*command: str) -> str:
    """First line a command prints, or '' where it cannot be run."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.partition("\n")[0].strip()


def collect(variant: str) -> dict[str, str]:
    """Version, git revision ('+' behind it: uncommitted changes), build variant and the tools' versions."""
    package = (ROOT / "server" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"', package, re.MULTILINE)
    revision = command_line("git", "rev-parse", "--short=12", "HEAD")
    if revision and command_line("git", "status", "--porcelain", "--untracked-files=no"):
        revision += "+"
    try:
        cython = version("cython")
    except PackageNotFoundError:
        cython = "unknown"
    return {
        "version": found.group(1) if found else "unknown",
        "revision": revision or "unknown",
        "variant": variant,
        "compiler": command_line("gcc", "--version") or "unknown",
        "cython": cython,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


def write(path: Path, variant: str) -> None:
    """Writes the record to path; leaves an equal file alone, so that its time stays."""
    text = json.dumps(collect(variant), indent=1) + "\n"
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", default="release")
    parser.add_argument("--out", type=Path, default=ROOT / "server" / "_build.json")
    options = parser.parse_args()
    write(options.out, options.variant)


if __name__ == "__main__":
    main()
