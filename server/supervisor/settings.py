"""Settings that clients change while the server serves: what is logged, and which requests are traced.

Which levels are logged is one word of shared memory, which acts in every process at once and outlives each. Trace
settings are told to the workers; what is counted over all of them lies in shared memory too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from server import log
from server._fast.layout import Control
from server.channel import Document
from server.protocol import log_settings, trace_settings
from server.supervisor.answers import RESOURCE_EXHAUSTED, Answer
from server.supervisor.workers import Workers

#: TRACE_CELLS of layout.h, of which the first is the server's.
CELL_COUNT = 64


class Settings:
    """The one writer of both. `level`: the least level logged at the start."""

    def __init__(self, workers: Workers, control: Control, level: str) -> None:
        self._workers = workers
        self._control = control
        self._server: dict[str, Any] = {}
        #: Model -> its cell and what it has set itself.
        self._models: dict[str, tuple[int, dict[str, Any]]] = {}
        control.log_word = log.word_of(level)
        control.set_trace(0, trace_settings.Setting().trace_count)
        log.current().follow(lambda: control.log_word)

    def ask(self, call: str, arguments: Mapping[str, Any], done: Callable[[Answer], None]) -> None:
        """`log` or `trace`, with changes that the worker has checked; done(Answer) follows when they act everywhere."""
        if call == "log":
            self._control.log_word = log_settings.applied(self._control.log_word, arguments["changes"])
            log.info("log_settings_changed", **arguments["changes"])
            done(Answer())
            return
        answer = self._change_trace(arguments["model"], arguments["changes"])
        if answer.code:
            done(answer)
            return
        log.info("trace_settings_changed", model=arguments["model"] or None, **arguments["changes"])
        self._workers.tell(self.trace_document(), then=functools.partial(done, answer))

    def trace_document(self) -> Document:
        """What workers are told: settings of the server, and of each model that has its own with its cell."""
        models = {name: [cell, own] for name, (cell, own) in self._models.items()}
        return {"kind": "trace", "server": self._server, "models": models}

    def _change_trace(self, model: str, changed: Mapping[str, Any]) -> Answer:
        if not model:
            self._server = trace_settings.updated(self._server, changed)
            self._count_again(0, {}, "trace_count" in changed)
            for cell, own in self._models.values():
                self._count_again(cell, own, "trace_count" in changed and "trace_count" not in own)
            return Answer()
        cell, own = self._models.get(model, (0, {}))
        own = trace_settings.updated(own, changed)
        if not own:
            self._models.pop(model, None)
            return Answer()
        is_new = cell == 0
        if is_new:
            free = set(range(1, CELL_COUNT)) - {taken for taken, _ in self._models.values()}
            if not free:
                return Answer(
                    RESOURCE_EXHAUSTED,
                    f"{CELL_COUNT - 1} models have trace settings of their own: set those of one back to null first",
                )
            cell = min(free)
        self._models[model] = (cell, own)
        self._count_again(cell, own, is_new or "trace_count" in changed)
        return Answer()

    def _count_again(self, cell: int, own: Mapping[str, Any], is_count_new: bool) -> None:
        """The next request is traced; how many may be goes on, unless that is what has changed."""
        setting = trace_settings.Setting().of(self._server).of(own)
        self._control.set_trace(cell, setting.trace_count if is_count_new else self._control.trace_left(cell))
