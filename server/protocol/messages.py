"""Protobuf messages and services by full name, from the descriptor set that protos/ is compiled into.

A descriptor set instead of generated modules: those would claim the top-level package names `tensorflow` and
`tensorflow_serving`, and one file is what reflection needs anyway. The messages live in a pool of their own, so a
client library in the same process may have others of the same name. google.protobuf is imported on the first call of a
function, not with this module: a worker that serves no control RPC never loads it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DESCRIPTORS = Path(__file__).with_name("descriptors.binpb")


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC: its message classes, and which sides send more than one message."""

    request: Any
    reply: Any
    client_streaming: bool
    server_streaming: bool


@functools.cache
def _pool() -> tuple[Any, dict[str, Any]]:
    """The pool, and the file descriptors by path."""
    from google.protobuf import descriptor_pb2, descriptor_pool

    files = descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes()).file
    pool = descriptor_pool.DescriptorPool()
    for file in files:
        pool.Add(file)
    return pool, {file.name: pool.FindFileByName(file.name) for file in files}


@functools.cache
def message_class(full_name: str) -> Any:
    """The class of `inference.ModelMetadataRequest` and the like; KeyError when there is none."""
    from google.protobuf import message_factory

    return message_factory.GetMessageClass(_pool()[0].FindMessageTypeByName(full_name))


@functools.cache
def services() -> tuple[str, ...]:
    """Full names of all services, sorted."""
    files = _pool()[1].values()
    return tuple(sorted(service.full_name for file in files for service in file.services_by_name.values()))


@functools.cache
def method(path: str) -> Method | None:
    """The RPC behind a request path (`/inference.GRPCInferenceService/ServerLive`), None when there is none."""
    service_name, _, method_name = path.removeprefix("/").partition("/")
    try:
        found = _pool()[0].FindServiceByName(service_name).FindMethodByName(method_name)
    except KeyError:
        return None
    return Method(
        message_class(found.input_type.full_name),
        message_class(found.output_type.full_name),
        found.client_streaming,
        found.server_streaming,
    )


def from_document(document: Any, reply_class: Any) -> Any:
    """A message of `reply_class` from a JSON document of the same field names; fields it does not have are left out."""
    from google.protobuf import json_format

    return json_format.ParseDict(document, reply_class(), ignore_unknown_fields=True)


def from_text(text: str, full_name: str) -> Any:
    """The message that protobuf's text format describes; ValueError with line and column when it does not."""
    from google.protobuf import text_format

    try:
        return text_format.Parse(text, message_class(full_name)(), descriptor_pool=_pool()[0])
    except text_format.ParseError as error:
        raise ValueError(str(error)) from None


def from_document_strictly(document: Any, full_name: str) -> Any:
    """The message that a JSON document describes; ValueError names a field that it does not have."""
    from google.protobuf import json_format

    try:
        return json_format.ParseDict(document, message_class(full_name)(), max_recursion_depth=32)
    # Values of a type that it did not expect end in errors of other classes than its own.
    except (json_format.ParseError, TypeError, ValueError, AttributeError, KeyError, RecursionError) as error:
        raise ValueError(str(error)) from None


def enum_names(full_name: str) -> list[str]:
    """The values of an enum such as `inference.DataType`, in their order; KeyError when there is none."""
    return [value.name for value in _pool()[0].FindEnumTypeByName(full_name).values]


def file_named(path: str) -> list[bytes]:
    """For reflection: a .proto file's FileDescriptorProto and those of all that it imports; KeyError."""
    return _with_imports([_pool()[1][path]])


def file_of_symbol(symbol: str) -> list[bytes]:
    """The same for the file that declares a message, enum, service, method or field; KeyError."""
    pool, _ = _pool()
    try:
        return _with_imports([pool.FindFileContainingSymbol(symbol)])
    except KeyError:
        # The pool knows no symbol below a service or message.
        parent, _, member = symbol.rpartition(".")
        for find, members in (
            (pool.FindServiceByName, "methods_by_name"),
            (pool.FindMessageTypeByName, "fields_by_name"),
        ):
            try:
                found = find(parent)
            except KeyError:
                continue
            if member in getattr(found, members):
                return _with_imports([found.file])
        raise


def _with_imports(files: Iterable[Any]) -> list[bytes]:
    found: dict[str, bytes] = {}
    waiting = list(files)
    while waiting:
        file = waiting.pop()
        if file.name not in found:
            found[file.name] = file.serialized_pb
            waiting += file.dependencies
    return list(found.values())
