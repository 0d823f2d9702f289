"""Admission: the C rule's Python face, for metrics and for its test against server.batching.admission."""

from server._fast.layout import Arena

def look(arena: Arena, rows: int, now_ns: int, level: int | None = None) -> tuple[int, int, int, int]:
    """What stands before `rows` more rows of a priority level (from 0; None: the last): ns until an instance is free,
    ns of work with them, the earliest deadline of open slabs that they may join (0: none), rows that wait.
    """

def decide(
    run_left_ns: int,
    work_ns: int,
    open_deadline_ns: int,
    waiting_rows: int,
    now_ns: int,
    deadline_ns: int,
    margin_ns: int,
) -> int:
    """The rule on given numbers: 0 admit, 1 full, 2 predicted to be late, 3 its deadline has passed."""

def margin(budget_ns: int, lag_ns: int, level: int) -> int: ...
def retry_after_s(wait_ns: int, random: int) -> int: ...
def levels(answers: list[tuple[int, int, int]]) -> list[int]:
    """The pressure after each of (took, budget, now) in ns."""
