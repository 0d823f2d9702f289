"""The supervisor's loop: who is no longer watched is not called."""

from __future__ import annotations

import os

from server.supervisor.loop import Loop


def test_who_was_ended_in_the_same_round_is_not_called() -> None:
    loop, called = Loop(), []
    pipes = [os.pipe() for _ in range(2)]

    def read(which: int) -> None:
        called.append(which)
        # What a death does: nobody watches the other any more, and it is closed.
        other = pipes[1 - which][0]
        loop.unwatch(other)
        os.close(other)
        loop.unwatch(pipes[which][0])

    for which, (there, here) in enumerate(pipes):
        loop.watch(there, lambda which=which: read(which))  # type: ignore[misc]
        os.write(here, b"x")
    loop.after(0, loop.stop)
    loop.run()
    assert len(called) == 1
    os.close(pipes[called[0]][0])
    for _, here in pipes:
        os.close(here)


def test_a_descriptor_that_is_watched_anew_in_the_same_round_waits_for_the_next() -> None:
    loop, called = Loop(), []
    pipes = [os.pipe() for _ in range(2)]

    def read(which: int) -> None:
        called.append(which)
        other = pipes[1 - which][0]
        loop.unwatch(other)
        loop.watch(other, lambda: (called.append(9), loop.stop()))
        loop.unwatch(pipes[which][0])

    for which, (there, here) in enumerate(pipes):
        loop.watch(there, lambda which=which: read(which))  # type: ignore[misc]
        os.write(here, b"x")
    loop.run()
    assert len(called) == 2 and called[1] == 9
    for pair in pipes:
        for descriptor in pair:
            os.close(descriptor)
