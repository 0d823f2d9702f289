"""A lane's cost table: what a run of so many rows takes. The reference is server.batching.cost.CostTable."""

from server._fast.layout import Arena

def learn(arena: Arena, rows: int, ns: int, deviation_ns: int, count: int, now_ns: int) -> None:
    """What the warm-up measured in `count` runs. ValueError for a size that is not one of sizes()."""

def add(arena: Arena, rows: int, ns: int, now_ns: int) -> None:
    """One run of `rows` rows took `ns`."""

def sizes(arena: Arena) -> list[int]:
    """Batch sizes with a cell: 1, 2, 4, ... and the capacity of a slab."""

def cells(arena: Arena) -> list[tuple[int, int, int, int]]:
    """(rows, mean ns, upper ns, runs it learnt from) of each cell; 0 runs: a guess, or nothing at all."""

def of(arena: Arena, rows: int) -> int:
    """Expected ns of running so many rows on one instance; 0 while nothing is known."""

def upper(arena: Arena, rows: int) -> int:
    """What about 99 of 100 such runs stay below; 0 while nothing is known."""

def largest_within(arena: Arena, budget_ns: int) -> int:
    """The most rows whose upper() is within the budget; 0 if not one row's is, the capacity if nothing is known."""

def rate(arena: Arena) -> float:
    """Rows per second of one instance at the batch size that gives most; 0 while nothing is known."""
