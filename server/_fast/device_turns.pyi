"""Which device of a model takes the batch that is due, and what its runs take there."""

from server._fast.layout import Arena

class DeviceTurns:
    """One for all instances of a model that runs on several devices; any thread.

    arena: of the model, for the sizes of its cost table; devices: that of each instance, as a number from 0; bells: the
    instances' eventfds.
    """

    #: how often a batch was left to another device
    held_count: int
    def __init__(self, arena: Arena, devices: list[int], bells: list[int]) -> None: ...
    def learn(self, device: int, rows: int, ns: int, deviation_ns: int, count: int, now_ns: int) -> None:
        """What the warm-up measured there, in `count` runs, for a size of the cost table."""

    def of(self, device: int, rows: int) -> int:
        """Expected time of so many rows there; 0 while nothing is known."""

    def run_count(self, device: int) -> int:
        """Runs that it learnt from."""

    def wait(self, arena: Arena, instance: int, rows: int, since_ns: int, now_ns: int) -> int:
        """0: the idle instance takes a batch that is due since then; else when it looks again. Wakes a sleeping
        instance of the arena's lane that is to take it.
        """

    def ran(self, instance: int, rows: int, ns: int, now_ns: int) -> None:
        """A run of the instance took so long."""

    def begins(self, instance: int, rows: int, now_ns: int) -> None:
        """The instance has taken a batch."""

    def ends(self, instance: int, now_ns: int) -> None:
        """It has run it."""

    def looks(self, instance: int) -> None:
        """It is idle and looks for a batch."""

def choose(now_ns: int, waited_ns: int, loads: list[tuple[int, int]]) -> int:
    """Of devices as (free_ns, run_ns) the one that takes a batch; -1: a busy one would answer it sooner. The reference
    is server.models.placement.next_device.
    """
