"""What memory ran out for while an instance ran one batch, and whose fault that was.

A batch that does not fit is run in halves, and these in halves, until something fits or an item is alone. Only then it
shows whether the batch was too large or one item in it: a part with an item that does not fit by itself says nothing of
how many others would, so that one greedy request does not make everybody's batches small. An item is a row, or a
request where requests stay whole.
"""

from __future__ import annotations

from collections.abc import Sequence

from server.executor.batch_cap import BatchCap


class Misfits:
    """One for each instance, used by its thread alone."""

    def __init__(self, cap: BatchCap) -> None:
        self._cap = cap
        #: Items that did not fit together, and how many rows they have; items that did not fit by themselves.
        self._parts: list[tuple[frozenset[int], int]] = []
        self._alone: set[int] = set()
        self._most = 0

    @property
    def most_rows(self) -> int:
        """Rows that the next run may have, 0 for any number."""
        return min(self._most, self._cap.rows) if self._most and self._cap.rows else self._most or self._cap.rows

    def together(self, items: Sequence[int], rows: int) -> None:
        """Memory ran out for a run of these, two or more."""
        self._cap.split()
        self._parts.append((frozenset(items), rows))
        self._most = max(rows // 2, 1)

    def alone(self, item: int) -> None:
        """Memory ran out for it by itself. What failed with it may fit without it."""
        self._cap.unfit()
        self._alone.add(item)
        self._most = min(self._unexplained(), default=0) // 2

    def settle(self) -> None:
        """The batch has run: the cap learns of it."""
        if not self._parts:
            self._alone.clear()
            return
        self._cap.did_not_fit(self._unexplained())
        self._parts.clear()
        self._alone.clear()
        self._most = 0

    def _unexplained(self) -> list[int]:
        """The rows of the parts that no single item accounts for; of all, if most of the batch does not even fit alone:
        then memory is short, whatever runs.
        """
        is_short = bool(self._parts) and 2 * len(self._alone) >= len(self._parts[0][0])
        return [rows for items, rows in self._parts if is_short or not items & self._alone]
