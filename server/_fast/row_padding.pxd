"""Rows that are written longer than they came, so that lengths that are near each other share a slab (MODE_SHAPED).

An arena's PadRules say which axes of its inputs go up to which multiple. padding_round is applied to a request's dims
before it claims rows; the length that each group of axes really had goes into the rows' extents, where the executor
reads what is to be cut off. padding_spread brings rows that were written side by side, as they came, to the places that
padded rows have. It knows nothing of requests and slabs. The memory is the caller's. Any thread; O(rules), O(bytes).
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from server._fast.layout cimport MAX_RANK, ArenaView, PadRule


cdef inline int padding_round(ArenaView* v, int64_t* dims, int64_t* extents) noexcept nogil:
    """Rounds the dims of a row ([inputs][MAX_RANK]) up, and notes in extents[groups] what they were: -1, or the first
    rule whose length is not that of its group.
    """
    cdef uint32_t i
    cdef int64_t* at
    cdef const PadRule* rule
    for i in range(v.padding.rule_count):
        rule = &v.padding.rules[i]
        at = &dims[rule.tensor * MAX_RANK + rule.axis]
        if i == 0 or v.padding.rules[i - 1].group != rule.group:
            extents[rule.group] = at[0]
        elif extents[rule.group] != at[0]:
            return <int>i
        if 0 < at[0] < rule.max:
            at[0] = min((at[0] + rule.multiple - 1) // rule.multiple * rule.multiple, rule.max)
    return -1


cdef inline const char* padding_value(ArenaView* v, uint32_t tensor) noexcept nogil:
    """The element that an input is padded with; NULL: it is not padded."""
    cdef uint32_t i
    for i in range(v.padding.rule_count):
        if v.padding.rules[i].tensor == tensor:
            return v.padding.rules[i].value
    return NULL


# rows of `given` dims lie side by side at `data`: they get `padded` dims, which are nowhere smaller, and `value` (one
# element) where nothing came. dims[0] of both is not looked at. There is room for all rows of padded dims.
cdef void padding_spread(char* data, uint64_t item_bytes, uint64_t row_count, uint32_t rank, const int64_t* given,
                         const int64_t* padded, const char* value) noexcept nogil
