/* UTF-8 (RFC 3629): whether bytes are text. No memory, any thread; O(bytes), eight at a time where they are ASCII. */
#ifndef HEADRACE_UTF8_H
#define HEADRACE_UTF8_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* The bytes of one well-formed sequence behind ASCII at p, or 0: shortest form, no surrogates, at most U+10FFFF. */
static inline int utf8_sequence(const char* p, const char* end) {
    const unsigned char a = (unsigned char)p[0];
    if (a < 0xC2 || a > 0xF4) return 0;
    const int n = a < 0xE0 ? 2 : a < 0xF0 ? 3 : 4;
    if (end - p < n) return 0;
    const unsigned char b = (unsigned char)p[1];
    const unsigned char low = a == 0xE0 ? 0xA0 : a == 0xF0 ? 0x90 : 0x80;
    const unsigned char high = a == 0xED ? 0x9F : a == 0xF4 ? 0x8F : 0xBF;
    if (b < low || b > high) return 0;
    for (int i = 2; i < n; ++i)
        if (((unsigned char)p[i] & 0xC0) != 0x80) return 0;
    return n;
}

static inline int utf8_is_valid(const char* p, size_t n) {
    const char* const end = p + n;
    while (p != end) {
        uint64_t eight;
        if (end - p >= 8) {
            memcpy(&eight, p, 8);
            if ((eight & 0x8080808080808080u) == 0) {
                p += 8;
                continue;
            }
        }
        if ((signed char)*p >= 0) {
            ++p;
            continue;
        }
        const int bytes = utf8_sequence(p, end);
        if (bytes == 0) return 0;
        p += bytes;
    }
    return 1;
}

#endif
