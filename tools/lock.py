"""Makes the lock files constraints/*.txt anew: each group of pyproject.toml, resolved in a fresh environment.

A lock file holds exact `name==version` lines and nothing of where packages come from: that is a setting of the machine.

    python tools/lock.py             all files
    python tools/lock.py dev train   these files
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: Installed beside the packages themselves by `python -m venv`, so never locked.
NOT_LOCKED = {"pip"}
#: Locks resolved on top of others in one environment; their own file lists only what they add.
ON_TOP_OF = {"runtime": ["build"], "dev": ["build", "runtime"]}
#: Locks whose packages come without what they depend on: read as data, or their group lists it.
ALONE = {"models", "openvino", "openvinoplugin", "tfsclient", "tfsprotos"}


def groups() -> dict[str, list[str]]:
    """Lock name -> requirements as pyproject.toml states them, in the order in which they are resolved."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    table: dict[str, list[str]] = dict(project["dependency-groups"])
    return {"build": table.pop("build"), "runtime": project["project"]["dependencies"], **table}


def lock_path(name: str) -> Path:
    return ROOT / "constraints" / f"{name}.txt"


def pins(name: str) -> list[str]:
    """The `name==version` lines of a lock file."""
    lines = lock_path(name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def resolve(name: str, requirements: list[str]) -> list[str]:
    """Installs the requirements into a fresh environment and returns what pip then has, less the locks below."""
    below = [pin for base in ON_TOP_OF.get(name, []) for pin in pins(base)]
    with tempfile.TemporaryDirectory(prefix="headrace-lock-") as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [f"{folder}/bin/python", "-m", "pip", "--disable-pip-version-check"]
        if name in ALONE:
            subprocess.run([*pip, "install", "--quiet", "--no-deps", *requirements], check=True)
        else:
            subprocess.run([*pip, "install", "--quiet", *below, *requirements], check=True)
            subprocess.run([*pip, "check"], check=True)
        frozen = subprocess.run([*pip, "freeze", "--all"], check=True, capture_output=True, text=True).stdout.split(
            "\n"
        )
    taken = {pin.partition("==")[0].lower() for pin in below} | NOT_LOCKED
    if "setuptools" not in {requirement.partition(">")[0] for requirement in requirements}:
        taken.add("setuptools")  # older Pythons put one into every environment
    return sorted((line for line in frozen if line and line.partition("==")[0].lower() not in taken), key=str.lower)


def main() -> None:
    table = groups()
    parser = argparse.ArgumentParser(description="Makes constraints/*.txt anew.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(table)} (default: all)")
    names = parser.parse_args().names or list(table)
    if unknown := set(names) - set(table):
        parser.error(f"no such group: {', '.join(sorted(unknown))}; expected one of {', '.join(table)}")
    for name in [name for name in table if name in names]:
        lines = resolve(name, table[name])
        if wrong := [line for line in lines if "==" not in line or "@" in line]:
            raise SystemExit(f"{name}: not an exact pin: {', '.join(wrong)}")
        head = f"# Made by `make lock` from pyproject.toml ({name}); do not edit.\n"
        lock_path(name).write_text(head + "\n".join(lines) + "\n", encoding="utf-8")
        print(f"{lock_path(name).relative_to(ROOT)}: {len(lines)} packages", flush=True)


if __name__ == "__main__":
    main()
