"""A worker's front end."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from server._fast.client_region import ClientRegion
from server._fast.infer_call import LaneClient, Responder, Turn
from server._fast.layout import Control

class ControlPlane(Protocol):
    """Answers what is not an inference: (status, body, content type, headers), or (begin,) for an answer that comes
    later.
    """

    def handle(
        self, method: str, path: str, query: str, headers: dict[str, str], body: bytes, port: str
    ) -> tuple[int, bytes, str, tuple[tuple[str, str], ...]] | tuple[Callable[..., None]]: ...

class Peer(Responder):
    """A connection, of whatever protocol."""

class Frontend(Turn):
    """The lanes and connections of a worker. Everything runs on the event loop's thread.

    cors_origins: whose pages may call this server from a browser, "*" for everyone's. bell: the worker's eventfd;
    max_held_bytes: partial requests of all connections together; times in ns, sizes in bytes. send_timeout_ns: how long
    a client may take nothing of an answer that waits. has_tensor_content_replies, which may be set at any time: replies
    to TensorFlow Serving's Predict have their elements in tensor_content, not in the field of their datatype.
    """

    control: Control
    lanes: list[LaneClient]
    handlers: ControlPlane
    peers: set[Peer]
    regions: dict[bytes, ClientRegion]
    labels: dict[tuple[bytes, bytes], bytes]
    is_stopping: bool
    has_tensor_content_replies: bool
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        control: Control,
        owner: int,
        bell: int,
        *,
        max_body_bytes: int,
        max_held_bytes: int,
        head_timeout_ns: int,
        idle_timeout_ns: int,
        send_timeout_ns: int = 30_000_000_000,
        max_head_bytes: int = 32768,
        max_target_bytes: int = 8192,
        max_fields: int = 100,
        cors_origins: Sequence[str] = (),
    ) -> None: ...
    def start(
        self,
        handlers: ControlPlane,
        on_stopped: Callable[[], object],
        http2: Callable[[Frontend, str], Peer] | None = None,
        on_drained: Callable[[LaneClient], object] | None = None,
    ) -> None:
        """Begins to serve; on_stopped is called once, after stop(), when the last connection has gone.

        http2 makes the connection that takes over when a client opens with HTTP/2; without it such clients get 505.
        """

    def add_lane(self, lane: LaneClient) -> None:
        """A model version that requests can reach from now on."""

    def retire_lane(self, lane: LaneClient) -> None:
        """No new request reaches the lane; start()'s on_drained(lane) follows when it has answered its last."""

    def end_turn(self) -> None:
        """Wakes executors, then writes replies."""

    def on_bell(self) -> None:
        """The worker's eventfd is readable."""

    def on_deadline(self) -> None:
        """Answers calls whose deadline has passed."""

    def on_tick(self) -> None:
        """Once a second."""

    def stop(self) -> None:
        """Closes idle connections, and every other one after its last reply."""

    def hurry(self) -> None:
        """Drops connections in the middle of a request."""

    def peer_gone(self, peer: Peer | None) -> None: ...
