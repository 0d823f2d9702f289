"""An inference answer as lines of text: class probabilities as bars, everything else as its first values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from server.log import escape
from server.supervisor.banner import align

TOP_CLASSES = 5
MAX_ROWS = 8
MAX_VALUES = 8
BAR_CELLS = 24
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def answer_lines(document: dict[str, Any], *, unicode: bool) -> list[str]:
    """The outputs of a V2 infer answer, one block each."""
    lines: list[str] = []
    for output in document.get("outputs", []):
        name, dtype, shape = str(output.get("name")), str(output.get("datatype")), output.get("shape", [])
        data = output.get("data", [])
        head = f"{escape(name)}  {dtype} [{','.join(map(str, shape))}]"
        rows = _rows(shape, data)
        if rows and all(is_distribution(dtype, row) for row in rows):
            lines.append(head)
            for number, row in enumerate(rows[:MAX_ROWS]):
                if len(rows) > 1:
                    lines.append(f"  row {number}")
                lines += [f"  {line}" for line in top_classes(row, unicode=unicode)]
            if len(rows) > MAX_ROWS:
                lines.append(f"  ... {len(rows) - MAX_ROWS} more rows")
        else:
            lines.append(f"{head}  {_values(data)}".rstrip())
    return lines


def is_distribution(dtype: str, row: Sequence[Any]) -> bool:
    """Whether a row looks like class probabilities: two or more numbers in [0, 1] that sum to 1."""
    if not dtype.startswith(("FP", "BF")) or len(row) < 2:
        return False
    if not all(isinstance(value, int | float) and -1e-6 <= value <= 1.000001 for value in row):
        return False
    return math.isclose(math.fsum(row), 1.0, abs_tol=0.01)


def top_classes(row: Sequence[float], *, unicode: bool) -> list[str]:
    """`7  0.9981  ███████`, the most probable first."""
    best = sorted(range(len(row)), key=lambda index: (-row[index], index))[:TOP_CLASSES]
    width = len(str(max(best)))
    cells = [[str(index).rjust(width), f"{row[index]:.4f}", bar(row[index], unicode=unicode)] for index in best]
    return align(cells)


def bar(share: float, *, unicode: bool) -> str:
    """A bar of up to BAR_CELLS cells, to an eighth of a cell where the terminal can."""
    share = min(max(share, 0.0), 1.0)
    if not unicode:
        return "#" * round(share * BAR_CELLS)
    full, eighths = divmod(round(share * BAR_CELLS * 8), 8)
    return "█" * full + (_EIGHTHS[eighths] if eighths else "")


def _rows(shape: Any, data: Any) -> list[list[Any]]:
    """The data cut along all axes but the last; [] if it is not flat data of this shape."""
    if not isinstance(data, list) or not isinstance(shape, list) or len(shape) < 1 or not data:
        return []
    width = shape[-1]
    if not isinstance(width, int) or width < 1 or math.prod(shape) != len(data):
        return []
    return [data[start : start + width] for start in range(0, len(data), width)]


def _values(data: Any) -> str:
    if not isinstance(data, list):
        return escape(str(data))
    shown = ", ".join(_value(item) for item in data[:MAX_VALUES])
    return f"{shown}, ... ({len(data)} values)" if len(data) > MAX_VALUES else shown


def _value(item: Any) -> str:
    if isinstance(item, float):
        return f"{item:.6g}"
    return escape(str(item))[:80]
