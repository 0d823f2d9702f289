"""C face of atomics.h: acquire loads, release stores and compare-and-swap on words in shared memory."""

from libc.stdint cimport int64_t, uint32_t, uint64_t


cdef extern from "atomics.h" nogil:
    uint64_t word_load(const uint64_t* word) noexcept
    void word_store(uint64_t* word, uint64_t value) noexcept
    int word_cas(uint64_t* word, uint64_t expected, uint64_t desired) noexcept
    uint64_t word_or(uint64_t* word, uint64_t bits) noexcept
    uint64_t word_and(uint64_t* word, uint64_t bits) noexcept
    uint32_t half_load(const uint32_t* half) noexcept
    void half_store(uint32_t* half, uint32_t value) noexcept
    uint32_t half_add(uint32_t* half, uint32_t value) noexcept
    uint32_t half_exchange(uint32_t* half, uint32_t value) noexcept
    uint64_t relaxed_load(const uint64_t* word) noexcept
    void relaxed_store(uint64_t* word, uint64_t value) noexcept
    void relaxed_add(uint64_t* word, uint64_t value) noexcept
    void shared_add(uint64_t* word, uint64_t value) noexcept
    uint64_t shared_next(uint64_t* word) noexcept
    int shared_take(int64_t* left) noexcept
    uint32_t relaxed_load_half(const uint32_t* half) noexcept
    void relaxed_store_half(uint32_t* half, uint32_t value) noexcept
    void full_fence(uint64_t* word) noexcept
