"""A short sorted list of distinct names, for texts that say what was expected and what came.

Keeps the first NAME_LIST_ITEMS in order of their bytes and drops the others. Borrows the names; on the caller's
stack, no allocation, any thread; O(items) a name.
"""

from libc.string cimport memcmp, memcpy, memmove

from server._fast.infer_spec cimport Span


cdef enum:
    NAME_LIST_ITEMS = 16


cdef struct NameList:
    int count
    Span names[16]


cdef inline int name_compare(Span a, Span b) noexcept nogil:
    cdef int order = memcmp(a.p, b.p, a.n if a.n < b.n else b.n) if a.n and b.n else 0
    if order:
        return order
    return (a.n > b.n) - (a.n < b.n)


cdef inline void name_list_add(NameList* l, Span name) noexcept nogil:
    cdef int at = l.count
    cdef int order
    while at > 0:
        order = name_compare(name, l.names[at - 1])
        if order == 0:
            return
        if order > 0:
            break
        at -= 1
    if at == NAME_LIST_ITEMS:
        return
    if l.count < NAME_LIST_ITEMS:
        l.count += 1
    memmove(&l.names[at + 1], &l.names[at], <size_t>(l.count - 1 - at) * sizeof(Span))
    l.names[at] = name


cdef inline void name_list_text(const NameList* l, char* text, size_t size) noexcept nogil:
    """`a,b,c`, with its NUL; names that do not fit are left out from the first such one on."""
    cdef size_t n = 0
    cdef int i
    for i in range(l.count):
        if n + l.names[i].n + 2 > size:
            break
        if i:
            text[n] = b","
            n += 1
        if l.names[i].n:
            memcpy(text + n, l.names[i].p, l.names[i].n)
        n += l.names[i].n
    text[n] = 0
