"""The names most like one that nobody knows."""

from __future__ import annotations

import pytest

from server import alike


def slow_edits(a: str, b: str) -> int:
    """Optimal string alignment distance by its definition."""
    if not a or not b:
        return len(a) + len(b)
    best = min(slow_edits(a[1:], b) + 1, slow_edits(a, b[1:]) + 1, slow_edits(a[1:], b[1:]) + (a[0] != b[0]))
    if len(a) > 1 and len(b) > 1 and a[0] == b[1] and a[1] == b[0]:
        best = min(best, slow_edits(a[2:], b[2:]) + 1)
    return best


def test_closest_agrees_with_the_plain_distance() -> None:
    words = ["", "a", "ab", "ba", "abc", "acb", "bca", "abcd", "abdc", "badc", "dcba", "xabc", "aabb", "abab", "abcx"]
    for name in words[1:]:
        limit = 1 + len(name) // 4
        expected = sorted((slow_edits(name, word), word) for word in words if slow_edits(name, word) <= limit)
        assert alike.closest(name, words, limit_count=99) == [word for _, word in expected], name


def test_hostile_names_cost_little(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    edits = alike._edits
    monkeypatch.setattr(alike, "_edits", lambda a, b, limit: compared.append(b) or edits(a, b, limit))
    known = [f"{'m' * 60}{i:03}" for i in range(100)]
    assert alike.closest("m" * 8000, known) == []
    assert alike.closest("abcdefgh" * 8, known) == []
    assert compared == []


@pytest.mark.parametrize(
    ("name", "known", "text"),
    [
        ("prices", [], ""),
        ("prises", ["adder", "prices"], "; did you mean 'prices'?"),
        ("nope", ["prices", "adder"], "; there is 'adder', 'prices'"),
        (
            "nope",
            [f"model{i}" for i in range(7)],
            "; there are " + ", ".join(f"'model{i}'" for i in range(5)) + " and 2 more",
        ),
    ],
)
def test_what_there_is_instead(name: str, known: list[str], text: str) -> None:
    assert alike.there_is(name, known) == text
    assert alike.did_you_mean(name, known) in ("", text)
