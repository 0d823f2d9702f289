"""A load counts only if its files stay what they were."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from server.executor.backend import LoadError
from server.executor.unchanged import unchanged
from server.models.file_state import FileState, file_state


@pytest.fixture
def files(tmp_path: Path) -> dict[Path, FileState]:
    paths = (tmp_path / "model.onnx", tmp_path / "weights")
    for path in paths:
        path.write_bytes(b"as it was")
    return {path: file_state(path) for path in paths}


def longer(path: Path) -> None:
    path.write_bytes(b"something else")


def of_another_time(path: Path) -> None:
    os.utime(path, ns=(1, 1))


def gone(path: Path) -> None:
    path.unlink()


def a_link_elsewhere(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.parent)


def test_files_that_stay_are_no_obstacle(files: dict[Path, FileState]) -> None:
    with unchanged(files):
        pass
    with pytest.raises(KeyError), unchanged(files):
        raise KeyError
    # The same file under another inode: some mounted stores number it anew at each look.
    with unchanged({path: (0, 0, *state[2:]) for path, state in files.items()}):
        pass


CHANGED = "has changed since the model was looked at: load it again"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (longer, CHANGED),
        (of_another_time, CHANGED),
        (a_link_elsewhere, CHANGED),
        (gone, "is gone: put it back and load it again"),
    ],
)
@pytest.mark.parametrize("which", [0, 1])
def test_a_change_before_or_meanwhile_is_the_reason(
    files: dict[Path, FileState], which: int, change: Callable[[Path], None], what: str
) -> None:
    path = list(files)[which]
    text = f"{path.name} {what}"
    with pytest.raises(LoadError, match=text), unchanged(files):
        change(path)
    with pytest.raises(LoadError, match=text), unchanged(files):
        raise AssertionError("what is inside does not begin")


def test_a_change_takes_the_place_of_what_it_leads_to(files: dict[Path, FileState]) -> None:
    with pytest.raises(LoadError, match=CHANGED), unchanged(files):
        longer(next(iter(files)))
        raise ValueError("a model of another shape")
