"""Where a model's golden checks lie: requests with the answers that a version has to give before it serves.

    NAME/golden/            for every version of the model
    NAME/VERSION/golden/    for this version, in place of the others

In such a folder, any number of

    X.request.json, X.response.json           a V2 inference request and its answer, as curl sends and saves them
    test_data_set_X/input_0.pb, output_0.pb   ONNX's own layout: one TensorProto for each input and output, in order
    golden.toml                               tolerances, see server.executor.golden

Finding them costs a look at the folder; what is in the files is read by the executor that runs them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from server.models.file_state import ABSENT, FileState, file_state

GOLDEN_FOLDER = "golden"
TOLERANCES_FILE = "golden.toml"
REQUEST_END = ".request.json"
RESPONSE_END = ".response.json"
DATA_SET_START = "test_data_set_"
#: A check that took longer than loading the model would be a test suite, not a check.
MAX_CASES = 256
_TENSOR_FILE = re.compile(r"(input|output)_([0-9]{1,4})\.pb", re.ASCII)


class GoldenError(ValueError):
    """The folder cannot be used as it is; the text says what was expected."""


class GoldenCase(NamedTuple):
    """One request and its answer: two JSON files, or the tensors' files in the order of the model's."""

    name: str
    inputs: tuple[Path, ...]
    outputs: tuple[Path, ...]
    is_json: bool


def golden_folder(model_file: Path, model_folder: Path | None) -> Path | None:
    """The folder that counts for the version in `model_file`, or None; model_folder holds config.pbtxt."""
    for folder in (model_file.parent, model_folder):
        # A model that is a single file has no folder of its own: its neighbours are other models' files.
        if folder is not None and model_folder is not None and (folder / GOLDEN_FOLDER).is_dir():
            return folder / GOLDEN_FOLDER
    return None


def signature(folder: Path | None) -> tuple[FileState, ...]:
    """What the system says of the folder's files: differs whenever they do."""
    if folder is None:
        return ()
    try:
        return tuple(map(file_state, _paths(folder)))
    except OSError as error:
        return ((error.errno or 1,),)
    except GoldenError:
        return (ABSENT,)


def written(folder: Path | None) -> list[Path]:
    """What the system gives a new time when the folder's files are written, or come and go."""
    if folder is None:
        return []
    try:
        return [folder, *_paths(folder)]
    except (OSError, GoldenError):
        return [folder]


def cases(folder: Path) -> list[GoldenCase]:
    """The cases by name. Raises GoldenError for a folder without one and for half a case, OSError if it is unreadable.

    A folder that nobody could have meant is not passed over in silence: the version would serve unchecked.
    """
    files = {str(path.relative_to(folder)): path for path in _paths(folder)}
    found = []
    for name, path in files.items():
        if name.endswith(REQUEST_END):
            stem = name.removesuffix(REQUEST_END)
            answer = files.get(stem + RESPONSE_END)
            if answer is None:
                raise GoldenError(f"found: {name} without {stem}{RESPONSE_END}; expected: the answer beside it")
            found.append(GoldenCase(stem, (path,), (answer,), True))
        elif name.endswith(RESPONSE_END):
            stem = name.removesuffix(RESPONSE_END)
            if stem + REQUEST_END not in files:
                raise GoldenError(f"found: {name} without {stem}{REQUEST_END}; expected: the request beside it")
    for data_set in sorted({name.split("/")[0] for name in files if "/" in name}):
        found.append(_data_set(data_set, files))
    if not found:
        raise GoldenError(
            f"found: no case; expected: NAME{REQUEST_END} with NAME{RESPONSE_END}, or {DATA_SET_START}0/ with "
            "input_0.pb and output_0.pb"
        )
    if len(found) > MAX_CASES:
        raise GoldenError(f"found: {len(found)} cases; expected: at most {MAX_CASES}")
    return found


def _data_set(name: str, files: dict[str, Path]) -> GoldenCase:
    tensors: dict[str, dict[int, Path]] = {"input": {}, "output": {}}
    for file, path in files.items():
        match = _TENSOR_FILE.fullmatch(file.removeprefix(name + "/")) if file.startswith(name + "/") else None
        if match is not None:
            tensors[match[1]][int(match[2])] = path
    for kind, by_number in tensors.items():
        if sorted(by_number) != list(range(len(by_number))) or not by_number:
            numbers = ", ".join(map(str, sorted(by_number))) or "none"
            raise GoldenError(f"found: {name} with {kind}s {numbers}; expected: {kind}_0.pb and so on without a gap")
    inputs, outputs = (tuple(path for _, path in sorted(by_number.items())) for by_number in tensors.values())
    return GoldenCase(name, inputs, outputs, False)


def _paths(folder: Path) -> list[Path]:
    """All files that may belong to a case, by name."""
    found: list[Path] = []
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith(DATA_SET_START) and entry.is_dir():
            found += sorted(path for path in entry.iterdir() if _TENSOR_FILE.fullmatch(path.name))
        elif entry.name.endswith((REQUEST_END, RESPONSE_END)) or entry.name == TOLERANCES_FILE:
            found.append(entry)
        if len(found) > 16 * MAX_CASES:
            raise GoldenError(f"found: more than {16 * MAX_CASES} files; expected: at most {MAX_CASES} cases")
    return found
