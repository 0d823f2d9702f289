"""What a worker does that cannot read requests as fast as they come: the published rule.

The prediction of admission.py looks at what waits for the model. If the worker itself is too slow, requests wait in
their sockets; its turns get longer, and by twice their length the predicted answers get later, until as many are
refused as have to be. Then everybody waits for almost as long as deadlines allow, those that are refused too.

So when a prediction has said "late", the worker looks at its own time in a turn for the next CROWDED_NS (its own: a
thread that waited for its core has not worked). Where that is longer than a share of the time that a request's client
gives, it is refused at once, by a chance that makes turns as long as their share, but for one in SHARE_OF_TURN at the
least: clients that ask again as soon as they are refused would else have nothing but refusals. Requests without a
deadline are not refused.

Refusals of this rule do not prolong it. Where many clients in a closed loop make turns long and nobody is late it
ends, and does not begin again.

The reference for server/_fast/worker_load.
"""

from __future__ import annotations

from dataclasses import dataclass

CROWDED_NS = 10_000_000_000
#: What a turn may take: 20 ms where a client gives a second, and never less than 2.
LEAST_SHARE_NS = 2_000_000
SHARE_OF_BUDGET = 50
SHARE_OF_TURN = 4


@dataclass(slots=True)
class WorkerLoad:
    """Times in ns. crowded_until_ns 0: not crowded, and what a turn took of the thread's own time is not asked for."""

    lag_ns: int = 0
    crowded_until_ns: int = 0
    turn_work_ns: int = 0
    thread_ns: int = 0

    def predicted_late(self, now_ns: int) -> None:
        self.crowded_until_ns = now_ns + CROWDED_NS

    def turn_ended(self, took_ns: int, now_ns: int, thread_ns: int) -> None:
        """thread_ns: the thread's own time since it began."""
        self.lag_ns = max(took_ns, self.lag_ns - self.lag_ns // 8)
        if not self.crowded_until_ns:
            return
        if now_ns > self.crowded_until_ns:
            self.crowded_until_ns = self.turn_work_ns = self.thread_ns = 0
            return
        if self.thread_ns:
            self.turn_work_ns = (3 * self.turn_work_ns + thread_ns - self.thread_ns) // 4
        self.thread_ns = thread_ns

    def is_crowded_out(self, now_ns: int, budget_ns: int, random: int) -> bool:
        """Whether a request is refused that has budget_ns from its coming to its deadline. random: any number, its
        lowest ten bits count.
        """
        if not self.crowded_until_ns or now_ns > self.crowded_until_ns:
            return False
        share_ns = max(LEAST_SHARE_NS, budget_ns // SHARE_OF_BUDGET, self.turn_work_ns // SHARE_OF_TURN)
        return (random & 1023) * self.turn_work_ns >= 1024 * share_ns
