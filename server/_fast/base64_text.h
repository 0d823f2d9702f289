/* Base64 (RFC 4648, section 4) out of the contents of a JSON string, and into a document.
 *
 * Reading is as lenient as TensorFlow Serving's: white space is passed over, padding may be missing. Borrows the text,
 * the room is the caller's; allocates nothing, any thread; O(bytes).
 */
#ifndef HEADRACE_BASE64_TEXT_H
#define HEADRACE_BASE64_TEXT_H

#include "json_scan.h"

static inline int base64_value(unsigned char c) {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* Decodes a checked string's contents: the bytes, or -1. dst NULL: only counts them. */
static inline int64_t base64_decode(Span text, char* dst) {
    const char* p = text.p;
    const char* const end = text.p + text.n;
    uint32_t bits = 0;
    int64_t n = 0;
    size_t digits = 0, padding = 0;
    while (p != end) {
        char utf8[4];
        if (json_next_character(&p, utf8) != 1) return -1;
        const unsigned char c = (unsigned char)utf8[0];
        if (c == ' ' || (c >= '\t' && c <= '\r')) continue;
        if (c == '=') {
            ++padding;
            continue;
        }
        const int value = base64_value(c);
        if (value < 0 || padding) return -1;
        bits = bits << 6 | (uint32_t)value;
        if (++digits % 4 == 1) continue;
        if (dst != NULL) dst[n] = (char)(bits >> (6 - 2 * ((digits - 1) % 4)));
        ++n;
    }
    if (digits % 4 == 1 || (padding && (padding > 2 || (digits + padding) % 4))) return -1;
    return n;
}

static inline size_t base64_bytes(size_t n) { return (n + 2) / 3 * 4; }

/* Writes base64_bytes(n) bytes: behind them. */
static inline char* base64_put(char* dst, const char* p, size_t n) {
    static const char DIGITS[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char* at = (const unsigned char*)p;
    for (; n >= 3; n -= 3, at += 3) {
        *dst++ = DIGITS[at[0] >> 2];
        *dst++ = DIGITS[(at[0] & 3) << 4 | at[1] >> 4];
        *dst++ = DIGITS[(at[1] & 15) << 2 | at[2] >> 6];
        *dst++ = DIGITS[at[2] & 63];
    }
    if (n == 0) return dst;
    *dst++ = DIGITS[at[0] >> 2];
    *dst++ = DIGITS[(at[0] & 3) << 4 | (n == 2 ? at[1] >> 4 : 0)];
    *dst++ = n == 2 ? DIGITS[(at[1] & 15) << 2] : '=';
    *dst++ = '=';
    return dst;
}

#endif
