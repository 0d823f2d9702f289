"""The channel between supervisor and worker: documents and descriptors arrive whole, in order, and nothing leaks."""

from __future__ import annotations

import os

import pytest

from server.channel import ChannelClosed, pair


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_documents_and_descriptors_arrive_in_order() -> None:
    before = open_descriptors()
    ours, theirs = pair()
    memory = os.memfd_create("test", os.MFD_CLOEXEC)
    os.write(memory, b"shared")
    ours.send({"kind": "lane", "name": "ä" * 300_000}, [memory, memory])
    ours.send({"kind": "second"})
    os.close(memory)
    first = theirs.receive()
    assert first is not None
    document, descriptors = first
    assert document == {"kind": "lane", "name": "ä" * 300_000}
    assert [os.pread(fd, 6, 0) for fd in descriptors] == [b"shared", b"shared"]
    assert not any(os.get_inheritable(fd) for fd in descriptors)
    for fd in descriptors:
        os.close(fd)
    assert theirs.receive() == ({"kind": "second"}, [])
    assert theirs.receive() is None
    ours.close()
    with pytest.raises(ChannelClosed):
        theirs.receive()
    theirs.close()
    assert open_descriptors() == before


def test_a_reader_that_does_not_read_stops_nobody_and_loses_nothing() -> None:
    before = open_descriptors()
    ours, theirs = pair()
    count = 3000
    for number in range(count):
        ours.send({"number": number})
    assert not ours.flush()
    received = []
    while len(received) < count:
        while (message := theirs.receive()) is not None:
            received.append(message[0]["number"])
        ours.flush()
    assert received == list(range(count))
    assert ours.flush()
    ours.close()
    theirs.close()
    assert open_descriptors() == before


def test_messages_to_the_dead_are_dropped() -> None:
    before = open_descriptors()
    ours, theirs = pair()
    theirs.close()
    ours.send({"kind": "late"})
    assert ours.flush()
    ours.close()
    assert open_descriptors() == before
