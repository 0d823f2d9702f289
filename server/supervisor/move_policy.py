"""When a model that runs is moved to other devices: what server.models.placement.decide says, held back until it has
said so twice, or finds a device overloaded, and for a model that has moved or could not be moved. Time is passed in;
nothing is done here.
"""

from __future__ import annotations

from collections import deque

from server.models.placement import Put, Snapshot, decide

#: The supervisor asks so often.
LOOK_NS = 10_000_000_000
#: So many looks in a row have to find the same, since a demand of seconds says little; one where a device gets more
#: than it can run.
LOOKS = 2
#: A model that has moved stays for so long, and twice as long for each move before that is not forgotten.
REST_NS = 60_000_000_000
MAX_REST_NS = 3600_000_000_000
FORGET_NS = 3600_000_000_000
#: One that could not be loaded elsewhere.
FAILED_REST_NS = 3600_000_000_000


class MovePolicy:
    """Remembers moves of models, by the names that they have in snapshots."""

    def __init__(self) -> None:
        self._moved_ns: dict[str, deque[int]] = {}
        self._rests_until_ns: dict[str, int] = {}
        self._wanted: Put | None = None
        self._looks = 0

    def look(self, now_ns: int, snapshot: Snapshot) -> Put | None:
        """The move that is due, if one is."""
        self._forget(now_ns, {model.name for model in snapshot.models})
        models = [
            model._replace(is_movable=model.is_movable and now_ns >= self._rests_until_ns.get(model.name, 0))
            for model in snapshot.models
        ]
        action = decide(snapshot._replace(models=models))
        if not isinstance(action, Put):
            self._wanted, self._looks = None, 0
            return None
        is_same = self._wanted is not None and self._wanted[:2] == action[:2]
        self._wanted, self._looks = action, self._looks + 1 if is_same else 1
        is_urgent = action.here is not None and action.here.pressure > 1
        return action if is_urgent or self._looks >= LOOKS else None

    def on_moved(self, now_ns: int, model: str) -> None:
        """It has been done."""
        moves = self._moved_ns.setdefault(model, deque(maxlen=16))
        moves.append(now_ns)
        self._rests_until_ns[model] = now_ns + min(MAX_REST_NS, REST_NS << (len(moves) - 1))
        self._wanted, self._looks = None, 0

    def on_failed(self, now_ns: int, model: str) -> None:
        """It could not be done."""
        self._rests_until_ns[model] = now_ns + FAILED_REST_NS
        self._wanted, self._looks = None, 0

    def _forget(self, now_ns: int, names: set[str]) -> None:
        for name, moves in list(self._moved_ns.items()):
            while moves and now_ns - moves[0] > FORGET_NS:
                moves.popleft()
            if name not in names:
                del self._moved_ns[name]
        self._rests_until_ns = {name: at for name, at in self._rests_until_ns.items() if name in names}
