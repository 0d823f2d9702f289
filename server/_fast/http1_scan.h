/* Byte scanners of the HTTP/1.1 parser: the first byte of [p, end) that is outside a class, or end.
 *
 * Knows three byte classes and nothing else of HTTP. Reads only [base, end), base <= p: the tail of fewer than 16 bytes is
 * read as the last 16 bytes before end, which overlap bytes already seen, so a buffer may end at an unmapped page.
 * No state, any thread. O(end - p), 16 bytes a step where SSSE3 is there.
 */
#ifndef HEADRACE_HTTP1_SCAN_H
#define HEADRACE_HTTP1_SCAN_H

#include <stddef.h>
#include <stdint.h>

/* token: RFC 9110 section 5.6.2, tchar. One bit per upper half (0-7), indexed by the lower half of the byte. */
static const uint8_t h1_tchar_by_low[16] = {
    0xE8, 0xFC, 0xF8, 0xFC, 0xFC, 0xFC, 0xFC, 0xFC, 0xF8, 0xF8, 0xF4, 0x54, 0xD0, 0x54, 0xF4, 0x70,
};

static inline int h1_is_token(unsigned char c) { return c < 0x80 && (h1_tchar_by_low[c & 15] >> (c >> 4) & 1); }

/* target: visible ASCII without '#', which no request target may hold (RFC 9112 section 3.2). */
static inline int h1_is_target(unsigned char c) { return c > 0x20 && c < 0x7f && c != '#'; }

/* text: what a field value may hold (RFC 9110 section 5.5): no control byte but HTAB. */
static inline int h1_is_text(unsigned char c) { return (c >= 0x20 && c != 0x7f) || c == '\t'; }

#ifdef __SSSE3__
#include <tmmintrin.h>

static inline unsigned h1_outside_token(__m128i v) {
    const __m128i low = _mm_loadu_si128((const __m128i *)h1_tchar_by_low);
    const __m128i bit = _mm_setr_epi8(1, 2, 4, 8, 16, 32, 64, (char)128, 0, 0, 0, 0, 0, 0, 0, 0);
    __m128i high = _mm_and_si128(_mm_srli_epi16(v, 4), _mm_set1_epi8(15));
    __m128i hit = _mm_and_si128(_mm_shuffle_epi8(low, v), _mm_shuffle_epi8(bit, high));
    return (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(hit, _mm_setzero_si128()));
}

static inline unsigned h1_outside_target(__m128i v) {
    __m128i above_space = _mm_cmpgt_epi8(v, _mm_set1_epi8(0x20)); /* signed: false from 0x80 on */
    __m128i refused = _mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8(0x7f)), _mm_cmpeq_epi8(v, _mm_set1_epi8('#')));
    return (unsigned)_mm_movemask_epi8(_mm_andnot_si128(refused, above_space)) ^ 0xffffu;
}

static inline unsigned h1_outside_text(__m128i v) {
    __m128i control = _mm_cmpeq_epi8(_mm_min_epu8(v, _mm_set1_epi8(0x1f)), v);
    __m128i refused = _mm_andnot_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8('\t')), control);
    return (unsigned)_mm_movemask_epi8(_mm_or_si128(refused, _mm_cmpeq_epi8(v, _mm_set1_epi8(0x7f))));
}

#define H1_SCAN_16(outside)                                                                          \
    while (end - p >= 16) {                                                                          \
        unsigned found = outside(_mm_loadu_si128((const __m128i *)p));                               \
        if (found)                                                                                   \
            return p + __builtin_ctz(found);                                                         \
        p += 16;                                                                                     \
    }                                                                                                \
    if (p < end && end - base >= 16) {                                                               \
        unsigned found = outside(_mm_loadu_si128((const __m128i *)(end - 16))) >> (16 - (end - p));  \
        return found ? p + __builtin_ctz(found) : end;                                               \
    }
#else
#define H1_SCAN_16(outside)
#endif

#define H1_SCANNER(name, outside, inside)                                                   \
    static inline const char *name(const char *base, const char *p, const char *end) {      \
        (void)base;                                                                         \
        H1_SCAN_16(outside)                                                                 \
        while (p < end && inside((unsigned char)*p))                                        \
            p++;                                                                            \
        return p;                                                                           \
    }

H1_SCANNER(h1_scan_token, h1_outside_token, h1_is_token)
H1_SCANNER(h1_scan_target, h1_outside_target, h1_is_target)
H1_SCANNER(h1_scan_text, h1_outside_text, h1_is_text)

#endif
