"""A worker's link to the supervisor: changes that it is told of, and changes that its clients ask for."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from server._fast.layout import Arena
from server.channel import Channel, ChannelClosed, Document
from server.worker.models import Models
from server.worker.regions import Regions
from server.worker.tracing import Tracing

#: How soon a message is tried again that the supervisor did not take.
FLUSH_AGAIN_S = 0.01


class Link:
    """One event loop thread. Messages are acted on in their order, each acknowledged when it is done."""

    def __init__(
        self,
        channel: Channel,
        models: Models,
        regions: Regions,
        tracing: Tracing,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._channel = channel
        self._models = models
        self._regions = regions
        self._tracing = tracing
        self._loop = loop
        self._asked = 0
        self._waiting: dict[int, Callable[[int, str], None]] = {}
        loop.add_reader(channel.fileno(), self._on_readable)

    def ask(self, call: str, arguments: Document, done: Callable[[int, str], None]) -> None:
        """Asks for "model load" (unload, reload, configure), "region register" (unregister), "setting log" (trace).

        done(InferErrorCode or 0, text) follows when every worker acts accordingly.
        """
        self._asked += 1
        self._waiting[self._asked] = done
        self._send({"kind": "ask", "ask": self._asked, "call": call, **arguments})

    def drained(self, lane: int) -> None:
        """This worker has answered the last request of a retired lane."""
        self._send({"kind": "drained", "lane": lane})

    def _send(self, document: Document) -> None:
        self._channel.send(document)
        self._flush()

    def _flush(self) -> None:
        if not self._channel.flush():
            self._loop.call_later(FLUSH_AGAIN_S, self._flush)

    def _on_readable(self) -> None:
        try:
            while (message := self._channel.receive()) is not None:
                self._act(*message)
        except ChannelClosed:
            # The supervisor's end is noticed elsewhere; if it lives, it sees this one close and ends this process.
            self._loop.remove_reader(self._channel.fileno())
            self._channel.close()

    def _act(self, document: Document, descriptors: list[int]) -> None:
        kind = document["kind"]
        if kind == "lane":
            arena, *bells = descriptors
            self._models.add(document, Arena(arena), bells)
            self._tracing.apply()
        elif kind == "retire":
            self._models.retire(document["lane"])
        elif kind == "others":
            self._models.set_others(document["models"])
            self._models.set_labels(document["labels"])
        elif kind == "region":
            self._regions.add(document, descriptors[0])
        elif kind == "no region":
            self._regions.remove(document["name"])
        elif kind == "trace":
            self._tracing.set(document)
        elif kind == "answer":
            done = self._waiting.pop(document["ask"])
            done(document["code"], document["text"])
            return
        else:
            # A kind without a meaning here only asks to be acknowledged.
            for fd in descriptors:
                os.close(fd)
        self._send({"kind": "ack", "seq": document["seq"]})
