"""Makes docs/conformance.md: which clients and suites of other projects were run, in which version, with which result.

    python tools/conformance.py          runs and writes
    python tools/conformance.py --keep   writes anew, with the results that stand in the page

Runs the tests that docs/conformance.toml names, counts them, and adds what docs/conformance-external.toml records of
the suites that are run by hand. Versions come from the lock files and from the programs themselves. Exits with 1 if a
test failed, after writing the page.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "docs" / "conformance.toml"
EXTERNAL = ROOT / "docs" / "conformance-external.toml"
PAGE = ROOT / "docs" / "conformance.md"
HEAD = ("client or suite", "version", "speaks", "tests", "result")
EXTERNAL_HEAD = ("suite", "version", "pass", "differ", "not applicable")
INTRODUCTION = """\
# Conformance

Made by `make conformance`; do not edit. The first table is of clients and proxies that other projects made, unmodified,
each in an environment of its own, which `make test` runs against a whole server. The second is of suites that other
projects test their servers with; they are run beside headrace by hand and nothing of theirs is in this repository.
"""


class Case(NamedTuple):
    """One test: its file, the parameters in its name, "passed", "failed" or "skipped"."""

    file: str
    words: tuple[str, ...]
    outcome: str


class Row(NamedTuple):
    """One line of docs/conformance.toml."""

    name: str
    #: Package of a lock file, "LOCK:PACKAGE", or the command that prints a version.
    version: str
    speaks: str
    #: Files; with "::WORD" behind, only the tests of a file that have this word among their parameters.
    tests: Sequence[str]


def read_rows(table: Path = TABLE) -> list[Row]:
    return [Row(**one) for one in tomllib.loads(table.read_text(encoding="utf-8"))["client"]]


def locked(lock: str, package: str) -> str:
    """The version that a lock file has of a package."""
    for line in (ROOT / "constraints" / f"{lock}.txt").read_text(encoding="utf-8").splitlines():
        name, _, version = line.partition("==")
        if re.sub("[-_.]+", "-", name.lower()) == package:
            return version
    raise LookupError(f"constraints/{lock}.txt has no {package}; make it with: make lock ARGS={lock}")


def version_of(row: Row) -> str:
    """The version that is tested; "not installed" where a program is missing."""
    if ":" in row.version:
        return locked(*row.version.split(":", 1))
    try:
        done = subprocess.run(row.version.split(), capture_output=True, text=True, check=True)
    except FileNotFoundError:
        return "not installed"
    found = re.search(r"\d+(?:\.\d+)+", done.stdout + done.stderr)
    return found.group() if found else "unknown"


def run_tests(files: Iterable[str]) -> list[Case]:
    """How the tests of the files ended."""
    with tempfile.TemporaryDirectory(prefix="headrace-conformance-") as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-o", "junit_family=xunit1", f"--junitxml={report}"]
        done = subprocess.run([*command, *files], cwd=ROOT, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)})
        if done.returncode not in (0, 1):
            raise SystemExit(f"expected pytest to run the tests, it ended with {done.returncode}")
        return cases(report.read_text(encoding="utf-8"))


def cases(report: str) -> list[Case]:
    """The same, from pytest's JUnit report."""
    found = []
    for case in ElementTree.fromstring(report).iter("testcase"):
        kinds = {child.tag for child in case}
        outcome = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        words = case.attrib["name"].partition("[")[2].rstrip("]").split("-")
        found.append(Case(case.attrib["file"], tuple(words), outcome))
    return found


def result(row: Row, ended: Sequence[Case]) -> str:
    """Such as "24 of 24 pass"."""
    wanted = [one.partition("::") for one in row.tests]
    mine = [
        case.outcome
        for case in ended
        if any(case.file == file and (not word or word in case.words) for file, _, word in wanted)
    ]
    text = f"{mine.count('passed')} of {len(mine)} pass" if mine else "not run"
    return f"{text}, {mine.count('skipped')} skipped" if "skipped" in mine else text


def lines(cells: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first row is its head."""
    head, *rest = ["| " + " | ".join(row) + " |" for row in cells]
    return "\n".join([head, "|" + " --- |" * len(cells[0]), *rest])


def external_parts(suites: Sequence[Mapping[str, Any]]) -> str:
    """The second table, and below it every case that does not pass with the reason."""
    table = [EXTERNAL_HEAD]
    parts = []
    for suite in suites:
        cases = suite.get("case", [])
        total = sum(case.get("count", 1) for case in cases)
        absent = sum(case.get("count", 1) for case in cases if case["kind"] == "not applicable")
        table.append((suite["name"], suite["version"], str(suite["passed"]), str(total - absent), str(absent)))
        if cases:
            rows = [("case", "what", "why")] + [(one["name"], one["kind"], one["why"]) for one in cases]
            parts.append(f"### {suite['name']}\n\n{suite['how']}\n\n{lines(rows)}\n")
        else:
            parts.append(f"### {suite['name']}\n\n{suite['how']}\n")
    return "\n".join([lines(table) + "\n", *parts])


def render(rows: Sequence[tuple[Row, str, str]], suites: Sequence[Mapping[str, Any]]) -> str:
    """The page; rows are (row, version, result)."""
    table: list[Sequence[str]] = [HEAD]
    for row, version, outcome in rows:
        files = [one.partition("::")[0] for one in row.tests]
        tests = ", ".join(f"[{Path(file).stem}](../{file})" for file in files)
        table.append((row.name, version, row.speaks, tests, outcome))
    return (
        f"{INTRODUCTION}\n## Clients and proxies in the tests\n\n{lines(table)}\n\n"
        f"## Suites run by hand\n\n{external_parts(suites)}"
    )


def stated() -> dict[str, list[str]]:
    """Client -> the cells of its line in the page as it is."""
    text = PAGE.read_text(encoding="utf-8").partition("\n## Suites")[0]
    table = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {cells[0]: cells for cells in table[1:] if len(cells) == len(HEAD)}


def kept(rows: Sequence[Row]) -> list[tuple[Row, str, str]]:
    """The rows with the results of the page, and its versions of programs. Raises KeyError for a row it lacks."""
    cells = stated()
    return [(row, version_of(row) if ":" in row.version else cells[row.name][1], cells[row.name][-1]) for row in rows]


def main() -> int:
    parser = argparse.ArgumentParser(description="Runs the tests with clients of other projects, writes the page.")
    parser.add_argument("--keep", action="store_true", help="runs nothing: the results stay what they are in the page")
    rows, ended = read_rows(), list[Case]()
    if parser.parse_args().keep:
        results = kept(rows)
    else:
        ended = run_tests(sorted({one.partition("::")[0] for row in rows for one in row.tests}))
        results = [(row, version_of(row), result(row, ended)) for row in rows]
    suites = tomllib.loads(EXTERNAL.read_text(encoding="utf-8"))["suite"]
    PAGE.write_text(render(results, suites), encoding="utf-8")
    print(f"{PAGE.relative_to(ROOT)}: {len(rows)} clients, {len(suites)} suites")
    return 1 if any(one.outcome == "failed" for one in ended) else 0


if __name__ == "__main__":
    raise SystemExit(main())
