"""tensorflow.serving.ModelServerConfig as model sources: from the file of --model_config_file, or a reload call."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from server.config import ModelSource, VersionPolicy
from server.errors import InvalidArgumentError


def sources_of(config: Any) -> tuple[ModelSource, ...]:
    """The models of a `model_config_list`. Raises InvalidArgumentError."""
    models = config.model_config_list.config
    if not models:
        raise InvalidArgumentError("expected a model_config_list with models in it, found none")
    sources = []
    names = set()
    for position, model in enumerate(models):
        if not model.name or not model.base_path:
            raise InvalidArgumentError(f"expected a name and a base_path, model {position + 1} has not both")
        if model.name in names:
            raise InvalidArgumentError(f"expected one model of each name, {model.name!r} is there twice")
        names.add(model.name)
        labels = tuple(sorted(model.version_labels.items()))
        sources.append(ModelSource(local(model.base_path), model.name, _policy(model), labels))
    return tuple(sources)


def local(path: str) -> Path:
    """A path of this host; raises InvalidArgumentError for an address of a store."""
    if "://" in path:
        raise InvalidArgumentError(f"expected a path of this host, got {path!r}; copy the model here first")
    return Path(path)


def _policy(model: Any) -> VersionPolicy:
    policy = model.model_version_policy
    kind = policy.WhichOneof("policy_choice")
    if kind == "all":
        return VersionPolicy("all")
    if kind == "specific":
        if not policy.specific.versions:
            raise InvalidArgumentError(f"expected versions in specific of {model.name!r}, found none")
        return VersionPolicy("specific", versions=tuple(policy.specific.versions))
    # 0 is TensorFlow Serving's default as well.
    return VersionPolicy("latest", count=policy.latest.num_versions or 1)


def to_rows(sources: Iterable[ModelSource]) -> list[dict[str, Any]]:
    """For a message to the supervisor; from_rows reads it."""
    return [
        {
            "path": str(source.path),
            "name": source.name,
            "kind": source.versions.kind,
            "count": source.versions.count,
            "versions": list(source.versions.versions),
            "labels": [list(pair) for pair in source.labels],
        }
        for source in sources
    ]


def from_rows(rows: Iterable[dict[str, Any]]) -> tuple[ModelSource, ...]:
    return tuple(
        ModelSource(
            Path(row["path"]),
            row["name"],
            VersionPolicy(row["kind"], row["count"], tuple(row["versions"])),
            tuple((label, version) for label, version in row["labels"]),
        )
        for row in rows
    )
