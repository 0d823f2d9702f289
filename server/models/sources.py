"""Finds the models of several places, each with the name and the versions that were asked for."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from server.config import ModelSource, VersionPolicy
from server.models import repository
from server.models.config_files import ConfigFiles
from server.models.repository import ModelVersion, Reader, RepositoryError


class Repository:
    """The places that a server's models come from; other ones may take their place while it runs."""

    def __init__(self, sources: Sequence[ModelSource], *, may_be_empty: bool = False) -> None:
        """may_be_empty: a directory without anything in it is waited for. One that had models and has none any more is
        an error all the same: it may have been unmounted.
        """
        self.sources = tuple(sources)
        self._reader = repository.Reader()
        self._may_be_empty = may_be_empty
        self._had_models: set[Path] = set()

    @property
    def configs(self) -> ConfigFiles:
        """The configurations of the models."""
        return self._reader.configs

    def scan(self) -> list[ModelVersion]:
        """The models of all sources; raises RepositoryError. Files that have not changed are not read again."""
        there = self.sources
        if self._may_be_empty:
            there = tuple(source for source in there if source.path in self._had_models or not _is_empty(source))
        found = scan_sources(there, self._reader)
        self._had_models |= {source.path for source in there}
        return found


def _is_empty(source: ModelSource) -> bool:
    """Whether it is a directory that holds nothing, but hidden entries."""
    try:
        return all(name.startswith(".") for name in os.listdir(source.path))
    except OSError:
        return False


def scan_sources(sources: Sequence[ModelSource], reader: Reader | None = None) -> list[ModelVersion]:
    """The models of all sources, by name and version, as repository.scan has those of one path.

    Raises RepositoryError also when two sources have a model of the same name, and when a source with a name holds
    several models.
    """
    found: list[ModelVersion] = []
    origin: dict[str, ModelSource] = {}
    for source in sources:
        of_source = scan_source(source, reader)
        for name in {item.name for item in of_source}:
            if name in origin:
                raise RepositoryError(
                    f"found: a model {name!r} in {origin[name].path} and one in {source.path}; expected: one model of "
                    f"a name; fix: rename one of them",
                    os.EX_CONFIG,
                )
            origin[name] = source
        found += of_source
    return sorted(found, key=lambda item: (item.name, item.version))


def scan_source(source: ModelSource, reader: Reader | None = None) -> list[ModelVersion]:
    """The models of one source; raises RepositoryError."""
    is_default = source.versions == VersionPolicy()
    found = repository.scan(source.path, all_versions=not is_default, reader=reader)
    if source.name is not None:
        found = _named(found, source, source.name)
    if is_default:
        return found
    return [item for name in dict.fromkeys(item.name for item in found) for item in _chosen(found, name, source)]


def _named(found: Sequence[ModelVersion], source: ModelSource, name: str) -> list[ModelVersion]:
    if not repository.NAME_RULE.fullmatch(name):
        raise RepositoryError(
            f"found: the model name {name!r}; expected: a letter or digit, then up to 127 of A-Z a-z 0-9 . _ -; "
            f"fix: rename it",
            os.EX_CONFIG,
        )
    names = sorted({item.name for item in found})
    # VERSION/model.onnx is two steps below the base path.
    if len(names) > 1 or any(len(item.path.relative_to(source.path).parts) > 2 for item in found):
        shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        raise RepositoryError(
            f"found: {source.path}, which holds directories of models ({shown}); expected: the base path of the one "
            f"model {name!r}, with VERSION/{repository.MODEL_FILE} in it; fix: give {source.path / names[0]}",
            os.EX_CONFIG,
        )
    return [dataclasses.replace(item, name=name) for item in found]


def _chosen(found: Sequence[ModelVersion], name: str, source: ModelSource) -> list[ModelVersion]:
    """The versions of one model that the source's policy asks for; one that is missing is there as an error."""
    policy = source.versions
    versions = {item.version: item for item in found if item.name == name}
    if policy.kind == "all":
        return list(versions.values())
    if policy.kind == "latest":
        return [versions[number] for number in sorted(versions)[-policy.count :]]
    there = ", ".join(map(str, sorted(versions))) or "none"
    return [
        versions.get(number)
        or ModelVersion(
            name,
            number,
            source.path / str(number),
            error=f"found: version {there}; expected: version {number}; fix: put it at "
            f"{source.path / str(number) / repository.MODEL_FILE}",
        )
        for number in dict.fromkeys(policy.versions)
    ]
