"""Other projects' clients and models: each in an environment of its own under .venvs/, made by `make test-setup`."""

from __future__ import annotations

from pathlib import Path

VENVS = Path(__file__).resolve().parents[2] / ".venvs"


def environment(name: str) -> Path:
    """Folder of the environment made from constraints/NAME.txt."""
    folder = VENVS / name
    if not (folder / "stamp").is_file():
        raise FileNotFoundError(f"expected the environment {folder}; make it with: make test-setup")
    return folder


def python(name: str) -> str:
    """The interpreter of an environment: what a test runs its client script with."""
    return str(environment(name) / "bin" / "python")


def package_file(name: str, pattern: str) -> Path:
    """The one file of an environment's packages that matches a pattern, such as 'silero_vad/data/silero_vad.onnx'."""
    found = sorted(environment(name).glob(f"lib/python3*/site-packages/{pattern}"))
    if len(found) != 1:
        raise FileNotFoundError(f"expected one file {pattern} in .venvs/{name}, found {len(found)}")
    return found[0]
