"""Who may import whom: the arrows of docs/architecture.md, read from the sources without running them."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.lint

BASE = frozenset(
    {"alike", "errors", "channel", "clock", "config", "option_values", "log", "hostinfo", "build_info", "yielding"}
)
#: layer -> the layers that it may import besides itself.
MAY_IMPORT: dict[str, frozenset[str]] = {
    "_fast": frozenset(),
    "base": frozenset(),
    "protocol": frozenset({"base"}),
    "observe": frozenset({"base", "protocol"}),
    "batching": frozenset({"base", "protocol"}),
    "models": frozenset({"base", "protocol"}),
    "demo": frozenset({"base"}),
    "worker": frozenset({"base", "protocol", "observe", "batching", "models", "_fast"}),
    "executor": frozenset({"base", "protocol", "observe", "batching", "models", "_fast"}),
    "supervisor": frozenset({"base", "protocol", "observe", "batching", "models", "_fast", "demo"}),
    "cli": frozenset({"base", "protocol", "observe", "batching", "models", "demo", "supervisor"}),
}
#: The only modules of another process kind that the supervisor may name, and what it forks into.
ENTRY_POINTS = {
    "server.worker.process",
    "server.executor.process",
    "server.executor.shared_process",
    "server.executor.trial",
}
#: layer -> packages from outside the standard library that it may import.
OUTSIDE: dict[str, frozenset[str]] = {
    "worker": frozenset({"uvloop"}),
    "executor": frozenset({"numpy"}),
    "cli": frozenset({"numpy"}),
}
#: module -> packages that it alone may import.
ONLY_HERE = {
    "server.executor.onnx_backend": frozenset({"onnxruntime"}),
    # on the first control call of gRPC, never for an inference
    "server.protocol.messages": frozenset({"google"}),
}

_CYTHON_IMPORT = re.compile(r"^\s*(?:from\s+([\w.]+)\s+c?import\s+(.+)|c?import\s+([\w., ]+))", re.MULTILINE)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layer(module: str) -> str:
    """The layer a module under server belongs to; '' for the package itself."""
    parts = module.split(".")
    if len(parts) < 2:
        return ""
    name = parts[1]
    if name in BASE:
        return "base"
    if name == "__main__" or name == "cli" or name.startswith("cli_"):
        return "cli"
    return name


def absolute(importer: str, is_package: bool, level: int, name: str) -> str:
    """The full name of a relative import."""
    if not level:
        return name
    drop = level - 1 if is_package else level
    parts = importer.split(".")
    return ".".join([*parts[: len(parts) - drop], *([name] if name else [])])


def python_imports(path: Path) -> set[str]:
    """Full names of all modules that a Python file imports, at any depth; type-checking-only imports count too."""
    module, is_package = module_name(path), path.name == "__init__.py"
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            origin = absolute(module, is_package, node.level, node.module or "")
            # `from server.x import y`: y may be a module, so both names count where the file exists.
            found |= {
                f"{origin}.{alias.name}" if is_module(f"{origin}.{alias.name}") else origin for alias in node.names
            }
    return found


def is_module(name: str) -> bool:
    base = ROOT.joinpath(*name.split("."))
    return name.startswith("server.") and (
        base.is_dir() or any(base.with_suffix(suffix).is_file() for suffix in (".py", ".pyx", ".pxd"))
    )


def cython_imports(path: Path) -> set[str]:
    """The same for .pyx and .pxd, by line: Cython has no parser outside itself."""
    text = re.sub(r'("""|\'\'\')[\s\S]*?\1', "", path.read_text(encoding="utf-8"))
    found = set()
    for origin, names, plain in _CYTHON_IMPORT.findall(text):
        if plain:
            found |= {name.strip().split(" ")[0] for name in plain.split(",")}
        elif origin.startswith("."):
            found.add(absolute(module_name(path), False, len(origin) - len(origin.lstrip(".")), origin.lstrip(".")))
        else:
            first = re.split(r"[\s,(]+", names.strip("( "))[0]
            found.add(f"{origin}.{first}" if is_module(f"{origin}.{first}") else origin)
    return found


def imports(path: Path) -> set[str]:
    return python_imports(path) if path.suffix == ".py" else cython_imports(path)


def violation(module: str, target: str) -> str | None:
    """What is wrong with one import, or None."""
    own = layer(module)
    top = target.partition(".")[0]
    if top == "server":
        other = layer(target)
        if other in ("", own) or other in MAY_IMPORT[own] or (own == "supervisor" and target in ENTRY_POINTS):
            return None
        return (
            f"{module} imports {target}: {own} may import {', '.join(sorted(MAY_IMPORT[own])) or 'nothing of server'}"
        )
    if top in sys.stdlib_module_names or top in ONLY_HERE.get(module, ()) or top in OUTSIDE.get(own, ()):
        return None
    if own == "_fast" and top in ("cpython", "libc", "libcpp", "posix", "cython"):
        return None
    return f"{module} imports {target}: no outside package but {', '.join(sorted(OUTSIDE.get(own, ()))) or 'none'} here"


FILES = sorted(
    path for suffix in ("py", "pyx", "pxd") for path in (ROOT / "server").rglob(f"*.{suffix}") if path.is_file()
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_import_arrows(path: Path) -> None:
    module = module_name(path)
    assert layer(module) in {"", *MAY_IMPORT}, f"{module}: unknown layer; name its arrows here and in the architecture"
    wrong = [text for target in sorted(imports(path)) if (text := violation(module, target))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("module", "target", "allowed"),
    [
        ("server.worker.process", "server._fast.http1", True),
        ("server.worker.process", "server.executor.process", False),
        ("server.worker.process", "uvloop", True),
        ("server.worker.process", "numpy", False),
        ("server.executor.process", "server.worker.process", False),
        ("server.executor.process", "uvloop", False),
        ("server.executor.runner", "onnxruntime", False),
        ("server.executor.onnx_backend", "onnxruntime", True),
        ("server.supervisor.process", "server.worker.process", True),
        ("server.supervisor.process", "server.worker.handlers", False),
        ("server.supervisor.process", "numpy", False),
        ("server._fast.http1", "server.errors", False),
        ("server._fast.http1", "libc.string", True),
        ("server.protocol.v2", "server.errors", True),
        ("server.protocol.v2", "server.models.repository", False),
        ("server.batching.plan", "numpy", False),
        ("server.errors", "server.protocol.v2", False),
        ("server.cli_serve", "server.supervisor.process", True),
        ("server.models.repository", "server.supervisor.process", False),
    ],
)
def test_the_arrows_themselves(module: str, target: str, allowed: bool) -> None:
    assert (violation(module, target) is None) == allowed


def test_relative_imports_are_resolved() -> None:
    assert absolute("server.worker.process", False, 1, "connection") == "server.worker.connection"
    assert absolute("server.worker.process", False, 2, "_fast.http1") == "server._fast.http1"
    assert absolute("server.worker", True, 1, "connection") == "server.worker.connection"


@pytest.mark.parametrize(
    ("entry", "forbidden"),
    [
        ("server.worker.process", ("numpy", "onnxruntime", "grpc", "google.protobuf")),
        ("server.supervisor.process", ("numpy", "onnxruntime", "uvloop", "grpc", "google.protobuf")),
        ("server.executor.process", ("uvloop", "grpc", "google.protobuf")),
        ("server.cli", ("numpy", "onnxruntime", "uvloop", "asyncio", "grpc", "google.protobuf")),
    ],
)
def test_loaded_modules(entry: str, forbidden: tuple[str, ...]) -> None:
    """What importing a process's entry point really loads, through all packages on the way."""
    if importlib.util.find_spec(entry) is None:
        pytest.skip(f"{entry} is not there yet")
    code = f"import sys, {entry}; print([name for name in {forbidden!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
