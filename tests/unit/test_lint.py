"""Style, types and the shape of the tree: `make test` cannot be green with one of them red."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cython_lint.cython_lint import PYCODESTYLE_CODES

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.lint

CODE = (".py", ".pyi", ".pyx", ".pxd", ".h", ".c", ".cpp")
MAX_LINES = {"tests": 800}
MAX_LINES_ELSEWHERE = 600
#: Kinds of text in which no address of a package registry and no path of one machine may stand.
TEXT = (*CODE, ".md", ".txt", ".toml", ".cfg", ".ini", ".json", ".yml", ".yaml", ".sh", ".spec", ".lua", ".run", "")
# Put together from parts, or this file would find itself.
REGISTRY_HOSTS = ["pypi." + "org", "python" + "hosted", "npm" + "js.", "debian." + "org", "crates." + "io"]
MACHINE_PATHS = [r"/wo" + r"rk/", r"/ro" + r"ot/", r"/ho" + r"me/\w", r"/opt/py" + r"pi"]


def tree() -> list[Path]:
    """Every file that is, or could be, committed; relative to the root. Without git: those in the known folders."""
    git = shutil.which("git") or "false"
    listed = subprocess.run(
        [git, "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode == 0:
        return [Path(name) for name in sorted(listed.stdout.split("\0")) if name and (ROOT / name).is_file()]
    folders = ("server", "tests", "tools", "perf", "packaging", "constraints", "docs", "samples", "deploy")
    found = [path.relative_to(ROOT) for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    return sorted(path for path in found if "__pycache__" not in path.parts and path.suffix != ".so")


TREE = tree()
SOURCES = [path for path in TREE if path.suffix in CODE]
PACKAGES = [path for path in TREE if path.name == "__init__.py"]
EXTENSIONS = [path for path in TREE if path.suffix == ".pyx" and path.parts[0] == "server"]


def run_tool(*arguments: str) -> None:
    """Runs a checker of this environment over the tree and fails with what it printed."""
    environment = {**os.environ, "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(arguments)}\n{done.stdout}{done.stderr}"


def test_ruff_check() -> None:
    run_tool("ruff", "check", "--quiet", "--output-format=concise", ".")


def test_ruff_format() -> None:
    run_tool("ruff", "format", "--check", "--quiet", ".")


@pytest.mark.slow
def test_mypy() -> None:
    run_tool("mypy", "--no-error-summary")


def test_cython_lint() -> None:
    names = [str(path) for path in TREE if path.suffix in (".pyx", ".pxd")]
    run_tool("cython_lint.cython_lint", "--no-pycodestyle", "--max-line-length=120", *names)
    # What cython-lint asks of pycodestyle, in one process instead of one for each file.
    run_tool("pycodestyle", f"--ignore={','.join(sorted(PYCODESTYLE_CODES))}", "--max-line-length=120", *names)


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_file_length(path: Path) -> None:
    count = (ROOT / path).read_text(encoding="utf-8").count("\n")
    limit = MAX_LINES.get(path.parts[0], MAX_LINES_ELSEWHERE)
    assert count <= limit, f"{path}: expected at most {limit} lines, has {count}; split it by concept"


@pytest.mark.parametrize("path", PACKAGES, ids=str)
def test_packages_are_empty(path: Path) -> None:
    body = ast.parse((ROOT / path).read_text(encoding="utf-8")).body
    if path == Path("server/__init__.py"):
        assert [ast.unparse(statement).partition(" = ")[0] for statement in body] == ["__version__"]
    else:
        assert not body, f"{path}: expected an empty file"


@pytest.mark.parametrize("path", EXTENSIONS, ids=str)
def test_extension_has_both_faces(path: Path) -> None:
    """A .pyx opens with its design note and has a .pxd (C face) and a documented .pyi (Python face)."""
    text = (ROOT / path).read_text(encoding="utf-8")
    note = re.match(r'(?:\s*#.*\n)*\s*(?:"""|\'\'\')(.+?)(?:"""|\'\'\')', text, re.DOTALL)
    assert note, f"{path}: expected a design note (docstring) at the top"
    assert len(note.group(1)) > 200, f"{path}: the design note is too short to say purpose, memory, threads, cost"
    assert (ROOT / path).with_suffix(".pxd").is_file(), f"{path}: no .pxd beside it"
    stub = (ROOT / path).with_suffix(".pyi")
    assert stub.is_file(), f"{path}: no .pyi beside it"
    assert ast.get_docstring(ast.parse(stub.read_text(encoding="utf-8"))), f"{stub.name}: no docstring"


@pytest.mark.parametrize(
    "pattern", [*(re.escape(host) for host in REGISTRY_HOSTS), *MACHINE_PATHS], ids=lambda pattern: pattern[:6]
)
def test_no_address_of_registry_or_machine(pattern: str) -> None:
    """Where packages come from and where the tree lies are settings of a machine, never of this tree."""
    expression = re.compile(rf"(?<![\w.]){pattern}" if pattern.startswith("/") else pattern, re.IGNORECASE)
    found = []
    for path in TREE:
        if path.suffix in TEXT:
            lines = (ROOT / path).read_text(encoding="utf-8", errors="replace").splitlines()
            found += [f"{path}:{number}" for number, line in enumerate(lines, 1) if expression.search(line)]
    assert not found, ", ".join(found)


@pytest.mark.parametrize("path", [path for path in TREE if path.suffix == ".md"], ids=str)
def test_links_between_documents_lead_somewhere(path: Path) -> None:
    text = (ROOT / path).read_text(encoding="utf-8")
    targets = {target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text)}
    gone = [
        target for target in targets if target and "://" not in target and not (ROOT / path.parent / target).exists()
    ]
    assert not gone, f"{path}: links to {', '.join(sorted(gone))}"


@pytest.mark.parametrize("path", [path for path in TREE if path.parts[0] == "constraints"], ids=str)
def test_lock_holds_exact_pins_only(path: Path) -> None:
    for line in (ROOT / path).read_text(encoding="utf-8").splitlines():
        assert line.startswith("#") or re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+]+", line), f"{path}: {line!r}"


def test_make_help_names_every_target() -> None:
    """Every phony target that a person would call has its line in `make help`."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"^([a-z0-9-]+):.*## ", text, re.MULTILINE))
    tests = {"test", "t", "test-asan", "stress", "smoke", "lint"}
    wanted = {"help", "build", "serve", "debug", "asan", "tsan", "perf", "dist", "clean", "lock"} | tests
    assert not wanted - named
