"""The files of a model are in the page cache after they were read ahead, whatever they are like."""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path

import pytest

from server.executor.read_ahead import STEP_BYTES, WINDOW_BYTES, read_ahead


def resident_share(path: Path) -> float:
    """Of the file's pages, in the page cache."""
    size = path.stat().st_size
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), size) as mapped:
        pages = -(-size // mmap.PAGESIZE)
        found = (ctypes.c_ubyte * pages)()
        view = ctypes.c_char.from_buffer(mapped)
        libc = ctypes.CDLL(None, use_errno=True)
        status = libc.mincore(ctypes.c_void_p(ctypes.addressof(view)), ctypes.c_size_t(size), found)
        del view
        assert status == 0, os.strerror(ctypes.get_errno())
        return sum(page & 1 for page in found) / pages


def cold(path: Path, size: int) -> Path:
    """A file that the page cache has let go of, where the file system lets it."""
    path.write_bytes(os.urandom(4096) * (size // 4096) + b"x" * (size % 4096))
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
    return path


@pytest.mark.parametrize("size", [1, STEP_BYTES - 1, STEP_BYTES + 1, WINDOW_BYTES, 3 * WINDOW_BYTES + 5])
def test_all_of_a_file_is_there_afterwards(tmp_path: Path, size: int) -> None:
    files = [cold(tmp_path / "model.onnx", size), cold(tmp_path / "weights", 2 * size)]
    read_ahead(files)
    assert [resident_share(file) for file in files] == [1.0, 1.0]


def test_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    good = cold(tmp_path / "good", STEP_BYTES)
    read_ahead([tmp_path / "nothing", tmp_path, fifo, empty, good])
    assert resident_share(good) == 1.0
