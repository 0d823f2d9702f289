"""Nothing that the server imports, at start or late, is left out of the executable (packaging/contents.py)."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.lint

#: Given {"blocked": names, "statements": [[module, statement], ...]}, runs each statement as if it stood in its module,
#: where no blocked module can be found, and prints what failed.
RUN = """
import json, sys

task = json.load(sys.stdin)
blocked = set(task["blocked"])

class Blocker:
    @staticmethod
    def find_spec(name, path=None, target=None):
        parts = name.split(".")
        if any(".".join(parts[:end]) in blocked for end in range(1, len(parts) + 1)):
            raise ModuleNotFoundError(f"No module named {name!r}: left out of the executable", name=name)

early = sorted(blocked & set(sys.modules))
sys.meta_path.insert(0, Blocker)
failed = {}
for module, statement in task["statements"]:
    try:
        exec(statement, {"__name__": module, "__package__": module.rpartition(".")[0]})
    except ImportError as error:
        failed[f"{module}: {statement}"] = str(error)
print(json.dumps({"early": early, "failed": failed, "loaded": sorted(sys.modules)}))
"""


def excluded_modules() -> list[str]:
    """The list in packaging/contents.py, which only PyInstaller's Python can import."""
    for node in ast.parse((ROOT / "packaging/contents.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "EXCLUDED_MODULES":
            return list(ast.literal_eval(node.value))
    raise AssertionError("packaging/contents.py: expected a list EXCLUDED_MODULES")


def import_statements(node: ast.AST) -> Iterator[str]:
    """Every import below a node, at any depth; those for type checkers apart."""
    if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        for child in node.orelse:
            yield from import_statements(child)
    elif isinstance(node, ast.Import | ast.ImportFrom):
        yield ast.unparse(node)
    else:
        for child in ast.iter_child_nodes(node):
            yield from import_statements(child)


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def statements_of_the_server() -> list[tuple[str, str]]:
    """(module, import) of everything that a process of the server may run; each extension as an import of itself."""
    found = []
    for path in sorted((ROOT / "server").rglob("*.py*")):
        if path.suffix == ".pyx":
            found.append(("server", f"import {module_name(path)}"))
        elif path.suffix == ".py" and path.stem != "__main__":
            tree = ast.parse(path.read_text(encoding="utf-8"))
            found.append(("server", f"import {module_name(path)}"))
            found += [(module_name(path), statement) for statement in dict.fromkeys(import_statements(tree))]
    return [pair for pair in found if pair[1] != "from __future__ import annotations"]


def run(blocked: list[str], statements: list[tuple[str, str]]) -> dict[str, dict[str, str]]:
    """What fails without the blocked modules, in a new interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        input=json.dumps({"blocked": blocked, "statements": statements}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, dict[str, str]] = json.loads(done.stdout)
    assert not answer["early"], f"loaded before anything could be blocked: {answer['early']}"
    return answer


def test_the_server_imports_nothing_that_is_left_out() -> None:
    statements = statements_of_the_server()
    assert len(statements) > 500
    answer = run(excluded_modules(), statements)
    assert not answer["failed"], "\n".join(f"{what}: {why}" for what, why in sorted(answer["failed"].items()))
    assert {"numpy", "onnxruntime", "uvloop", "google.protobuf.json_format"} <= set(answer["loaded"])


@pytest.mark.parametrize(
    ("statement", "left_out"),
    [
        ("import statistics", "statistics"),
        ("from statistics import median", "fractions"),
        ("from numpy.typing import NDArray", "numpy.typing"),
        ("from . import config", "server"),
    ],
)
def test_an_import_that_is_left_out_is_found(statement: str, left_out: str) -> None:
    assert run([left_out], [("server.log", statement)])["failed"].keys() == {f"server.log: {statement}"}


def test_imports_inside_functions_count_and_those_for_type_checkers_do_not() -> None:
    source = """
import a
if TYPE_CHECKING:
    import b
else:
    import c
def f():
    try:
        from . import d
    finally:
        from e.f import g as h
"""
    expected = ["import a", "import c", "from . import d", "from e.f import g as h"]
    assert list(import_statements(ast.parse(source))) == expected
