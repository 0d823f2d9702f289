"""Finds the models under the PATH that `headrace serve` is given, and reads each one's header.

PATH is one of
    a file           NAME.onnx                  model NAME, version 1
    a directory      NAME/model.onnx            model NAME, version 1
    a model          NAME/VERSION/model.onnx    with PATH = NAME
    a repository     NAME/VERSION/model.onnx    with PATH the directory above NAME; all its models

VERSION is a number, zeros in front do not count (00000123 is version 123). Hidden entries are skipped. A config.pbtxt
lies in the directory NAME, golden checks there or beside a model.onnx. A model that cannot be served stays in the list
with its reason; only a PATH in which there is nothing to look at raises.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote

from server.config import VersionPolicy
from server.errors import ConfigurationError
from server.models import config_fit, external_data, golden_files, onnx_file
from server.models.batchability import Batching
from server.models.config_files import ConfigFiles
from server.models.config_fit import Fitted
from server.models.file_state import FileState, file_state
from server.models.model_config import NO_CONFIG, ModelConfig, ModelConfigError
from server.models.onnx_file import ModelFileError, OnnxModel

MODEL_FILE = "model.onnx"
NAME_RULE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)
_VERSION_RULE = re.compile(r"[0-9]{1,19}", re.ASCII)
#: Versions are int64 on every wire.
MAX_VERSION = (1 << 63) - 1
#: The data path keeps dimensions in arrays of this length.
MAX_RANK = 8


Files = tuple[FileState, ...]


class RepositoryError(ConfigurationError):
    """PATH holds nothing to serve: the text has what was found, what was expected and the fix; `exit_code` is a
    sysexit.
    """

    def __init__(self, message: str, exit_code: int = os.EX_NOINPUT) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One model version as found; it can be served if `error` is None, and then `model`, `batching` and `fitted` are
    set. `model` has the shapes that config.pbtxt gives it.
    """

    name: str
    version: int
    path: Path
    model: OnnxModel | None = None
    batching: Batching | None = None
    error: str | None = None
    config: ModelConfig = NO_CONFIG
    fitted: Fitted | None = None
    #: What the system says of its files: differs whenever they do.
    files: Files = ()
    #: The folder with the requests that it has to answer as written there before it serves.
    golden: Path | None = None
    #: When the system last changed the entry of one of its files, in wall time.
    written_ns: int = 0
    #: Bytes of the files beside the model's that hold its weights.
    weights_bytes: int = 0
    #: The error is in the model file itself.
    is_no_model: bool = False

    def model_files(self) -> dict[Path, FileState]:
        """What the model is read from, its file first, and how these were when it was."""
        return dict(zip(_paths(self.path, self.model), self.files, strict=False))


class Reader:
    """Reads models; one that could be served is read again only when its files have changed. For one thread.

    So is one whose file is no model, since finding that out may take seconds. What hinders all others may go away
    without a trace in the files.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, int, Path], ModelVersion] = {}
        #: The configurations, of files and of those that were given in their place.
        self.configs = ConfigFiles()

    def read(self, name: str, version: int, file: Path, folder: Path | None) -> ModelVersion:
        """The model version in `file`, its configuration in `folder`; one that cannot be served has the reason in
        it.
        """
        read_config = self.configs.read(name, folder)
        golden = golden_files.golden_folder(file, folder)
        others = read_config.files + golden_files.signature(golden)
        known = self._known.get((name, version, file))
        may_stay = known is not None and (known.error is None or known.is_no_model)
        if known is not None and may_stay and known.files == _files(file, known.model) + others:
            return known
        before = _files(file, None)
        found = _read(name, version, file)
        after = _files(file, found.model)
        if after[:1] != before:
            found = replace(found, error=f"{file} changed while it was read", model=None, is_no_model=False)
        elif found.error is None and found.model is not None:
            try:
                parsed = read_config.parsed()
                fitted = (
                    config_fit.without_config(found.model) if parsed is None else config_fit.fit(parsed, found.model)
                )
                config = NO_CONFIG if parsed is None else parsed.config
                found = replace(found, model=fitted.model, batching=fitted.batching, fitted=fitted, config=config)
            except ModelConfigError as error:
                found = replace(found, error=str(error))
        self._known[name, version, file] = found = replace(
            found,
            files=after + others,
            golden=golden,
            written_ns=_written_ns(
                [*_paths(file, found.model), *self.configs.written(name, folder), *golden_files.written(golden)]
            ),
            weights_bytes=sum(entry[2] for entry in after[1:] if len(entry) > 2),
        )
        return found


def scan(
    path: str | os.PathLike[str], *, all_versions: bool = False, reader: Reader | None = None
) -> list[ModelVersion]:
    """The models under `path`, by name and version; of each model the highest version, or all of them.

    Raises RepositoryError (exit 66 nothing there, 77 no permission). A bad highest version is reported as such and
    not replaced by a lower one: which version answers must not depend on an accident.
    """
    root = Path(path)
    try:
        found = _scan(root, all_versions, reader or Reader())
    except FileNotFoundError as error:
        raise RepositoryError(_not_found(Path(error.filename or root))) from None
    except PermissionError as error:
        where = error.filename or root
        raise RepositoryError(
            f"found: {where}, which this user (uid {os.getuid()}) may not read; expected: read permission; "
            f"fix: chmod -R a+rX {where}",
            os.EX_NOPERM,
        ) from None
    return sorted(found, key=lambda item: (item.name, item.version))


def _scan(root: Path, all_versions: bool, reader: Reader) -> list[ModelVersion]:
    if root.is_file():
        if root.suffix != ".onnx":
            raise RepositoryError(f"found: the file {root}; expected: an .onnx file or a directory; fix: {_usage()}")
        return [reader.read(root.stem, 1, root, None)]
    if not root.is_dir():
        # Tells apart "is not there" from "is something else".
        os.stat(root)
        raise RepositoryError(f"found: {root}, neither a file nor a directory; expected: {_usage()}")
    # The name of "." and of "models/.." is that of the directory they lead to.
    own_name = root.resolve().name
    if (root / MODEL_FILE).exists():
        parent = root.resolve().parent
        if _is_version(own_name) and NAME_RULE.fullmatch(parent.name):
            # One version of NAME/VERSION: its configuration lies beside it.
            return [_version(parent.name, int(own_name), [root], parent, reader)]
        return [reader.read(own_name, 1, root / MODEL_FILE, root)]
    folders = _folders(root)
    if any(_is_version(folder.name) and (folder / MODEL_FILE).exists() for folder in folders):
        return _model(own_name, root, all_versions, reader)
    if not any((folder / MODEL_FILE).exists() or _versions(folder) for folder in folders):
        raise RepositoryError(_nothing_in(root))
    return [item for folder in folders for item in _model(folder.name, folder, all_versions, reader)]


def _model(name: str, folder: Path, all_versions: bool, reader: Reader) -> list[ModelVersion]:
    """The versions of one model's directory; an unreadable directory is that model's error, not its neighbours'."""
    try:
        versions = _versions(folder)
    except OSError as error:
        return [ModelVersion(name, 0, folder, error=f"{folder}: {error.strerror}")]
    if not versions:
        if not NAME_RULE.fullmatch(name):
            return [ModelVersion(name, 0, folder, error=_bad_name(name))]
        flat = folder / MODEL_FILE
        first = quote(str(folder / "1"))
        fix = (
            f"mkdir {first} && mv {quote(str(flat))} {first}"
            if flat.exists()
            else f"put it at {folder / '1' / MODEL_FILE}"
        )
        found = flat if flat.exists() else "no directory whose name is a number"
        return [
            ModelVersion(name, 0, folder, error=f"found: {found}; expected: {name}/VERSION/{MODEL_FILE}; fix: {fix}")
        ]
    numbers: dict[int, list[Path]] = {}
    for number, version_folder in versions:
        numbers.setdefault(number, []).append(version_folder)
    chosen = (
        sorted(numbers) if all_versions else _of_policy(sorted(numbers), reader.configs.read(name, folder).policy())
    )
    return [_version(name, number, numbers.get(number, []), folder, reader) for number in chosen]


def _of_policy(numbers: list[int], policy: VersionPolicy) -> list[int]:
    """The versions that the model's own configuration asks for."""
    if policy.kind == "specific":
        return sorted(policy.versions)
    return numbers if policy.kind == "all" else numbers[-policy.count :]


def _version(name: str, number: int, folders: list[Path], folder: Path, reader: Reader) -> ModelVersion:
    if not folders:
        missing = folder / str(number) / MODEL_FILE
        reason = f"found: no version {number}, which version_policy of config.pbtxt asks for; fix: put it at {missing}"
        return ModelVersion(name, number, missing.parent, error=reason)
    file = folders[0] / MODEL_FILE
    if len(folders) > 1:
        names = " and ".join(sorted(folder.name for folder in folders))
        return ModelVersion(name, number, file, error=f"found: {names}, all of them version {number}; fix: keep one")
    return reader.read(name, number, file, folder)


def _paths(file: Path, model: OnnxModel | None) -> list[Path]:
    locations = {tensor.location for tensor in model.external_data} if model is not None else set()
    return [file, *(file.parent / location for location in sorted(locations))]


def _written_ns(paths: Sequence[Path]) -> int:
    found = 0
    for path in paths:
        with contextlib.suppress(OSError, ValueError):
            found = max(found, path.stat().st_ctime_ns)
    return found


def _files(file: Path, model: OnnxModel | None) -> Files:
    """Of the model file and of the files that its weights lie in."""
    return tuple(map(file_state, _paths(file, model)))


def _read(name: str, version: int, file: Path) -> ModelVersion:
    if not NAME_RULE.fullmatch(name):
        return ModelVersion(name, version, file, error=_bad_name(name))
    try:
        model = onnx_file.read_model(file)
    except ModelFileError as error:
        return ModelVersion(name, version, file, error=f"{file} {error}", is_no_model=True)
    except FileNotFoundError:
        return ModelVersion(name, version, file, error=_no_file(file))
    except OSError as error:
        return ModelVersion(name, version, file, error=f"{file}: {error.strerror}")
    try:
        external_data.check(model)
    except ModelFileError as error:
        return ModelVersion(name, version, file, error=f"{file} {error}")
    except OSError as error:
        return ModelVersion(name, version, file, error=f"{file}: {error.strerror}")
    unsupported = unsupported_reason(model)
    if unsupported is not None:
        return ModelVersion(name, version, file, model, error=unsupported)
    return ModelVersion(name, version, file, model)


def _bad_name(name: str) -> str:
    rule = "a letter or digit, then up to 127 of A-Z a-z 0-9 . _ -"
    return f"found: the model name {name!r}; expected: {rule}; fix: rename it"


def unsupported_reason(model: OnnxModel) -> str | None:
    """Why a readable model cannot be served, or None."""
    if not model.inputs:
        return "the model has no inputs: there is nothing to ask it"
    for kind, tensors in (("input", model.inputs), ("output", model.outputs)):
        for tensor in tensors:
            if tensor.dtype not in SERVED_DATATYPES:
                return f"{kind} {tensor.name!r} is of type {tensor.dtype}, which is not served yet"
            if tensor.shape is not None and len(tensor.shape) > MAX_RANK:
                return f"{kind} {tensor.name!r} has {len(tensor.shape)} dimensions; at most {MAX_RANK} are served"
    return None


#: The datatypes of the V2 protocol.
SERVED_DATATYPES = frozenset(onnx_file.V2_DATATYPES.values())


def _folders(root: Path) -> list[Path]:
    return sorted(entry for entry in root.iterdir() if not entry.name.startswith((".", "__")) and entry.is_dir())


def _versions(folder: Path) -> list[tuple[int, Path]]:
    """The subdirectories whose name is a version, whether or not a model lies in them."""
    numbered = ((entry.name, entry) for entry in _folders(folder))
    return [(int(name), entry) for name, entry in numbered if _is_version(name)]


def _is_version(name: str) -> bool:
    return _VERSION_RULE.fullmatch(name) is not None and int(name) <= MAX_VERSION


def _usage() -> str:
    return f"NAME.onnx, a directory with {MODEL_FILE}, or a tree NAME/VERSION/{MODEL_FILE}"


def _not_found(path: Path) -> str:
    there = path
    while not there.exists() and there != there.parent:
        there = there.parent
    return f"found: {there} but no {path.name!r} in it; expected: {_usage()}; fix: check the path {path}"


def _no_file(file: Path) -> str:
    """Why there is no model file in its directory, which is there."""
    if file.is_symlink():
        return f"found: {file}, a link to {file.readlink()}, which is not there; expected: an ONNX file"
    others = [other for other in _listed(file.parent) if other.suffix == ".onnx"]
    if len(others) == 1:
        return f"found: {others[0]}; expected: {file.name}; fix: mv {quote(str(others[0]))} {quote(str(file))}"
    return f"{file}: No such file or directory"


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _one_level_down(root: Path) -> str:
    """What looks like a model's directory, and what it should be like; "" if nothing does."""
    for folder in filter(Path.is_dir, _listed(root)):
        for entry in _listed(folder):
            wanted = folder / "1" / MODEL_FILE
            if entry.suffix == ".onnx":
                fix = f"mkdir {quote(str(wanted.parent))} && mv {quote(str(entry))} {quote(str(wanted))}"
                return f"found: {entry}; expected: {folder.name}/VERSION/{MODEL_FILE}; fix: {fix}"
            if (number := re.fullmatch("[vV]([0-9]+)", entry.name)) and (entry / MODEL_FILE).exists():
                fix = f"mv {quote(str(entry))} {quote(str(folder / number[1]))}"
                return f"found: {entry / MODEL_FILE}; expected: VERSION is a number; fix: {fix}"
    return ""


def _nothing_in(root: Path) -> str:
    entries = sorted(entry.name for entry in root.iterdir())
    files = [name for name in entries if name.endswith(".onnx")]
    if len(files) == 1:
        return (
            f"found: {files[0]} in {root}; expected: {MODEL_FILE} or NAME/VERSION/{MODEL_FILE}; "
            f"fix: headrace serve {quote(str(root / files[0]))}"
        )
    if files:
        shown = ", ".join(files[:3]) + (" ..." if len(files) > 3 else "")
        folder = root / Path(files[0]).stem / "1"
        return (
            f"found: {len(files)} .onnx files in {root} ({shown}); expected: NAME/VERSION/{MODEL_FILE}; "
            f"fix: mkdir -p {quote(str(folder))} && "
            f"mv {quote(str(root / files[0]))} {quote(str(folder / MODEL_FILE))}, and so on"
        )
    if below := _one_level_down(root):
        return below
    shown = ", ".join(entries[:5]) + (" ..." if len(entries) > 5 else "") or "nothing"
    return f"found: no model in {root} (it holds {shown}); expected: {_usage()}; fix: check the path"
