"""procfs.py: what the kernel says about a process that we know: this one."""

from __future__ import annotations

import os
import resource
import time

from server.observe.procfs import read_process


def test_this_process() -> None:
    sample = read_process(os.getpid(), "worker", 3)
    assert sample is not None
    assert (sample.role, sample.slot) == ("worker", 3)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    assert abs(sample.cpu_seconds - usage.ru_utime - usage.ru_stime) < 0.5
    assert 1 << 20 < sample.resident_bytes <= (usage.ru_maxrss << 10) * 1.1
    assert sample.resident_bytes < sample.virtual_bytes
    assert time.time() - 3600 < sample.start_time_s < time.time() + 1
    assert sample.max_fds in (resource.getrlimit(resource.RLIMIT_NOFILE)[0], 0)
    assert sample.threads == len(os.listdir("/proc/self/task"))


def test_descriptors_are_counted() -> None:
    before = read_process(os.getpid(), "worker")
    descriptors = [os.open("/dev/null", os.O_RDONLY) for _ in range(5)]
    after = read_process(os.getpid(), "worker")
    for descriptor in descriptors:
        os.close(descriptor)
    assert before is not None
    assert after is not None
    assert after.open_fds - before.open_fds == 5


def test_no_such_process() -> None:
    assert read_process(2**22 + 1, "worker") is None
