"""The build's record: written by tools/build_info.py, read by server/build_info.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from server import __version__
from server.build_info import build_info
from tools import build_info as tool


def test_record_is_read_back(tmp_path: Path) -> None:
    record = tmp_path / "deep" / "_build.json"
    tool.write(record, "asan")
    info = build_info(record)
    assert info["version"] == __version__
    assert info["variant"] == "asan"
    assert list(info) == ["version", "revision", "variant", "compiler", "cython", "python", "machine"]
    assert all(info.values())


def test_equal_record_keeps_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """make compares times: a build that changed nothing must not look newer."""
    monkeypatch.setattr(tool, "collect", lambda variant: {"variant": variant})
    record = tmp_path / "_build.json"
    tool.write(record, "release")
    first = record.stat().st_mtime_ns
    tool.write(record, "release")
    assert record.stat().st_mtime_ns == first
    tool.write(record, "debug")
    assert build_info(record)["variant"] == "debug"


@pytest.mark.parametrize("text", [None, "", "{", "[1]", "7"])
def test_without_a_usable_record(tmp_path: Path, text: str | None) -> None:
    record = tmp_path / "_build.json"
    if text is not None:
        record.write_text(text)
    assert build_info(record) == {"version": __version__, "revision": "unknown", "variant": "unknown"}
