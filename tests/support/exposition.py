"""A strict reader of Prometheus' text format 0.0.4 and of OpenMetrics 1.0: refuses what a lenient scraper forgives.

Beyond the grammar it holds to the rules that only linters check: HELP and TYPE before the samples, a family's lines
together, no series twice, counters end in `_total` and are not negative, histograms are cumulative, ordered by `le`,
end at +Inf and agree with their `_count`.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*\Z")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\n"])*)"')
_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)\Z")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*(?:[eE][+-]?\d+)?|Inf)\Z|NaN\Z")
_KINDS = {"counter", "gauge", "histogram", "info"}

Labels = tuple[tuple[str, str], ...]


class Family(NamedTuple):
    """One metric family: `samples` by the sample's full name and its labels in the order of the page."""

    name: str
    kind: str
    help: str
    samples: dict[tuple[str, Labels], float]


class ExpositionError(AssertionError):
    """A rule of the format is broken; says which, and the line."""


def parse(page: bytes, *, openmetrics: bool = False) -> dict[str, Family]:
    """Families by name as declared; raises ExpositionError."""
    text = page.decode("utf-8")
    _check(text.endswith("\n"), "the last line must end with a line feed", "")
    lines = text[:-1].split("\n")
    if openmetrics:
        _check(lines[-1] == "# EOF", "OpenMetrics must end with # EOF", lines[-1])
        lines.pop()
    families: dict[str, Family] = {}
    pending_help: tuple[str, str] | None = None
    current: Family | None = None
    for line in lines:
        if line.startswith("# HELP "):
            name, _, help_text = line[7:].partition(" ")
            _check(bool(help_text), "HELP without a text", line)
            _check(pending_help is None, "HELP without its TYPE", line)
            pending_help = (name, help_text)
        elif line.startswith("# TYPE "):
            name, _, kind = line[7:].partition(" ")
            _check(pending_help is not None and pending_help[0] == name, "TYPE must follow its own HELP", line)
            _check(bool(_NAME.match(name)), "bad name", line)
            _check(kind in _KINDS and (openmetrics or kind != "info"), f"unknown type {kind!r}", line)
            _check(name not in families, "family declared twice, or its lines are not together", line)
            assert pending_help is not None
            current = families[name] = Family(name, kind, pending_help[1], {})
            pending_help = None
        else:
            _check(bool(line) and not line.startswith("#"), "neither sample nor HELP nor TYPE", line)
            _check(pending_help is None and current is not None, "a sample between or before HELP and TYPE", line)
            assert current is not None
            _sample(line, current, openmetrics)
    _check(pending_help is None, "HELP without its TYPE", str(pending_help))
    for family in families.values():
        if family.kind == "histogram":
            _check_histogram(family)
    return families


def values(families: dict[str, Family]) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample of a page by name and labels."""
    return {
        (name, frozenset(labels)): value for one in families.values() for (name, labels), value in one.samples.items()
    }


def _sample(line: str, family: Family, openmetrics: bool) -> None:
    match = _SAMPLE.match(line)
    _check(match is not None, "not a sample", line)
    assert match is not None
    name, inner, number = match.groups()
    labels = _labels(inner or "", line)
    _check(bool(_NUMBER.match(number)), "not a number", line)
    value = float(number)
    allowed = {
        "counter": {f"{family.name}_total"} if openmetrics else {family.name},
        "gauge": {family.name},
        "info": {f"{family.name}_info"},
        "histogram": {f"{family.name}{suffix}" for suffix in ("_bucket", "_sum", "_count")},
    }[family.kind]
    _check(name in allowed, f"sample of another name inside family {family.name}", line)
    if family.kind == "counter":
        _check(name.endswith("_total"), "a counter's name ends in _total", line)
    if family.kind in ("counter", "histogram"):
        _check(value >= 0 and math.isfinite(value), "a count is finite and not negative", line)
    if family.kind == "info":
        _check(value == 1, "an info is 1", line)
    _check((name, labels) not in family.samples, "series twice", line)
    family.samples[name, labels] = value


def _labels(inner: str, line: str) -> Labels:
    labels: list[tuple[str, str]] = []
    at = 0
    while at < len(inner):
        match = _LABEL.match(inner, at)
        _check(match is not None, "bad label", line)
        assert match is not None
        escaped = match.group(2)
        value = re.sub(r"\\(.)", lambda m: {"n": "\n"}.get(m.group(1), m.group(1)), escaped)
        labels.append((match.group(1), value))
        at = match.end()
        if at < len(inner):
            _check(inner[at] == ",", "labels are separated by commas", line)
            at += 1
            _check(at < len(inner), "a comma at the end", line)
    names = [name for name, _ in labels]
    _check(len(set(names)) == len(names), "label twice", line)
    return tuple(labels)


def _check_histogram(family: Family) -> None:
    series: dict[Labels, list[tuple[float, float]]] = {}
    for (name, labels), value in family.samples.items():
        if name.endswith("_bucket"):
            bounds = [text for label, text in labels if label == "le"]
            _check(len(bounds) == 1, "a bucket has one le", name)
            rest = tuple(pair for pair in labels if pair[0] != "le")
            series.setdefault(rest, []).append((float(bounds[0]), value))
    for labels, buckets in series.items():
        place = f"{family.name}{labels}"
        _check([le for le, _ in buckets] == sorted({le for le, _ in buckets}), "le must rise", place)
        _check([count for _, count in buckets] == sorted(count for _, count in buckets), "not cumulative", place)
        _check(buckets[-1][0] == math.inf, "the last bucket is +Inf", place)
        count = family.samples.get((f"{family.name}_count", labels))
        _check(count == buckets[-1][1], "_count must equal the +Inf bucket", place)
        _check((f"{family.name}_sum", labels) in family.samples, "no _sum", place)
    counts = {labels for name, labels in family.samples if name.endswith("_count")}
    _check(counts == set(series), "a _count without buckets", family.name)


def _check(condition: bool, rule: str, line: str) -> None:
    if not condition:
        raise ExpositionError(f"{rule}: {line!r}")
