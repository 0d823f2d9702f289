"""A lane's batch cap and what memory has refused it, in the arena: the instances cut batches by it, metrics show it.

It knows numbers; when the cap falls and rises is server.batching.batch_cap_policy's to say. The arena owns the memory.
The executor writes, its instances one after the other (server.executor.batch_cap); anyone reads. O(1).
"""

from libc.stdint cimport uint32_t

from server._fast.atomics cimport relaxed_load, relaxed_load_half, relaxed_store_half, shared_add
from server._fast.layout cimport Arena, CostTable


def set_rows(Arena arena not None, uint32_t rows):
    relaxed_store_half(&arena.view.cost.cap_rows, rows)


def count_split(Arena arena not None):
    shared_add(&arena.view.cost.split_count, 1)


def count_unfit(Arena arena not None):
    shared_add(&arena.view.cost.unfit_count, 1)


def read(Arena arena not None):
    cdef CostTable* cost = arena.view.cost
    return relaxed_load_half(&cost.cap_rows), relaxed_load(&cost.split_count), relaxed_load(&cost.unfit_count)
