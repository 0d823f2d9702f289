"""Checks the files that an ONNX model says its weights are in, before anything opens them.

A model names those files itself, so a hostile one may name any file of the machine. Accepted is only: a relative path
of plain names, that leads without leaving the model's directory to a regular file with no second hard link, large
enough for the range. ONNX Runtime checks again when it loads; this check makes the refusal early and its text clear.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from server.models.onnx_file import ExternalData, ModelFileError, OnnxModel


def check(model: OnnxModel) -> None:
    """Raises ModelFileError for the first entry of `model.external_data` that must not be opened."""
    if not model.external_data:
        return
    folder = model.path.parent.resolve()
    sizes: dict[str, int] = {}
    for entry in model.external_data:
        size_bytes = sizes.get(entry.location)
        if size_bytes is None:
            size_bytes = sizes[entry.location] = _file_size(folder, entry)
        end = entry.offset_bytes + (entry.length_bytes or 0)
        if end > size_bytes:
            raise ModelFileError(
                f"wants bytes {entry.offset_bytes} to {end} of {entry.location!r} for tensor {entry.tensor!r}; "
                f"the file has {size_bytes}"
            )


def _file_size(folder: Path, entry: ExternalData) -> int:
    location = entry.location
    told = f"keeps tensor {entry.tensor!r} in {location[:200]!r}"
    parts = location.split("/")
    if not location or "\0" in location or "\\" in location or location.startswith(("/", "*")):
        raise ModelFileError(f"{told}; expected a file name relative to the model")
    if any(part in ("", ".", "..") for part in parts):
        raise ModelFileError(f"{told}; expected a plain file name without '..', '.' or empty parts")
    path = folder / location
    try:
        resolved = path.resolve(strict=True)
        status = os.stat(resolved)
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ModelFileError(
            f"{told}, which cannot be read ({reason}): copy it next to {path.name!r}'s model"
        ) from None
    if not resolved.is_relative_to(folder):
        raise ModelFileError(f"{told}, a link that leads out of the model's directory: put the file itself there")
    if not stat.S_ISREG(status.st_mode):
        raise ModelFileError(f"{told}, which is not a regular file")
    if status.st_nlink > 1:
        raise ModelFileError(f"{told}, which has {status.st_nlink} hard links: copy the file instead of linking it")
    return status.st_size
