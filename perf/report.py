"""Cells and their targets, the table for people, the JSON for the record."""

from __future__ import annotations

import datetime
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perf import stats

NOT_MEASURED, INVALID = "not measured", "INVALID"


@dataclass(frozen=True)
class Target:
    """A row of the target table; the cell's value is compared in `unit`."""

    title: str
    unit: str
    must: float | None
    stretch: float | None
    higher_is_better: bool


TARGETS = {
    "P1": Target("HTTP no-op, 64 connections: eta", "", 0.60, 0.80, True),
    "P2": Target("HTTP binary infer, MLP, 64 connections: eta", "", 0.50, 0.70, True),
    "P3": Target("HTTP JSON infer, MLP, 64 connections: eta", "", 0.40, 0.60, True),
    "P4": Target("gRPC ModelInfer raw, MLP, 16 x 16 streams: eta", "", 0.40, 0.65, True),
    "P5": Target("gRPC calls per CPU-second / HTTP/1.1 binary", "x", 1.5, 3.0, True),
    "P6": Target("added p50 at one connection, binary", "µs", 60, 25, False),
    "P6j": Target("added p50 at one connection, JSON", "µs", 60, 25, False),
    "P7": Target("heavy model: throughput / raw batched loop", "", 0.90, 0.95, True),
    "P8": Target("binary tensors of 1 MiB: GB/s / C receive", "", 0.70, 0.90, True),
    "P8g": Target("gRPC tensors of 1 MiB: GB/s / C libnghttp2", "", 0.70, 0.90, True),
    "P9": Target("JSON numbers: Mfloat/s / std::from_chars loop", "", 0.5, 0.8, True),
    "P10": Target("2 workers / 1: CPU-µs per request", "x", 1.15, 1.05, False),
    "P11a": Target("2x overload, 1 ms an item: in time / peak", "", 0.95, 0.98, True),
    "P11x": Target("10x overload, 1 ms an item: in time / peak", "", 0.90, 0.95, True),
    "P11b": Target("2x overload, MLP: in time / peak", "", 0.50, 0.75, True),
    "P12": Target("idle CPU, model loaded", "%", 0.5, 0.1, False),
    "P13": Target("system calls per request, 64 connections", "", 2.5, 2.1, False),
    "P14s": Target("start to ready, demo model, from source", "s", 0.6, 0.3, False),
    "P14d": Target("start to ready, demo model, one-dir", "s", 0.8, 0.4, False),
    "P14f": Target("start to ready, demo model, one-file", "s", 2.0, 1.0, False),
    "P15": Target("memory (PSS of the tree), ready", "MB", 100, 60, False),
    "P17": Target("p99 of a model while one of 200 MB loads / before", "x", 1.2, 1.05, False),
}


@dataclass
class Cell:
    """One measured row. `measured` and `floor` are texts for the table; `details` goes to the JSON.

    Answers that were not 200 or never came make it INVALID: refusing is cheaper than serving.
    """

    key: str
    value: float | None
    measured: str
    floor: str = ""
    interval: tuple[float, float] | None = None
    note: str = ""
    bad_answers: int = 0
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def target(self) -> Target:
        return TARGETS[self.key]

    @property
    def verdict(self) -> str:
        if self.value is None:
            return NOT_MEASURED
        if self.bad_answers:
            return INVALID
        target = self.target
        return stats.verdict(self.value, target.must, target.stretch, higher_is_better=target.higher_is_better)


def _value(cell: Cell) -> str:
    if cell.value is None:
        return "-"
    text = f"{cell.value:.3g}{' ' + cell.target.unit if cell.target.unit else ''}"
    return f"{text} [{cell.interval[0]:.3g}, {cell.interval[1]:.3g}]" if cell.interval else text


def _limit(target: Target, figure: float | None) -> str:
    return "" if figure is None else f"{'≥' if target.higher_is_better else '≤'} {figure:g}"


HEADERS = ("cell", "what", "measured", "floor", "value [95 %]", "must", "stretch", "verdict")


def _row(cell: Cell) -> tuple[str, ...]:
    target = cell.target
    return (
        cell.key,
        target.title,
        cell.measured,
        cell.floor,
        _value(cell),
        _limit(target, target.must),
        _limit(target, target.stretch),
        cell.verdict,
    )


def line(cell: Cell) -> str:
    """One cell as one line, printed as soon as it is known."""
    row = _row(cell)
    text = f"{row[0]:<5}{row[1]}: {row[2]}"
    text += f"; floor {row[3]}" if row[3] else ""
    return f"{text} -> {row[4]} (must {row[5]}): {row[7]}" + (f"  ({cell.note})" if cell.note else "")


def table(cells: list[Cell]) -> str:
    """Columns as wide as their widest entry, the notes below."""
    rows = [HEADERS, *(_row(cell) for cell in cells)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADERS))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    lines += [f"{cell.key}: {cell.note}" for cell in cells if cell.note]
    failed = []
    for verdict in (stats.MISSED, INVALID, NOT_MEASURED):
        keys = [cell.key for cell in cells if cell.verdict == verdict]
        failed += [f"{verdict}: {', '.join(keys)}"] if keys else []
    return "\n".join(lines + (failed or ["every must is reached"]))


def write_json(folder: Path, cells: list[Cell], context: dict[str, Any]) -> Path:
    """FOLDER/DATE.json with every cell, its segments, the machine and the build."""
    folder.mkdir(parents=True, exist_ok=True)
    moment = datetime.datetime.now(datetime.UTC)
    path = folder / f"{moment:%Y-%m-%dT%H%M%SZ}.json"
    record = {
        "when": moment.isoformat(timespec="seconds"),
        **context,
        "cells": [
            {
                "key": cell.key,
                "title": cell.target.title,
                "value": cell.value,
                "unit": cell.target.unit,
                "interval": cell.interval,
                "must": cell.target.must,
                "stretch": cell.target.stretch,
                "verdict": cell.verdict,
                "measured": cell.measured,
                "floor": cell.floor,
                "note": cell.note,
                "bad_answers": cell.bad_answers,
                "details": cell.details,
            }
            for cell in cells
        ],
    }
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    return path
