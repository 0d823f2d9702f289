"""A file comes through a pipe as it is, or not at all."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from server.executor import piped as module
from server.executor.piped import STEP_BYTES, piped

SIZES = (0, 1, STEP_BYTES - 1, STEP_BYTES, STEP_BYTES + 1, 10 * STEP_BYTES + 7)


def refuse(*_: object, **__: object) -> int:
    raise OSError(errno.EINVAL, "not for this file system")


def fail(*_: object, **__: object) -> int:
    raise OSError(errno.EIO, "Input/output error")


@pytest.fixture(params=["splice", "write"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "write":
        monkeypatch.setattr(os, "splice", refuse)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("size", SIZES)
def test_everything_arrives_in_its_order(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    (tmp_path / "file").write_bytes(content)
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    with piped(tmp_path / "file") as path:
        assert path.read_bytes() == content
    assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == (threads, descriptors)


@pytest.mark.usefixtures("way")
def test_nobody_has_to_read_to_the_end(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(5 * STEP_BYTES))
    with piped(tmp_path / "file") as path, path.open("rb") as file:
        assert file.read(3) == bytes(3)
    with pytest.raises(ValueError, match="of the block"), piped(tmp_path / "file"):
        raise ValueError("of the block")


def test_half_a_file_is_an_error_whatever_was_made_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"content")
    monkeypatch.setattr(os, "splice", fail)
    with pytest.raises(OSError, match="Input/output error"), piped(tmp_path / "file") as path:
        assert path.read_bytes() == b""
    with pytest.raises(OSError, match="Input/output error"), piped(tmp_path / "file") as path:
        raise ValueError(f"nothing in {path.read_bytes()!r}")
    with pytest.raises(FileNotFoundError), piped(tmp_path / "none"):
        pass


def test_without_proc_the_file_is_read_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_OPEN_FILES", tmp_path / "none")
    with piped(tmp_path / "file") as path:
        assert path == tmp_path / "file"
