"""A model is loaded from the files that it was planned from, or not at all.

The supervisor reads a model's header and decides from it how requests lie in memory; the executor opens the same paths
later, after a crash much later. What lies there then may be another model, half a one, or a link to somewhere else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from server.executor.backend import LoadError
from server.models.file_state import ABSENT, FileState, file_state, is_same


@contextmanager
def unchanged(files: Mapping[Path, FileState]) -> Iterator[None]:
    """Raises LoadError where a file is not, before or after what is done inside, as `files` has it. That takes the
    place of another error: what a changed file leads to is no reason.
    """
    _check(files)
    try:
        yield
    except Exception as error:
        _check(files, error)
        raise
    _check(files)


def _check(files: Mapping[Path, FileState], cause: Exception | None = None) -> None:
    for path, before in files.items():
        now = file_state(path)
        if not is_same(now, before):
            what = "is gone: put it back and" if now == ABSENT else "has changed since the model was looked at:"
            raise LoadError(f"{path.name} {what} load it again") from cause
