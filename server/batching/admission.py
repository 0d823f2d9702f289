"""Which requests a lane takes: the published rule, as a pure function.

The rule in words. A request is decided on when its head has been read. Its answer is predicted to be ready when the
present run has ended and everything that waits, with this request, has run: times from the cost table T(b). It is
refused if that, with a margin, is after its deadline; or if its rows would make those late that they would run with and
that can still be in time, unless those hurry more than four times as much. It is refused at once when its deadline has
passed, and, having none, when it would wait longer than PATIENCE_NS. An idle lane takes any other: only so can it find
out that it is not as slow as it was. What is admitted and passes its deadline all the same is answered then and does
not run.

The margin is twice the lag of the worker's loop (on the way in and on the way out) and an eighth of the time that the
client gives, more while answers come late: `Pressure` is CoDel's control law (RFC 8289) on answers that took over three
quarters of their time. One answer that was quicker, and all of that is forgotten: nothing learnt in overload outlives
it.

A refused client is told to come again when the lane will have run what it has: `retry_after_s`.

`decide`, `margin_ns`, `Pressure` and `retry_after_s` are the reference for server/_fast/admission.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

PATIENCE_NS = 60_000_000_000
INTERVAL_NS = 100_000_000
MOST_LEVELS = 8
LONGEST_RETRY_S = 30


class Action(IntEnum):
    """What becomes of a request; FULL is for the rows, of which the rule knows nothing."""

    ADMIT = 0
    FULL = 1
    PREDICTED_LATE = 2
    PAST = 3


class Lane(NamedTuple):
    """A lane as the rule sees it: run_left_ns until an instance is free, then work_ns for all that waits and for the
    request; open_deadline_ns is the earliest deadline of rows that still wait for others, 0 if none has one;
    waiting_rows have not begun to run.
    """

    run_left_ns: int
    work_ns: int
    open_deadline_ns: int = 0
    waiting_rows: int = 1


def decide(lane: Lane, now_ns: int, deadline_ns: int, margin_ns: int) -> Action:
    """Whether a request with this deadline (0: none) is taken."""
    end_ns = now_ns + lane.run_left_ns + lane.work_ns
    if not deadline_ns:
        return Action.PREDICTED_LATE if end_ns - now_ns > PATIENCE_NS else Action.ADMIT
    if deadline_ns <= now_ns:
        return Action.PAST
    if not lane.waiting_rows and not lane.run_left_ns:
        return Action.ADMIT
    if end_ns + margin_ns > deadline_ns:
        return Action.PREDICTED_LATE
    theirs_ns = lane.open_deadline_ns - now_ns
    if 0 < theirs_ns < end_ns + margin_ns - now_ns and deadline_ns - now_ns <= 4 * theirs_ns:
        return Action.PREDICTED_LATE
    return Action.ADMIT


def margin_ns(budget_ns: int, lag_ns: int, level: int) -> int:
    """What is left free before a deadline that is budget_ns after the request."""
    return 2 * lag_ns + budget_ns * (2 + min(level, MOST_LEVELS)) // 16


@dataclass(slots=True)
class Pressure:
    """Whether answers come late in spite of the prediction: level 0 is no."""

    level: int = 0
    above_until_ns: int = 0

    def answered(self, took_ns: int, budget_ns: int, now_ns: int) -> None:
        """A request was answered, or its deadline passed, after took_ns of budget_ns."""
        if 4 * took_ns < 3 * budget_ns:
            self.level = self.above_until_ns = 0
        elif not self.above_until_ns:
            self.above_until_ns = now_ns + INTERVAL_NS
        elif now_ns > self.above_until_ns:
            self.level += 1
            self.above_until_ns = now_ns + int(INTERVAL_NS / math.sqrt(self.level + 1))


def retry_after_s(wait_ns: int, random: int) -> int:
    """When to come again, 1 to 30 s: the wait and up to as much again, so that those who are sent away together do not
    come back together. random: any number, its lowest ten bits count.
    """
    spread_ns = min(wait_ns, LONGEST_RETRY_S * 1_000_000_000)
    spread_ns += spread_ns * (random & 1023) // 1024
    return max(1, min(LONGEST_RETRY_S, -(-spread_ns // 1_000_000_000)))
