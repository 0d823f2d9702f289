"""Golden checks: a version serves only if it answers the requests in its `golden` folder as written there.

They run in the executor after warm-up, one request at a time, and end with the first difference: the version is refused
with the case, the output, the place and both values, and whatever served before serves on. Which files count is
server.models.golden_files.

Numbers that are not floating point, strings and shapes have to be equal. Floating-point numbers may differ by
`atol + rtol * |expected|`; a NaN equals a NaN. The defaults are TOLERANCES; golden.toml sets others, for all outputs or
for one:

    rtol = 1e-3
    atol = 1e-5
    [output.probabilities]
    atol = 1e-3

and a response's own `parameters` ({"rtol": ..., "atol": ...}) go before both. Outputs that a response leaves out are
not compared.
"""

from __future__ import annotations

import json
import time
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy

from server import log
from server.executor.backend import Backend, LoadError, ModelError, TensorBuffer
from server.executor.golden_tensors import (
    TensorError,
    buffer,
    from_json,
    from_proto,
    produced_array,
    read_bounded,
)
from server.executor.runner import TensorSpec
from server.models.golden_files import TOLERANCES_FILE, GoldenCase, GoldenError, cases
from server.protocol.datatypes import BY_CODE


class Tolerance(NamedTuple):
    """How far a number may be from the one expected."""

    rtol: float
    atol: float


#: Another machine's instructions round differently: these are what ONNX's own model tests allow, and less precision
#: where there is less of it.
TOLERANCES = {
    "FP64": Tolerance(1e-3, 1e-6),
    "FP32": Tolerance(1e-3, 1e-5),
    "FP16": Tolerance(1e-2, 1e-3),
    "BF16": Tolerance(5e-2, 1e-2),
}
EXACT = Tolerance(0.0, 0.0)
_KEYS = frozenset(Tolerance._fields)
if TYPE_CHECKING:
    from server.executor.golden_tensors import Array

    Expected = Mapping[str, tuple[Array, Mapping[str, float]]]


def check_golden(
    folder: Path | None,
    *,
    backend: Backend,
    native: Backend,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
) -> None:
    """Runs all cases; `backend` takes shapes as clients see them, `native` as the model has them. Raises LoadError."""
    if folder is None:
        return
    started_ns = time.monotonic_ns()
    place = folder.name
    try:
        found = cases(folder)
        tolerances = _tolerances(folder, [spec.name for spec in outputs])
    except (GoldenError, OSError) as error:
        raise LoadError(f"{place}: {_reason(error)}") from None
    for case in found:
        place = f"{folder.name}/{case.name}"
        try:
            buffers, keep, expected = _read(case, folder, inputs, outputs)
            names = list(expected)
            produced = (backend if case.is_json else native).run(buffers, names)
            for name, tensor in zip(names, produced, strict=True):
                code = next(spec.datatype for spec in outputs if spec.name == name)
                datatype = BY_CODE[code].name
                wanted, own = expected[name]
                allowed = TOLERANCES.get(datatype, EXACT)
                if datatype in TOLERANCES:
                    allowed = allowed._replace(**{**tolerances.get("", {}), **tolerances.get(name, {}), **own})
                difference = first_difference(wanted, produced_array(tensor, code), allowed)
                if difference is not None:
                    raise LoadError(f"{place}: output {name!r}{difference}")
            del keep
        except (GoldenError, TensorError, OSError) as error:
            raise LoadError(f"{place}: {_reason(error)}") from None
        except ModelError as error:
            raise LoadError(f"{place}: the model refused the request: {error}") from error
    took_ms = (time.monotonic_ns() - started_ns) // 10**6
    log.info("golden_passed", cases=len(found), took_ms=took_ms)


def first_difference(expected: Array, got: Array, allowed: Tolerance) -> str | None:
    """How `got` differs from `expected`, as text that goes behind the output's name, or None."""
    if expected.shape != got.shape:
        return f": expected shape {list(expected.shape)}, got {list(got.shape)}"
    if expected.dtype.kind == "f":
        wide, seen = expected.astype(numpy.float64), got.astype(numpy.float64)
        equal = numpy.isclose(seen, wide, allowed.rtol, allowed.atol, equal_nan=True)
        told = f"; allowed: rtol {allowed.rtol:g}, atol {allowed.atol:g}"
    else:
        equal = numpy.asarray(expected == got)
        told = ""
    if equal.all():
        return None
    index = tuple(int(axis) for axis in numpy.unravel_index(int(numpy.argmin(equal)), equal.shape))
    wrong_count = int(equal.size - numpy.count_nonzero(equal))
    return (
        f" at {list(index)}: expected {_value(expected[index])}, got {_value(got[index])} "
        f"({wrong_count} of {equal.size} differ{told})"
    )


def _value(item: Any) -> str:
    if isinstance(item, bytes):
        return repr(item.decode("utf-8", "replace")[:32])
    return f"{item:.9g}" if numpy.asarray(item).dtype.kind == "f" else str(item)


def _read(
    case: GoldenCase, folder: Path, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> tuple[list[TensorBuffer], list[Any], Expected]:
    keep: list[Any] = []
    root = folder.parent
    if case.is_json:
        request = _document(case.inputs[0], root, "inputs")
        answer = _document(case.outputs[0], root, "outputs")
        shared = _given(answer.get("parameters"), case.outputs[0].name)
        asked = [_json(tensor, case.inputs[0].name) for tensor in request["inputs"]]
        expected = {}
        for tensor in answer["outputs"]:
            name, datatype, array = _json(tensor, case.outputs[0].name)
            _fits(name, datatype.code, outputs, "output")
            expected[name] = (array, {**shared, **_given(tensor.get("parameters"), case.outputs[0].name)})
    else:
        asked = [_proto(path, root, index, inputs) for index, path in enumerate(case.inputs)]
        expected = {}
        for index, path in enumerate(case.outputs):
            name, datatype, array = _proto(path, root, index, outputs)
            _fits(name, datatype.code, outputs, "output")
            expected[name] = (array, {})
    buffers = []
    for name, datatype, array in asked:
        _fits(name, datatype.code, inputs, "input")
        buffers.append(buffer(name, datatype, array, keep))
    given = sorted(one.name for one in buffers)
    if given != sorted(spec.name for spec in inputs):
        raise TensorError(f"expected each of the inputs {', '.join(spec.name for spec in inputs)} once, got {given}")
    return buffers, keep, expected


def _fits(name: str, code: int, specs: Sequence[TensorSpec], kind: str) -> None:
    for spec in specs:
        if spec.name == name:
            if spec.datatype != code:
                raise TensorError(
                    f"{kind} {name!r}: the model's is {BY_CODE[spec.datatype].name}, expected is {BY_CODE[code].name}"
                )
            return
    raise TensorError(f"the model has no {kind} {name!r}, it has {', '.join(spec.name for spec in specs)}")


def _json(tensor: Any, file: str) -> Any:
    try:
        return from_json(tensor)
    except TensorError as error:
        raise TensorError(f"{file}: {error}") from None


def _proto(path: Path, root: Path, index: int, specs: Sequence[TensorSpec]) -> Any:
    """By its name if the model has one of that name, else by its number, as ONNX's own runner takes them."""
    try:
        name, datatype, array = from_proto(read_bounded(path, root))
    except TensorError as error:
        raise TensorError(f"{path.name} {error}") from None
    if all(spec.name != name for spec in specs):
        if index >= len(specs):
            raise TensorError(f"{path.name} has no counterpart: the model has {len(specs)} of them")
        name = specs[index].name
    return name, datatype, array


def _document(path: Path, root: Path, needed: str) -> dict[str, Any]:
    try:
        document = json.loads(read_bounded(path, root))
    except TensorError as error:
        raise TensorError(f"{path.name} {error}") from None
    except (ValueError, RecursionError):
        raise TensorError(f"{path.name} is no JSON text") from None
    if not isinstance(document, dict) or not isinstance(document.get(needed), list) or not document[needed]:
        found = "an error in place of an answer" if isinstance(document, dict) and "error" in document else "none"
        raise TensorError(f"{path.name}: expected a JSON object with `{needed}`, found {found}")
    return document


def _tolerances(folder: Path, outputs: Sequence[str]) -> dict[str, dict[str, float]]:
    """Of each output, "" for all. Raises GoldenError."""
    path = folder / TOLERANCES_FILE
    if not path.exists():
        return {}
    try:
        document = tomllib.loads(read_bounded(path, folder.parent).decode())
        found = {"": _given({key: value for key, value in document.items() if key != "output"}, TOLERANCES_FILE)}
        of_outputs = document.get("output", {})
        for name, table in of_outputs.items() if isinstance(of_outputs, dict) else ():
            if name not in outputs:
                raise TensorError(f"{TOLERANCES_FILE}: the model has no output {name!r}, it has {', '.join(outputs)}")
            found[name] = _given(table, TOLERANCES_FILE)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise GoldenError(f"{TOLERANCES_FILE} is no TOML text: {error}") from None
    except TensorError as error:
        raise GoldenError(str(error)) from None
    return found


def _given(table: Any, file: str) -> dict[str, float]:
    """The tolerances in a table; others of a response's parameters are the server's own."""
    if not isinstance(table, dict):
        return {}
    if file == TOLERANCES_FILE and not set(table) <= _KEYS:
        raise TensorError(f"{file}: expected rtol and atol, got {', '.join(sorted(set(table) - _KEYS))}")
    found = {key: table[key] for key in sorted(_KEYS & set(table))}
    for key, value in found.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
            raise TensorError(f"{file}: {key}: expected a number of 0 or more")
    return found


def _reason(error: Exception) -> str:
    return (error.strerror or "cannot be read") if isinstance(error, OSError) else str(error)
