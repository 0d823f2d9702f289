"""Names that are most like one that nobody knows, for errors that say what was meant."""

from __future__ import annotations

from collections.abc import Collection, Sequence

# A hostile client may ask for names as long as a request target; a long name is no typing error.
_MAX_ALIKE_CHARS = 64


def closest(name: str, known: Sequence[str], limit_count: int = 3) -> list[str]:
    """The known names within a few edits of `name`, nearest first; [] for names over 64 characters."""
    if not name or len(name) > _MAX_ALIKE_CHARS:
        return []
    edits_limit = 1 + min(len(name) // 4, 2)
    lowered = name.lower()
    letters = set(lowered)
    found = []
    for candidate in known:
        other = candidate.lower()
        # Each edit changes at most two letters of the set, and the length by at most one: most names end here.
        if abs(len(other) - len(lowered)) > edits_limit or len(letters ^ set(other)) > 2 * edits_limit:
            continue
        edits = _edits(lowered, other, edits_limit)
        if edits <= edits_limit:
            found.append((edits, candidate))
    return [candidate for _, candidate in sorted(found)[:limit_count]]


def _edits(a: str, b: str, limit: int) -> int:
    """Insertions, deletions, replacements and swaps of neighbours from a to b; limit + 1 stands for more."""
    before: list[int] = []
    above = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        row = [i] + [limit + 1] * len(b)
        for j in range(max(1, i - limit), min(len(b), i + limit) + 1):
            cost = min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (x != b[j - 1]))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == b[j - 1]:
                cost = min(cost, before[j - 2] + 1)
            row[j] = cost
        if min(row) > limit:
            return limit + 1
        before, above = above, row
    return above[-1]


def did_you_mean(name: str, known: Collection[str]) -> str:
    """What follows an error about `name`: the names like it, else some of those there are; empty if there are none."""
    if alike := closest(name, sorted(known)):
        return f"; did you mean {' or '.join(repr(one) for one in alike)}?"
    return ""


def there_is(name: str, known: Collection[str], limit_count: int = 5) -> str:
    """As did_you_mean(); where no name is like it, some of those there are. For those who may see them all."""
    text = did_you_mean(name, known)
    if text or not known:
        return text
    shown = [repr(one) for one in sorted(known)[:limit_count]]
    if len(known) > limit_count:
        return f"; there are {', '.join(shown)} and {len(known) - limit_count} more"
    return f"; there is {', '.join(shown)}"
