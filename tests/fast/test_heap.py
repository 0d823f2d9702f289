"""Memory that is freed while a model loads stays until the load is over, and goes back then."""

from __future__ import annotations

import json
import subprocess
import sys

#: Blocks of 1 to 32 MiB, the sizes that glibc maps one by one, filled and freed.
CHURN = """
import ctypes, json
from server.executor import heap

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]

def resident_mib():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) >> 10 for line in status if line.startswith("RssAnon:"))

def churn():
    for _ in range(2):
        blocks = [libc.malloc(mib << 20) for mib in (1, 4, 16, 32)]
        for block, mib in zip(blocks, (1, 4, 16, 32)):
            ctypes.memset(block, 1, mib << 20)
        for block in blocks:
            libc.free(block)
    return resident_mib()

start = resident_mib()
with heap.kept():
    inside = churn()
after = resident_mib()
print(json.dumps([inside - start, after - start, churn() - start]))
"""


def test_memory_is_kept_within_the_block_and_given_back_at_its_end() -> None:
    done = subprocess.run([sys.executable, "-c", CHURN], capture_output=True, text=True, check=True)
    inside_mib, after_mib, later_mib = json.loads(done.stdout)
    # What was freed first is used the second time: no more than one round of blocks.
    assert 50 <= inside_mib <= 60
    assert after_mib <= 2
    # The largest block is mapped by itself again, and unmapped.
    assert later_mib <= inside_mib - 30
