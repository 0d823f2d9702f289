"""Which requests may share a slab where dimensions vary (MODE_SHAPED): those whose rows have the same shapes.

An input that is one value for the whole batch is compared like a shape: its bytes stand in place of the dims.

RowShapes is one request's side: the dims behind the batch axis of every input, their hash, and how many such rows a
slab holds. The slab's side stands in its header and its TensorShapes; the opener writes it before the slab is open, and
whoever joins compares first the hash and then every dimension. The dims belong to the caller and are read during the
call only. Any thread; O(inputs * rank).

Where rows are padded, these dims are padded already, and a slab that is open for longer rows may be better than one of
one's own: server/batching/padding.py is the rule, shapes_waste its twin.

A slab's inputs lie one behind the other, each at a cache line and with room for the slab's capacity of rows:
shapes_store is the one place that says where, its readers take offset and bytes from the TensorShape.
"""

from libc.stdint cimport UINT64_MAX, int64_t, uint32_t, uint64_t

from server._fast.atomics cimport relaxed_load, relaxed_store, relaxed_store_half
from server._fast.layout cimport MAX_RANK, ArenaView, PadRule, TensorLayout, TensorShape, input_shape


cdef struct RowShapes:
    uint64_t signature
    uint32_t capacity
    const int64_t* dims   # [inputs][MAX_RANK]; the first of each input is not looked at
    uint64_t spare_elements   # a row may have so many more than these dims say; 0: none


cdef inline uint64_t padded_bytes(uint64_t size) noexcept nogil:
    return (size + 63) // 64 * 64


cdef inline bint shapes_measure(ArenaView* v, const int64_t* dims, RowShapes* out) noexcept nogil:
    """Hash and capacity for these dims; False when not one such row fits into a slab."""
    cdef uint64_t room = v.header.input_bytes, row_bytes, needed = 0
    cdef uint64_t h = 0x243F6A8885A308D3
    cdef uint32_t tensor, axis
    cdef const int64_t* at
    cdef const TensorLayout* layout
    cdef bint is_empty
    for tensor in range(v.header.input_count):
        layout = &v.tensors[tensor]
        at = dims + tensor * MAX_RANK
        row_bytes = layout.item_bytes
        is_empty = False
        for axis in range(1, layout.rank):
            h = (h ^ <uint64_t>at[axis]) * <uint64_t>0xFF51AFD7ED558CCD
            h ^= h >> 32
            if layout.is_value:
                continue
            if at[axis] == 0:
                is_empty = True
            elif not is_empty and row_bytes <= room:
                row_bytes = row_bytes * at[axis] if <uint64_t>at[axis] <= room else room + 1
        if is_empty or layout.is_value:
            continue
        if row_bytes > room:
            return False
        needed += padded_bytes(row_bytes)
    if needed > room:
        return False
    out.signature = h
    out.dims = dims
    out.capacity = v.row_capacity
    out.spare_elements = 0
    if needed and room // needed < out.capacity:
        out.capacity = <uint32_t>(room // needed)
    return True


cdef inline void shapes_store(ArenaView* v, uint32_t slab, const RowShapes* shapes) noexcept nogil:
    """The opener's: the slab is for rows of these shapes from now on."""
    cdef uint64_t offset = 0, row_bytes
    cdef uint32_t tensor, axis
    cdef TensorShape* shape
    cdef const int64_t* at
    relaxed_store(&v.slabs[slab].signature, shapes.signature)
    relaxed_store(&v.slabs[slab].output_used, 0)
    relaxed_store_half(&v.slabs[slab].crowded, 0)
    for tensor in range(v.header.input_count):
        shape = input_shape(v, slab, tensor)
        at = shapes.dims + tensor * MAX_RANK
        row_bytes = v.tensors[tensor].item_bytes
        for axis in range(1, v.tensors[tensor].rank):
            # Somebody may still compare with what the slab was for.
            relaxed_store(<uint64_t*>&shape.dims[axis], at[axis])
            row_bytes *= at[axis]
        if v.tensors[tensor].is_value:
            row_bytes = 0
        shape.dims[0] = shapes.capacity
        shape.rank = v.tensors[tensor].rank
        shape.offset = offset
        shape.bytes = row_bytes
        offset += padded_bytes(shapes.capacity * row_bytes)


cdef inline bint shapes_match(ArenaView* v, uint32_t slab, const RowShapes* shapes) noexcept nogil:
    """Whether the slab is for rows of these shapes. True is worth something if its word has not moved since."""
    cdef uint32_t tensor, axis
    cdef TensorShape* shape
    if relaxed_load(&v.slabs[slab].signature) != shapes.signature:
        return False
    for tensor in range(v.header.input_count):
        shape = input_shape(v, slab, tensor)
        for axis in range(1, v.tensors[tensor].rank):
            if <int64_t>relaxed_load(<uint64_t*>&shape.dims[axis]) != shapes.dims[tensor * MAX_RANK + axis]:
                return False
    return True


cdef inline uint64_t shapes_elements(ArenaView* v, const RowShapes* shapes) noexcept nogil:
    """Elements of one row of all inputs."""
    cdef uint64_t total = 0, count
    cdef uint32_t tensor, axis
    for tensor in range(v.header.input_count):
        count = 1
        for axis in range(1, v.tensors[tensor].rank):
            count *= shapes.dims[tensor * MAX_RANK + axis]
        total += count
    return total


cdef inline bint may_grow(ArenaView* v, uint32_t tensor, uint32_t axis, int64_t size, int64_t to) noexcept nogil:
    """Whether an axis of this size may be padded to that one."""
    cdef uint32_t i
    cdef const PadRule* rule
    for i in range(v.padding.rule_count):
        rule = &v.padding.rules[i]
        if rule.tensor == tensor and rule.axis == axis:
            return 0 < size <= to <= rule.max
    return False


cdef inline uint64_t shapes_waste(ArenaView* v, uint32_t slab, const RowShapes* shapes) noexcept nogil:
    """How many elements more a row has in this slab; UINT64_MAX where it may not be there, also for equal shapes. The
    result is worth something if the slab's word has not moved since.
    """
    cdef uint64_t total = 0, count
    cdef uint32_t tensor, axis
    cdef int64_t own, there
    cdef TensorShape* shape
    for tensor in range(v.header.input_count):
        shape = input_shape(v, slab, tensor)
        count = 1
        for axis in range(1, v.tensors[tensor].rank):
            own = shapes.dims[tensor * MAX_RANK + axis]
            there = <int64_t>relaxed_load(<uint64_t*>&shape.dims[axis])
            if own != there and not may_grow(v, tensor, axis, own, there):
                return UINT64_MAX
            count *= there
        total += count
    count = shapes_elements(v, shapes)
    return total - count if total > count and total - count <= shapes.spare_elements else UINT64_MAX


cdef inline char* shaped_row(ArenaView* v, uint32_t slab, uint32_t tensor, uint32_t row) noexcept nogil:
    """Where an input's row lies. For whoever holds rows of the slab."""
    cdef TensorShape* shape = input_shape(v, slab, tensor)
    return v.data + slab * v.data_stride + shape.offset + row * shape.bytes
