"""A file comes through a pipe as it is, or not at all."""

from __future__ import annotations

import ctypes
import os
import threading
from pathlib import Path

import pytest

from server._fast.file_feed import feed
from server.executor import piped as module
from server.executor.piped import piped

STEP_BYTES = 64 * 1024
SIZES = (0, 1, STEP_BYTES - 1, STEP_BYTES, STEP_BYTES + 1, 10 * STEP_BYTES + 7)


@pytest.fixture(params=[True, False], ids=["splice", "copy"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        module, "feed", lambda source, output, begun: feed(source, output, begun, may_splice=request.param)
    )


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


@pytest.mark.usefixtures("way")
def test_what_cannot_be_read_is_an_error_whatever_was_made_of_it(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError), piped(tmp_path) as path:
        assert path.read_bytes() == b""
    with pytest.raises(FileNotFoundError), piped(tmp_path / "none"):
        pass


@pytest.mark.usefixtures("way")
def test_who_reads_may_hold_the_interpreters_lock(tmp_path: Path) -> None:
    """As ONNX Runtime does in some builds: whoever needs the lock to fill or to close the pipe would wait for ever."""
    content = os.urandom(20 * STEP_BYTES)
    (tmp_path / "file").write_bytes(content)
    # Functions of a PyDLL are called with the lock held.
    library = ctypes.PyDLL(None)
    piece = ctypes.create_string_buffer(4 << 20)
    arrived = b""
    with piped(tmp_path / "file") as path:
        descriptor = os.open(path, os.O_RDONLY)
        while count := library.read(descriptor, piece, len(piece)):
            arrived += piece.raw[:count]
        os.close(descriptor)
    assert arrived == content


def test_without_proc_the_file_is_read_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_OPEN_FILES", tmp_path / "none")
    with piped(tmp_path / "file") as path:
        assert path == tmp_path / "file"
