"""A lane's batch cap and what memory has refused it, in the arena."""

from server._fast.layout import Arena

def set_rows(arena: Arena, rows: int) -> None:
    """Rows that a run has at most from now on; 0: as many as a slab holds."""

def count_split(arena: Arena) -> None:
    """A run was cut in parts since memory ran out."""

def count_unfit(arena: Arena) -> None:
    """Memory ran out for a row, or a request that runs as a whole, by itself."""

def read(arena: Arena) -> tuple[int, int, int]:
    """(rows of the cap, runs cut in parts, what did not fit by itself)."""
