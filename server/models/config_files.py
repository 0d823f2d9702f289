"""The configurations of a repository's models: read once for each change of their files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from server.config import VersionPolicy
from server.models.file_state import ABSENT, FileState, file_state
from server.models.model_config import (
    CONFIG_FILE,
    MAX_CONFIG_BYTES,
    ModelConfigError,
    Parsed,
    parse_document,
    parse_text,
)

MAX_LABEL_BYTES = 4 << 20
MAX_LABEL_COUNT = 1 << 18


@dataclass(frozen=True, slots=True)
class ReadConfig:
    """A model's configuration, or why there is none that can be followed. `files` differs whenever they do."""

    files: tuple[FileState, ...] = ()
    found: Parsed | None = None
    error: str | None = None

    def parsed(self) -> Parsed | None:
        """What was read, None where there is no configuration. Raises ModelConfigError."""
        if self.error is not None:
            raise ModelConfigError(self.error)
        return self.found

    def policy(self) -> VersionPolicy:
        """The versions it asks for."""
        policy = self.found.config.version_policy if self.found is not None else None
        return policy or VersionPolicy()


class ConfigFiles:
    """For one thread."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, Path], ReadConfig] = {}
        #: Model -> what takes the place of its file, with a number that no other has had.
        self._given: dict[str, tuple[int, Mapping[str, Any]]] = {}
        self._count = 0

    def give(self, name: str, document: Mapping[str, Any] | None) -> None:
        """From now on a ModelConfig in JSON takes the place of the model's file; None: the file counts again."""
        self._given.pop(name, None)
        if document is not None:
            self._count += 1
            self._given[name] = (self._count, document)

    def read(self, name: str, folder: Path | None) -> ReadConfig:
        """The configuration of the model in `folder`; None for one that has no directory of its own."""
        if name in self._given:
            number, document = self._given[name]
            return _made(lambda: parse_document(dict(document), name), ((-1, number),), folder)
        if folder is None:
            return ReadConfig()
        file = folder / CONFIG_FILE
        files = (file_state(file),)
        if files == (ABSENT,):
            return ReadConfig()
        known = self._known.get((name, folder))
        if known is None or known.files != files + _label_signatures(known.found, folder):
            known = self._known[name, folder] = _made(lambda: parse_text(_text(file), name), files, folder)
        return known

    def written(self, name: str, folder: Path | None) -> list[Path]:
        """The files that were read for it."""
        if folder is None:
            return []
        parsed = self.read(name, folder).found
        outputs = parsed.config.outputs if parsed is not None else ()
        return [folder / CONFIG_FILE, *(folder / output.label_file for output in outputs if output.label_file)]


def _made(parse: Any, files: tuple[FileState, ...], folder: Path | None) -> ReadConfig:
    parsed: Parsed | None = None
    try:
        parsed = parse()
        signatures = _label_signatures(parsed, folder)
        labels = tuple(
            (output.name, _labels(parsed, index, folder))
            for index, output in enumerate(parsed.config.outputs)
            if output.label_file
        )
        parsed = replace(parsed, config=replace(parsed.config, labels=labels))
        return ReadConfig(files + signatures, parsed)
    except ModelConfigError as error:
        return ReadConfig(files + _label_signatures(parsed, folder), parsed, str(error))


def _text(file: Path) -> str:
    try:
        if not file.is_file():
            raise ModelConfigError(f"{CONFIG_FILE}: expected a file")
        with file.open("rb") as stream:
            data = stream.read(MAX_CONFIG_BYTES + 1)
        if len(data) > MAX_CONFIG_BYTES:
            raise ModelConfigError(f"{CONFIG_FILE}: expected at most {MAX_CONFIG_BYTES} bytes")
        return data.decode()
    except OSError as error:
        raise ModelConfigError(f"{CONFIG_FILE}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ModelConfigError(f"{CONFIG_FILE}: expected text in UTF-8") from None


def _labels(parsed: Parsed, index: int, folder: Path | None) -> tuple[str, ...]:
    output = parsed.config.outputs[index]
    place = f"output[{index}].label_filename"
    if folder is None:
        parsed.refuse(place, "expected a model in a directory of its own")
    try:
        # A pipe would keep the reader waiting for ever.
        if not (folder / output.label_file).is_file():
            parsed.refuse(place, f"expected a file {output.label_file!r} in the model's directory")
        with (folder / output.label_file).open("rb") as stream:
            data = stream.read(MAX_LABEL_BYTES + 1)
        lines = data.decode().split("\n")
    except OSError as error:
        parsed.refuse(place, f"expected a file {output.label_file!r} in the model's directory: {error.strerror}")
    except UnicodeDecodeError:
        parsed.refuse(place, f"expected text in UTF-8 in {output.label_file!r}")
    if len(data) > MAX_LABEL_BYTES or len(lines) > MAX_LABEL_COUNT:
        parsed.refuse(place, f"expected at most {MAX_LABEL_BYTES} bytes and {MAX_LABEL_COUNT} lines")
    if lines[-1] == "":
        lines.pop()
    return tuple(line.removesuffix("\r") for line in lines)


def _label_signatures(parsed: Parsed | None, folder: Path | None) -> tuple[FileState, ...]:
    if parsed is None or folder is None:
        return ()
    return tuple(file_state(folder / output.label_file) for output in parsed.config.outputs if output.label_file)
