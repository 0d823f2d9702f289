"""What an executor is told of a model as a document for a channel, and back: it may come while the process runs.

JSON has neither tuples nor bytes nor paths, so each such value is an object that says what it is. The classes are those
below; both ends are of the same build, so nothing is checked.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from server.models.batch_axes import BatchAxes
from server.models.model_config import SessionSettings, WarmUp, WarmUpInput
from server.models.providers import Place, Provider
from server.models.shape_rules import Cut, Pad, Padding

_CLASSES: dict[str, Any] = {
    one.__name__: one for one in (BatchAxes, Cut, Pad, Padding, Place, Provider, SessionSettings, WarmUp, WarmUpInput)
}


def to_document(value: Any) -> Any:
    """The value as JSON has it. TypeError for one that from_document() could not make again."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    name = type(value).__name__
    if _CLASSES.get(name) is type(value):
        if dataclasses.is_dataclass(value):
            fields: list[Any] = [getattr(value, field.name) for field in dataclasses.fields(value)]
        else:
            fields = list(value)
        return {"is": name, "of": [to_document(one) for one in fields]}
    if isinstance(value, Path):
        return {"is": "path", "of": str(value)}
    if isinstance(value, bytes):
        return {"is": "bytes", "of": value.hex()}
    if isinstance(value, Mapping):
        return {"is": "map", "of": [[to_document(key), to_document(one)] for key, one in value.items()]}
    if isinstance(value, frozenset):
        return {"is": "set", "of": [to_document(one) for one in sorted(value)]}
    if type(value) is tuple:
        return {"is": "tuple", "of": [to_document(one) for one in value]}
    if type(value) is list:
        return [to_document(one) for one in value]
    raise TypeError(f"expected a value of a model's plan, got {type(value)}")


def from_document(document: Any) -> Any:
    """What to_document() was given."""
    if isinstance(document, list):
        return [from_document(one) for one in document]
    if not isinstance(document, dict):
        return document
    kind, of = document["is"], document["of"]
    if kind == "path":
        return Path(of)
    if kind == "bytes":
        return bytes.fromhex(of)
    if kind == "map":
        return {from_document(key): from_document(one) for key, one in of}
    values = [from_document(one) for one in of]
    if kind == "set":
        return frozenset(values)
    return tuple(values) if kind == "tuple" else _CLASSES[kind](*values)
