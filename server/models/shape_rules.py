"""Parameters of a configuration that say how the axes of single tensors are served: pad_INPUT and cut_OUTPUT.

The grammar, and what follows from it and the names of axes in the model's file. Pure functions; ShapeRuleError names
what is wrong, whoever knows the line adds it. What padding costs is server.batching.padding's question.

    pad_INPUT:  axis=A [value=V] (multiple=M [max=L] | like=OTHER[:B]) [alone=exact|padded] [together=cheaper|always]
    cut_OUTPUT: axis=A like=INPUT[:B] [ratio=P/Q] [round=up|down]
                none

Several axes stand with ; between them.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from server.models.batchability import shape_text
from server.models.onnx_file import TensorInfo
from server.protocol.datatypes import BY_NAME

PAD, CUT = "pad_", "cut_"
#: layout.h: MAX_PADS.
MAX_PADS = 16
MAX_LENGTH = (1 << 31) - 1
_WORD = re.compile(r"([a-z]+)=(\S+)", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,10}", re.ASCII)
_RATIO = re.compile(r"([1-9][0-9]{0,5})/([1-9][0-9]{0,5})", re.ASCII)
_INTEGER = re.compile(r"[+-]?[0-9]{1,20}", re.ASCII)
#: datatype -> struct format, where it is not a float of its own.
_FORMATS = {
    "BOOL": "B", "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q", "INT8": "b", "INT16": "h", "INT32": "i",
    "INT64": "q", "FP16": "e", "FP32": "f", "FP64": "d",
}  # fmt: skip


class ShapeRuleError(ValueError):
    """A parameter that cannot be followed; `key` is its name, or one that the others need."""

    def __init__(self, key: str, text: str) -> None:
        super().__init__(text)
        self.key = key


class Pad(NamedTuple):
    """One axis of an input, the batch axis counted as 0. Axes of one group always have the same length; may_be_exact:
    the model takes lengths that are no multiples; always_together: whatever waits together runs together.
    """

    tensor: int
    axis: int
    group: int
    multiple: int
    max: int
    value: bytes
    may_be_exact: bool = True
    always_together: bool = False


class Cut(NamedTuple):
    """An axis of an output that is as long as a group's, times numerator / denominator, rounded up unless said."""

    output: int
    axis: int
    group: int
    numerator: int = 1
    denominator: int = 1
    is_rounded_down: bool = False

    def length(self, of: int) -> int:
        """How long the output is where the input's axis has this length."""
        if self.is_rounded_down:
            return of * self.numerator // self.denominator
        return -(-of * self.numerator // self.denominator)


class Padding(NamedTuple):
    """What is padded and what is cut back; `pads` by group."""

    pads: tuple[Pad, ...] = ()
    cuts: tuple[Cut, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.pads)


NO_PADDING = Padding()


class _Axis(NamedTuple):
    """A pad rule as it is written; `like` is another axis that it goes with, in place of multiple and max."""

    key: str
    axis: int
    value: bytes
    multiple: int
    max: int
    like: tuple[int, int] | None
    may_be_exact: bool
    always_together: bool


def is_shape_rule(key: str) -> bool:
    """Whether this parameter is one of those read here."""
    return any(key.startswith(prefix) and len(key) > len(prefix) for prefix in (PAD, CUT))


def padding_of(parameters: Mapping[str, str], inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]) -> Padding:
    """What the parameters say of a model's tensors, batch axis first. Raises ShapeRuleError.

    Other inputs' axes that the file names like a padded one are padded with it, with zeros unless they have a rule of
    their own; outputs' axes that are named so are cut unless a rule says otherwise.
    """
    written: dict[tuple[int, int], _Axis] = {}
    for key, text in parameters.items():
        if key.startswith(PAD):
            tensor = _find(key, PAD, "input", inputs)
            for rule in _pad_rules(key, text, tensor, inputs):
                if (tensor, rule.axis) in written:
                    raise ShapeRuleError(key, f"axis {rule.axis} stands there twice")
                written[tensor, rule.axis] = rule
    values = {tensor: rule.value for (tensor, _), rule in reversed(written.items())}
    for (tensor, axis), rule in written.items():
        if rule.value != values[tensor]:
            raise ShapeRuleError(rule.key, f"expected the same value= for axis {axis} as for the others of the input")
    pads: list[Pad] = []
    for number, group in enumerate(_groups(written, inputs)):
        rules = [written[place] for place in group if place in written]
        lead = next(rule for rule in rules if rule.like is None)
        may_be_exact = all(rule.may_be_exact for rule in rules)
        always = any(rule.always_together for rule in rules)
        for tensor, axis in group:
            value = values.get(tensor) or b"\0" * BY_NAME[inputs[tensor].dtype].size_bytes
            pads.append(Pad(tensor, axis, number, lead.multiple, lead.max, value, may_be_exact, always))
    if len(pads) > MAX_PADS:
        raise ShapeRuleError(
            next(iter(written.values())).key, f"expected at most {MAX_PADS} padded axes, got {len(pads)}"
        )
    return Padding(tuple(pads), _cuts(parameters, pads, inputs, outputs))


def _find(key: str, prefix: str, kind: str, tensors: Sequence[TensorInfo]) -> int:
    name = key.removeprefix(prefix)
    for index, tensor in enumerate(tensors):
        if tensor.name == name:
            return index
    names = ", ".join(prefix + tensor.name for tensor in tensors)
    raise ShapeRuleError(key, f"expected the name of an {kind}: one of {names}")


def _words(key: str, text: str, known: Sequence[str]) -> dict[str, str]:
    """The key=value words of one rule."""
    words: dict[str, str] = {}
    for item in text.split():
        match = _WORD.fullmatch(item)
        if match is None or match[1] not in known or match[1] in words:
            expected = " ".join(f"{word}=..." for word in known)
            raise ShapeRuleError(key, f"expected {expected}, each once at most, got {item!r}")
        words[match[1]] = match[2]
    return words


def _choice(key: str, words: Mapping[str, str], word: str, choices: tuple[str, str]) -> str:
    """One of two values, the first by default."""
    found = words.get(word, choices[0])
    if found not in choices:
        raise ShapeRuleError(key, f"expected {word}={choices[0]} or {word}={choices[1]}, got {found!r}")
    return found


def _number(key: str, words: Mapping[str, str], word: str, default: int | None, low: int, high: int) -> int:
    text = words.get(word)
    if text is None and default is not None:
        return default
    if text is None or not _NUMBER.fullmatch(text) or not low <= int(text) <= high:
        raise ShapeRuleError(key, f"expected {word}= with a number from {low} to {high}, got {text or 'none'!r}")
    return int(text)


def _free_axis(key: str, words: Mapping[str, str], kind: str, tensor: TensorInfo) -> int:
    """The axis= of a rule, which has to be a free one behind the batch axis."""
    shape = tensor.shape or ()
    axis = _number(key, words, "axis", None, 1, MAX_LENGTH)
    if axis >= len(shape) or isinstance(shape[axis], int):
        free = [str(index) for index, size in enumerate(shape) if index and not isinstance(size, int)]
        raise ShapeRuleError(
            key,
            f"expected a free axis of {kind} {tensor.name!r} {shape_text(shape)} behind the batch axis "
            f"({', '.join(free) or 'it has none'}), got axis={axis}",
        )
    return axis


def _pad_rules(key: str, text: str, tensor: int, inputs: Sequence[TensorInfo]) -> list[_Axis]:
    found = []
    own = inputs[tensor]
    for part in text.split(";"):
        words = _words(key, part, ("axis", "value", "multiple", "max", "like", "alone", "together"))
        axis = _free_axis(key, words, "input", own)
        value = element(key, words.get("value", "0"), own.dtype)
        alone = _choice(key, words, "alone", ("exact", "padded"))
        together = _choice(key, words, "together", ("cheaper", "always"))
        like = None
        if "like" in words:
            if "multiple" in words or "max" in words:
                raise ShapeRuleError(
                    key, "expected either like=, or multiple= and max=, since an axis goes with its like"
                )
            like = _place(key, words["like"], inputs, _free_axes(inputs))
            if like == (tensor, axis):
                raise ShapeRuleError(key, f"expected another axis, got like={words['like']}")
        multiple = _number(key, words, "multiple", None if like is None else 1, 1, MAX_LENGTH)
        longest = _number(key, words, "max", MAX_LENGTH, 1, MAX_LENGTH)
        if longest < multiple:
            raise ShapeRuleError(key, f"expected max= of at least multiple={multiple}, got {longest}")
        found.append(_Axis(key, axis, value, multiple, longest, like, alone == "exact", together == "always"))
    return found


def _place(key: str, text: str, inputs: Sequence[TensorInfo], among: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """(input, axis) of INPUT:AXIS, or of INPUT alone if one of its axes only is among those."""
    # A name may have colons in it.
    name, _, digits = text.rpartition(":")
    if not name or not _NUMBER.fullmatch(digits):
        name, digits = text, ""
    for index, tensor in enumerate(inputs):
        if tensor.name != name:
            continue
        axes = [axis for other, axis in among if other == index and digits in ("", str(axis))]
        if len(axes) == 1:
            return index, axes[0]
        found = ", ".join(f"{name}:{axis}" for other, axis in among if other == index)
        raise ShapeRuleError(
            key, f"expected like= with one axis of {name!r}: {found or 'none can be taken'}; got {text!r}"
        )
    names = ", ".join(repr(tensor.name) for tensor in inputs)
    raise ShapeRuleError(key, f"expected like=INPUT or like=INPUT:AXIS with one of {names}, got {text!r}")


def element(key: str, text: str, datatype: str) -> bytes:
    """One element of a datatype, as it lies in memory."""
    if datatype == "BYTES":
        raise ShapeRuleError(key, "strings are not padded")
    try:
        if datatype == "BF16":
            bits: int = struct.unpack("<I", struct.pack("<f", float(text)))[0]
            return struct.pack("<H", (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16)
        letter = _FORMATS[datatype]
        if letter in "efd":
            return struct.pack(f"<{letter}", float(text))
        if not _INTEGER.fullmatch(text) or (datatype == "BOOL" and text not in ("0", "1")):
            raise ValueError
        return struct.pack(f"<{letter}", int(text))
    except (ValueError, OverflowError, struct.error):
        raise ShapeRuleError(key, f"expected value= with a {datatype}, got {text!r}") from None


def _groups(written: Mapping[tuple[int, int], _Axis], inputs: Sequence[TensorInfo]) -> list[list[tuple[int, int]]]:
    """Axes that go together: by `like`, or since the file gives them one name. Raises where their rules differ."""
    groups: list[list[tuple[int, int]]] = []
    for place, rule in written.items():
        if rule.like is not None:
            continue
        name = _name(inputs, place)
        same = [
            place,
            *(other for other in _free_axes(inputs) if name and other != place and _name(inputs, other) == name),
        ]
        known = next((group for group in groups if place in group), None)
        if known is None:
            groups.append(same)
            continue
        first = written[known[0]]
        if (first.multiple, first.max) != (rule.multiple, rule.max):
            raise ShapeRuleError(
                rule.key,
                f"axis {rule.axis} is named {name!r} in the file like axis {first.axis} of {first.key}: expected the "
                f"same multiple={first.multiple} and max={first.max}, got {rule.multiple} and {rule.max}",
            )
    for place, rule in written.items():
        if rule.like is None:
            continue
        target = next((group for group in groups if rule.like in group), None)
        if target is None:
            raise ShapeRuleError(
                rule.key,
                f"expected like= with an axis that has a multiple: {inputs[rule.like[0]].name!r}"
                f" axis {rule.like[1]} has none",
            )
        for group in groups:
            if place in group and group is not target:
                raise ShapeRuleError(rule.key, f"axis {rule.axis} is named like a padded axis of another length")
        if place not in target:
            target.append(place)
    return groups


def _free_axes(tensors: Sequence[TensorInfo]) -> list[tuple[int, int]]:
    """(tensor, axis) of the free axes behind the batch axis."""
    return [
        (index, axis)
        for index, tensor in enumerate(tensors)
        for axis, size in enumerate(tensor.shape or ())
        if axis and not isinstance(size, int)
    ]


def _name(tensors: Sequence[TensorInfo], place: tuple[int, int]) -> str:
    """An axis's name in the file, or an empty text."""
    size = (tensors[place[0]].shape or ())[place[1]]
    return size if isinstance(size, str) else ""


def _cuts(
    parameters: Mapping[str, str],
    pads: Sequence[Pad],
    inputs: Sequence[TensorInfo],
    outputs: Sequence[TensorInfo],
) -> tuple[Cut, ...]:
    """Axes of outputs are cut as a rule or their name says; an output that has free axes but neither is refused."""
    padded = [(pad.tensor, pad.axis) for pad in pads]
    groups = {(pad.tensor, pad.axis): pad.group for pad in pads}
    cuts: dict[tuple[int, int], Cut] = {}
    uncut = set()
    for key, text in parameters.items():
        if not key.startswith(CUT):
            continue
        output = _find(key, CUT, "output", outputs)
        if not pads:
            raise ShapeRuleError(key, "nothing is padded: expected a pad_ parameter of an input beside it")
        if text.strip() == "none":
            uncut.add(output)
            continue
        for part in text.split(";"):
            words = _words(key, part, ("axis", "like", "ratio", "round"))
            axis = _free_axis(key, words, "output", outputs[output])
            ratio = _RATIO.fullmatch(words.get("ratio", "1/1"))
            if ratio is None:
                raise ShapeRuleError(key, f"expected ratio=P/Q with whole numbers, got {words['ratio']!r}")
            is_down = _choice(key, words, "round", ("up", "down")) == "down"
            if (output, axis) in cuts:
                raise ShapeRuleError(key, f"axis {axis} stands there twice")
            group = groups[_place(key, words.get("like", ""), inputs, padded)]
            cuts[output, axis] = Cut(output, axis, group, int(ratio[1]), int(ratio[2]), is_down)
    written = list(cuts.values())
    for place in _free_axes(outputs) if pads else ():
        if place in cuts or place[0] in uncut:
            continue
        name = _name(outputs, place)
        group_found = next((pad.group for pad in pads if name and _name(inputs, (pad.tensor, pad.axis)) == name), None)
        if group_found is None and any(cut.output == place[0] for cut in written):
            continue
        if group_found is None:
            loose = outputs[place[0]]
            raise ShapeRuleError(
                PAD + inputs[pads[0].tensor].name,
                f"output {loose.name!r} {shape_text(loose.shape or ())} is free on axis {place[1]}, which is not "
                f"named like a padded axis: say what is cut off with cut_{loose.name}, or that nothing is with none",
            )
        cuts[place] = Cut(*place, group_found)
    return tuple(cuts[place] for place in sorted(cuts))
