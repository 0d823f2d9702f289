"""docs/conformance.md: each environment of a client has a row, and the page is what tables and lock files say."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tools import conformance

ROOT = Path(__file__).resolve().parents[2]
#: Environments of Makefile's CLIENTS that hold data and no client.
NO_CLIENTS = {"models", "tfsprotos", "openvino", "openvinoplugin"}
ROWS = conformance.read_rows()
SUITES = tomllib.loads(conformance.EXTERNAL.read_text(encoding="utf-8"))["suite"]


def test_every_environment_has_a_row() -> None:
    makefile = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    (names,) = re.findall(r"^CLIENTS := \$\(patsubst %,\.venvs/%/stamp,(.*)\)$", makefile, re.M)
    locks = {row.version.partition(":")[0] for row in ROWS if ":" in row.version}
    # What npm installs has its version in a file of npm's.
    locks |= {"grpcjs"} if any("grpcjs" in row.version for row in ROWS) else set()
    assert set(names.split()) - NO_CLIENTS == locks


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_rows_name_tests_that_are_there(row: conformance.Row) -> None:
    for one in row.tests:
        file, _, word = one.partition("::")
        assert f'"{word}"' in (ROOT / file).read_text(encoding="utf-8") if word else (ROOT / file).is_file()


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: str(suite["name"]))
def test_suites_say_why_what_does_not_pass(suite: dict[str, object]) -> None:
    cases = suite.get("case", [])
    assert isinstance(cases, list)
    for case in cases:
        assert set(case) - {"count"} == {"name", "kind", "why"}
        assert case["kind"] in {"bug", "missing", "by design", "not applicable"}


def test_the_page_is_in_step() -> None:
    """Made anew with the results and the versions of programs that stand in it, the page is the same."""
    missing = {row.name for row in ROWS} - set(conformance.stated())
    assert not missing, f"docs/conformance.md lacks {missing}; make it with: make conformance"
    page = conformance.PAGE.read_text(encoding="utf-8")
    assert conformance.render(conformance.kept(ROWS), SUITES) == page, (
        "docs/conformance.md is old; make it with: make conformance"
    )


REPORT = """<testsuites><testsuite>
<testcase file="a.py" name="test_one[x-nginx]"/>
<testcase file="a.py" name="test_one[x-envoy]"><failure message="no"/></testcase>
<testcase file="b.py" name="test_two"><skipped message="no"/></testcase>
<testcase file="b.py" name="test_three"/>
</testsuite></testsuites>"""


@pytest.mark.parametrize(
    ("tests", "expected"),
    [
        (["a.py"], "1 of 2 pass"),
        (["a.py::nginx"], "1 of 1 pass"),
        (["a.py::envoy"], "0 of 1 pass"),
        (["b.py"], "1 of 2 pass, 1 skipped"),
        (["a.py", "b.py"], "2 of 4 pass, 1 skipped"),
        (["c.py"], "not run"),
    ],
)
def test_results(tests: list[str], expected: str) -> None:
    assert conformance.result(conformance.Row("a", "b", "c", tests), conformance.cases(REPORT)) == expected
