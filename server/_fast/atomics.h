/* Atomic words shared between processes. GCC/Clang builtins: they work in C and C++ and under ThreadSanitizer.
 * Every word is naturally aligned and lock-free; a process that dies leaves no lock behind. */
#ifndef HEADRACE_ATOMICS_H
#define HEADRACE_ATOMICS_H

#include <stdint.h>

/* Loads and swaps are sequentially consistent: two owners that free the last two rows of a slab each store one word and
 * look at the other's, and one of them has to see both. On x86 this costs nothing over acquire and release. */
static inline uint64_t word_load(const uint64_t *word) { return __atomic_load_n(word, __ATOMIC_SEQ_CST); }
static inline void word_store(uint64_t *word, uint64_t value) { __atomic_store_n(word, value, __ATOMIC_RELEASE); }
static inline int word_cas(uint64_t *word, uint64_t expected, uint64_t desired) {
    return __atomic_compare_exchange_n(word, &expected, desired, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}
static inline uint64_t word_or(uint64_t *word, uint64_t bits) {
    return __atomic_fetch_or(word, bits, __ATOMIC_SEQ_CST);
}
static inline uint64_t word_and(uint64_t *word, uint64_t bits) {
    return __atomic_fetch_and(word, bits, __ATOMIC_SEQ_CST);
}

static inline uint32_t half_load(const uint32_t *half) { return __atomic_load_n(half, __ATOMIC_ACQUIRE); }
static inline void half_store(uint32_t *half, uint32_t value) { __atomic_store_n(half, value, __ATOMIC_RELEASE); }
static inline uint32_t half_add(uint32_t *half, uint32_t value) {
    return __atomic_fetch_add(half, value, __ATOMIC_ACQ_REL);
}
static inline uint32_t half_exchange(uint32_t *half, uint32_t value) {
    return __atomic_exchange_n(half, value, __ATOMIC_SEQ_CST);
}

/* Plain numbers with one writer and racing readers: statistics, hints, time stamps. */
static inline uint64_t relaxed_load(const uint64_t *word) { return __atomic_load_n(word, __ATOMIC_RELAXED); }
static inline void relaxed_store(uint64_t *word, uint64_t value) { __atomic_store_n(word, value, __ATOMIC_RELAXED); }
static inline void relaxed_add(uint64_t *word, uint64_t value) {
    __atomic_store_n(word, __atomic_load_n(word, __ATOMIC_RELAXED) + value, __ATOMIC_RELAXED);
}
/* The same for several writers: instances of an executor. */
static inline void shared_add(uint64_t *word, uint64_t value) { (void)__atomic_fetch_add(word, value, __ATOMIC_RELAXED); }
static inline uint64_t shared_next(uint64_t *word) { return __atomic_fetch_add(word, 1, __ATOMIC_RELAXED); }
/* Takes one of what is left, of several takers: 0 if nothing is; what is below 0 never ends. */
static inline int shared_take(int64_t *left) {
    int64_t now = __atomic_load_n(left, __ATOMIC_RELAXED);
    while (now > 0 && !__atomic_compare_exchange_n(left, &now, now - 1, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    return now != 0;
}
static inline uint32_t relaxed_load_half(const uint32_t *half) { return __atomic_load_n(half, __ATOMIC_RELAXED); }
static inline void relaxed_store_half(uint32_t *half, uint32_t value) { __atomic_store_n(half, value, __ATOMIC_RELAXED); }

/* Orders "I publish, then look whether you sleep" against "I say that I sleep, then look for work" (Dekker). The
 * read-modify-write form is the one that ThreadSanitizer understands; on x86 both cost one locked instruction. */
static inline void full_fence(uint64_t *word) { (void)__atomic_fetch_add(word, 0, __ATOMIC_SEQ_CST); }

#endif
