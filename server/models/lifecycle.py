"""Which lanes to start and which to retire, as a pure function of what the repository holds and what runs.

The rule in words. Every usable version that is wanted has a lane of its present files; where there is none, one is
started beside whatever runs. A lane whose files changed, or whose version is not wanted any more, goes on serving until
another can take its requests: a ready lane of the same version if that is still wanted, else any ready wanted lane of
its model. A model that is not wanted at all is retired at once. So a version that cannot be loaded never replaces one
that serves, and requests find a ready lane at every moment.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import NamedTuple

LOADING = "LOADING"
READY = "READY"
FAILED = "FAILED"


class Wanted(NamedTuple):
    """A version that should serve. `files` changes when its files do; not `usable`: it cannot be served as it is."""

    name: str
    version: int
    files: Hashable
    usable: bool = True


class Running(NamedTuple):
    """A lane that is not being retired. READY counts a lane whose executor is being restarted."""

    lane: int
    name: str
    version: int
    files: Hashable
    state: str


class Start(NamedTuple):
    """Load this version in a new lane."""

    name: str
    version: int


class Retire(NamedTuple):
    """Send this lane no more requests and end it when the last is answered."""

    lane: int


#: Model and label -> version.
Labels = Mapping[tuple[str, str], int]


def labels_in_effect(said: Labels, before: Labels, ready: Collection[tuple[str, int]]) -> Labels:
    """What each label stands for. One that was given another version stays with that before it until its own is ready,
    and for good where that cannot be loaded. `ready`: models and versions that answer.
    """
    return {
        key: before[key] if (key[0], version) not in ready and (key[0], before.get(key)) in ready else version
        for key, version in said.items()
    }


def waiting_labels(said: Labels, in_effect: Labels) -> frozenset[tuple[str, int]]:
    """The models and versions that a label stands for only until the version that it was given is ready."""
    return frozenset((key[0], version) for key, version in in_effect.items() if said[key] != version)


def decide(
    wanted: Sequence[Wanted],
    running: Sequence[Running],
    *,
    retry: frozenset[str] = frozenset(),
    labelled: frozenset[tuple[str, int]] = frozenset(),
) -> list[Start | Retire]:
    """What to do now; called again after every change. `retry`: models whose failed lanes are tried again. `labelled`:
    models and versions that a label stands for meanwhile: another version takes none of the requests for it.
    """
    actions: list[Start | Retire] = []
    wanted_keys = {(item.name, item.version) for item in wanted}
    wanted_names = {item.name for item in wanted}
    current: set[int] = set()
    for item in wanted:
        lanes = [lane for lane in running if (lane.name, lane.version, lane.files) == item[:3]]
        alive = [lane for lane in lanes if lane.state != FAILED]
        current.update(lane.lane for lane in alive or (lanes if item.name not in retry else []))
        if item.usable and not alive and (not lanes or item.name in retry):
            actions.append(Start(item.name, item.version))
    for lane in running:
        if lane.lane in current:
            continue
        takers = [
            other
            for other in running
            if other.lane in current
            and other.name == lane.name
            and other.state == READY
            and (other.version == lane.version or (lane.name, lane.version) not in wanted_keys | labelled)
        ]
        # A failed lane serves nobody, and what it says is of files that are no more, or are tried again.
        if takers or lane.name not in wanted_names or lane.state == FAILED:
            actions.append(Retire(lane.lane))
    return actions
