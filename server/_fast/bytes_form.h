/* BYTES elements as they lie in a slab and on the wire: of each a little-endian length of four bytes, then its bytes.
 *
 * This is the V2 protocol's binary form, without padding or index, so an element is found by walking. Knows nothing of
 * shapes or requests. Borrows everything, reads no byte outside [p, end), allocates nothing, any thread; O(elements),
 * the elements' bytes are not looked at.
 */
#ifndef HEADRACE_BYTES_FORM_H
#define HEADRACE_BYTES_FORM_H

#include "infer_types.h"

enum { BYTES_LENGTH_BYTES = 4 };

enum BytesFault { BYTES_CUT_LENGTH = -1, BYTES_CUT_ELEMENT = -2 };

/* The element at *p, and moves behind it: 1, 0 at the end, or a BytesFault; then element->n is the length that was
 * announced, if there was one. */
static inline int bytes_next(const char** p, const char* end, Span* element) {
    uint32_t n;
    element->p = NULL;
    element->n = 0;
    if (*p == end) return 0;
    if (end - *p < BYTES_LENGTH_BYTES) return BYTES_CUT_LENGTH;
    memcpy(&n, *p, sizeof n);
    element->n = n;
    if ((uint64_t)(end - *p - BYTES_LENGTH_BYTES) < n) return BYTES_CUT_ELEMENT;
    element->p = *p + BYTES_LENGTH_BYTES;
    *p = element->p + n;
    return 1;
}

/* Counts elements at *p until `most` are passed or the end is reached: how many, or a BytesFault with *p at it. */
static inline int64_t bytes_count(const char** p, const char* end, int64_t most) {
    int64_t count = 0;
    Span element;
    while (count < most) {
        const int status = bytes_next(p, end, &element);
        if (status < 0) return status;
        if (status == 0) break;
        ++count;
    }
    return count;
}

/* Writes the length: where the element's bytes belong. */
static inline char* bytes_put_length(char* dst, size_t n) {
    const uint32_t length = (uint32_t)n;
    memcpy(dst, &length, sizeof length);
    return dst + BYTES_LENGTH_BYTES;
}

static inline char* bytes_put(char* dst, const char* p, size_t n) {
    dst = bytes_put_length(dst, n);
    if (n) memcpy(dst, p, n);
    return dst + n;
}

#endif
