"""Which of several models an idle instance runs next, where models share an executor: a pure function and its books.

The rule in words. Each model has had so much run time; of those with a batch that is due, the one that has had least
goes next. A model that comes back after a pause starts where the others are: time that it did not use is gone, so it
cannot shut the others out by what it saved. A batch that keeps its deadline only if it goes next is preferred, the
earliest deadline first, but as a loan: run time is counted all the same, and a model that has had LOAN_NS more than the
one with least gets none. So whatever a model asks for and however it sets its deadlines, another one that has work
waits for at most that and a run.

Priority levels are a matter within a model (server.batching.plan): they do not put one model before another.

`Sharing` is the reference for the class of the same name in server/_fast/lane_sharing.pyx.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

#: How far deadlines may put a model ahead of its share.
LOAN_NS = 100_000_000


class Offer(NamedTuple):
    """A lane with a batch that is due. served_ns: run time that it has had; run_ns: what its next run is likely to
    take; deadline_ns: the earliest of its requests', 0 for none.
    """

    lane: int
    served_ns: int
    run_ns: int
    deadline_ns: int = 0


def decide(offers: Sequence[Offer], now_ns: int) -> int:
    """The lane whose batch goes next, of one offer at least."""
    least_ns = min(offer.served_ns for offer in offers)

    def is_at_risk(offer: Offer) -> bool:
        """Whether it keeps its deadline now, but not behind the longest run of another."""
        slowest_ns = max((other.run_ns for other in offers if other.lane != offer.lane), default=0)
        end_ns = now_ns + offer.run_ns
        return offer.served_ns - least_ns <= LOAN_NS and end_ns <= offer.deadline_ns < end_ns + slowest_ns

    urgent = [offer for offer in offers if is_at_risk(offer)]
    if urgent:
        return min(urgent, key=lambda offer: (offer.deadline_ns, offer.served_ns, offer.lane)).lane
    return min(offers, key=lambda offer: (offer.served_ns, offer.lane)).lane


class Sharing:
    """The books of lanes 0 to lane_count - 1. Times are integer nanoseconds."""

    def __init__(self, lane_count: int) -> None:
        self.served_ns = [0] * lane_count
        self.run_ns = [0] * lane_count
        #: The least that a lane had had which was due when somebody chose last.
        self.clock_ns = 0

    def take(self, due: Sequence[tuple[int, int]], now_ns: int) -> tuple[int, int]:
        """Chooses of lanes with a batch that is due, (lane, deadline or 0): the lane, and what it is charged at once,
        so that another instance that chooses meanwhile knows. ran() or back() follows.
        """
        for lane, _ in due:
            self.served_ns[lane] = max(self.served_ns[lane], self.clock_ns)
        self.clock_ns = min(self.served_ns[lane] for lane, _ in due)
        offers = [Offer(lane, self.served_ns[lane], self.run_ns[lane], deadline_ns) for lane, deadline_ns in due]
        lane = decide(offers, now_ns)
        charged_ns = self.run_ns[lane]
        self.served_ns[lane] += charged_ns
        return lane, charged_ns

    def ran(self, lane: int, charged_ns: int, ns: int) -> None:
        """A run has ended that took so long."""
        self.served_ns[lane] += ns - charged_ns
        self.run_ns[lane] += (ns - self.run_ns[lane]) >> 3 if self.run_ns[lane] else ns

    def back(self, lane: int, charged_ns: int) -> None:
        """Somebody else has taken the batch."""
        self.served_ns[lane] -= charged_ns

    def clear(self, lane: int) -> None:
        """The number is given to another lane."""
        self.served_ns[lane] = self.run_ns[lane] = 0
