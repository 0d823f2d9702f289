"""Applies to every test: nothing a test opens or starts may outlive it, and long runs are asked for by name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import server
from tests.support import balance

ROOT = Path(__file__).resolve().parents[1]


def pytest_configure() -> None:
    """Stops a run that would test other extensions than it says (tools/with_variant.sh sets HEADRACE_VARIANT)."""
    variant = os.environ.get("HEADRACE_VARIANT")
    expected = ROOT / "build" / variant / "lib" / "server" if variant else ROOT / "server"
    found = Path(server.__path__[0]).resolve()
    if found != expected:
        pytest.exit(
            f"expected the package server from {expected}, found {found}; set PYTHONPATH and HEADRACE_VARIANT", 4
        )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out tests marked `stress` unless HEADRACE_STRESS asks for them."""
    if os.environ.get("HEADRACE_STRESS"):
        return
    kept = [item for item in items if item.get_closest_marker("stress") is None]
    if len(kept) < len(items):
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("stress")])
        items[:] = kept


@pytest.fixture(autouse=True)
def balanced(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test after which this process has more descriptors or children than before it.

    Fixtures of a wider scope are set up before this one, so what they hold counts as there before.
    """
    if request.node.get_closest_marker("leaves_open"):
        yield
        return
    before = balance.take()
    yield
    left = balance.left_behind(before)
    if left:
        pytest.fail(f"left behind by the test: {left}", pytrace=False)
