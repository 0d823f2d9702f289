"""Which changes of a repository are taken up now and which are left: until their files have come to rest, or until
their model is asked for.

A directory that is being copied looks like a changed model long before it is one. Whoever polls waits until nothing of
a version has been written for SETTLE_NS; until then the version counts as it was. Times are those at which the system
last changed the file's entry (st_ctime), which no copying program sets back.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from server.models.repository import ModelVersion

SETTLE_NS = 2_000_000_000


def settled(
    before: Sequence[ModelVersion], found: Sequence[ModelVersion], wall_ns: int
) -> tuple[list[ModelVersion], bool]:
    """What counts now, and whether something was left for later. `before`: what counted until now."""
    old = {(one.name, one.version): one for one in before}
    result: list[ModelVersion] = []
    is_waiting = False
    for one in found:
        known = old.get((one.name, one.version))
        is_new = known is None or known.files != one.files
        # A time that lies ahead is a clock that was set, not a file that is being written.
        if is_new and 0 <= wall_ns - one.written_ns < SETTLE_NS:
            is_waiting = True
            if known is not None:
                result.append(known)
        else:
            result.append(one)
    # Versions that are no longer wanted stay until what takes their place has settled.
    left_out = {one.name for one in found} - {one.name for one in result}
    result += [one for one in before if one.name in left_out]
    return sorted(result, key=lambda one: (one.name, one.version)), is_waiting


def of_model(
    name: str,
    before: Sequence[ModelVersion],
    found: Sequence[ModelVersion],
    *,
    is_wanted: Callable[[str], bool],
    serving: Collection[str],
) -> list[ModelVersion]:
    """What counts when one model was asked for: that one as it was found, and of the others only what loads, replaces
    or ends nothing. is_wanted: tells a model that is to serve; serving: those that do. A wanted one that does not
    serve is forgotten when its files are gone.
    """
    there = {one.name for one in found}

    def is_as_before(other: str) -> bool:
        return other != name and is_wanted(other)

    kept = [one for one in before if is_as_before(one.name) and (one.name in serving or one.name in there)]
    taken = [one for one in found if not is_as_before(one.name)]
    return sorted(kept + taken, key=lambda one: (one.name, one.version))
