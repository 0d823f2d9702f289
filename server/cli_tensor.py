"""Input data for `headrace infer`: from a PNG, .npy or .json file, or random, as inputs of a V2 request.

A picture is fitted to the model by the number of its elements: [64] and [1,8,8] take an 8x8 grey picture, [3,H,W] and
[H,W,3] take RGB in their order. It is not resized: a model's idea of resizing is not ours to guess. Pixels are 0..255
times --scale.
"""

from __future__ import annotations

import json
import math
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server.cli_npy import ArrayError
from server.cli_npy import decode as decode_npy
from server.cli_parser import CommandError
from server.cli_png import Image, ImageError
from server.cli_png import decode as decode_png
from server.supervisor.banner import example_shape

FLOATS = frozenset({"FP16", "FP32", "FP64", "BF16"})
MAX_FILE_BYTES = 256 << 20

Element = bool | int | float


@dataclass(frozen=True, slots=True)
class ModelInput:
    """An input as the server's metadata describes it; -1 is a free dimension."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Pixels:
    """How pixels become elements."""

    scale: float = 1.0
    invert: bool = False


def model_inputs(metadata: dict[str, Any]) -> list[ModelInput]:
    """The inputs out of a V2 model metadata answer."""
    try:
        return [
            ModelInput(str(item["name"]), str(item["datatype"]), tuple(int(size) for size in item["shape"]))
            for item in metadata["inputs"]
        ]
    except (KeyError, TypeError, ValueError):
        raise CommandError("the server's model metadata is not that of the V2 protocol", os.EX_UNAVAILABLE) from None


def request_from_files(inputs: Sequence[ModelInput], files: Sequence[str], pixels: Pixels) -> dict[str, Any]:
    """A request from `--file` arguments: FILE for a model of one input, NAME=FILE for each input of any other.

    One .json file that is an object with "inputs" is taken as the whole request.
    """
    is_named = any(files[0].startswith(f"{item.name}=") for item in inputs)
    if len(files) == 1 and files[0].endswith(".json") and not is_named:
        document = _json(Path(files[0]), _read(Path(files[0])))
        if isinstance(document, dict):
            if "inputs" not in document:
                raise CommandError(f'{files[0]}: expected an array, or an object with "inputs"', os.EX_DATAERR)
            return document
    given = [_assign(inputs, argument) for argument in files]
    missing = [item.name for item in inputs if item.name not in [target.name for target, _ in given]]
    if missing or len(given) != len(inputs):
        wanted = " ".join(f"--file {item.name}=FILE" for item in inputs)
        raise CommandError(f"expected one file for each input: {wanted}", os.EX_USAGE)
    return {"inputs": [_from_file(target, path, pixels) for target, path in given]}


def random_request(inputs: Sequence[ModelInput], row_count: int, seed: int) -> dict[str, Any]:
    """Floats in [0, 1), whole numbers 0 to 9, booleans; the same for the same seed."""
    rng = random.Random(seed)
    makers: dict[str, Callable[[], Element]] = {"BOOL": lambda: rng.random() < 0.5}
    parts = []
    for item in inputs:
        if item.dtype == "BYTES":
            raise CommandError(f"input {item.name!r} takes BYTES, for which there is no --random", os.EX_USAGE)
        shape = example_shape(item.shape, row_count)
        floats = item.dtype in FLOATS
        make = makers.get(item.dtype) or ((lambda: round(rng.random(), 6)) if floats else (lambda: rng.randrange(10)))
        parts.append(_tensor(item, shape, [make() for _ in range(math.prod(shape))]))
    return {"inputs": parts}


def _assign(inputs: Sequence[ModelInput], argument: str) -> tuple[ModelInput, Path]:
    for item in inputs:
        if argument.startswith(f"{item.name}="):
            return item, Path(argument[len(item.name) + 1 :])
    if len(inputs) == 1:
        return inputs[0], Path(argument)
    names = ", ".join(item.name for item in inputs)
    raise CommandError(f"expected INPUT=FILE with INPUT one of {names}, got {argument!r}", os.EX_USAGE)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}", os.EX_NOINPUT) from None
    if len(data) > MAX_FILE_BYTES:
        raise CommandError(f"{path}: expected at most {MAX_FILE_BYTES} bytes", os.EX_DATAERR)
    return data


def _json(path: Path, data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CommandError(f"{path} is not JSON: {error}", os.EX_DATAERR) from None


def _from_file(item: ModelInput, path: Path, pixels: Pixels) -> dict[str, Any]:
    data = _read(path)
    try:
        if path.suffix == ".npy":
            array = decode_npy(data)
            return _fitted(item, path, list(array.shape), array.values)
        if path.suffix == ".png":
            return _from_image(item, path, decode_png(data), pixels)
    except (ArrayError, ImageError) as error:
        raise CommandError(f"{path}: {error}", os.EX_DATAERR) from None
    if path.suffix != ".json":
        raise CommandError(f"{path}: expected a .png, .npy or .json file", os.EX_DATAERR)
    document = _json(path, data)
    shape = _nested_shape(document)
    if shape is None:
        raise CommandError(f"{path}: expected a number or nested arrays of equal lengths", os.EX_DATAERR)
    return _fitted(item, path, shape, _flatten(document, len(shape)))


def _nested_shape(document: Any) -> list[int] | None:
    """Lengths of nested arrays; None if they are ragged or hold anything but numbers and booleans."""
    if isinstance(document, int | float):
        return []
    if not isinstance(document, list):
        return None
    shapes = [_nested_shape(item) for item in document]
    if not shapes:
        return [0]
    if shapes[0] is None or any(shape != shapes[0] for shape in shapes):
        return None
    return [len(shapes), *shapes[0]]


def _flatten(document: Any, depth: int) -> list[Element]:
    items = [document] if depth == 0 else document
    for _ in range(depth - 1):
        items = [element for part in items for element in part]
    return list(items)


def _fitted(item: ModelInput, path: Path, found: list[int], values: list[Element]) -> dict[str, Any]:
    """The values under a shape the model takes: as found, or with a batch axis in front."""
    for shape in (found, [1, *found]):
        if _takes(item, shape):
            return _tensor(item, shape, values)
    # Flat values for a model of several axes, or the other way round: the count decides, if it can.
    shape = example_shape(item.shape)
    free = [axis for axis, size in enumerate(item.shape) if size < 0]
    if len(free) <= 1 and (len(found) <= 1 or len(item.shape) <= 2):
        rest = math.prod(size for size in item.shape if size >= 0)
        if free and rest and len(values) % rest == 0:
            shape[free[0]] = len(values) // rest
        if math.prod(shape) == len(values):
            return _tensor(item, shape, values)
    raise CommandError(
        f"{path}: input {item.name!r} takes shape {list(item.shape)}, the file has {found}", os.EX_DATAERR
    )


def _from_image(item: ModelInput, path: Path, image: Image, pixels: Pixels) -> dict[str, Any]:
    height, width = image.height, image.width
    planes = [image.pixels[channel :: image.channels] for channel in range(image.channels)]
    grey = planes if len(planes) == 1 else [bytes(map(_luma, *planes))]
    colour = planes if len(planes) == 3 else planes * 3
    interleaved = bytes(value for pixel in zip(*colour, strict=True) for value in pixel)
    # (dimensions without the batch axis) -> the bytes in that order; the first that fits wins.
    layouts: list[tuple[list[int], bytes]] = [
        ([height, width], grey[0]),
        ([1, height, width], grey[0]),
        ([height, width, 1], grey[0]),
        ([height * width], grey[0]),
        ([3, height, width], b"".join(colour)),
        ([height, width, 3], interleaved),
        ([3 * height * width], interleaved),
    ]
    for dims, data in layouts:
        for shape in ([1, *dims], dims):
            if _takes(item, shape):
                return _tensor(item, shape, _elements(item, data, pixels))
    raise CommandError(
        f"{path}: input {item.name!r} takes shape {list(item.shape)}, the picture has {width}x{height} pixels: "
        "resize it to what the model takes",
        os.EX_DATAERR,
    )


def _takes(item: ModelInput, shape: Sequence[int]) -> bool:
    fits = (want in (-1, size) for want, size in zip(item.shape, shape, strict=False))
    return len(shape) == len(item.shape) and all(fits)


def _luma(red: int, green: int, blue: int) -> int:
    """Grey of a colour by ITU-R BT.601, as most image libraries do it."""
    return (299 * red + 587 * green + 114 * blue + 500) // 1000


def _elements(item: ModelInput, data: bytes, pixels: Pixels) -> list[Element]:
    values = [255 - value for value in data] if pixels.invert else list(data)
    if item.dtype in FLOATS:
        return [value * pixels.scale for value in values]
    return [round(value * pixels.scale) for value in values]


def _tensor(item: ModelInput, shape: Sequence[int], values: list[Element]) -> dict[str, Any]:
    return {"name": item.name, "shape": list(shape), "datatype": item.dtype, "data": values}
