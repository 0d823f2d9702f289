/* Strings of JSON documents: out of a checked string's contents, and into a document.
 *
 * Knows nothing of documents. The room is the caller's and is never checked here: both directions have a function that
 * says the size. Allocates nothing, any thread; O(bytes), where nothing is escaped by memchr and memcpy.
 */
#ifndef HEADRACE_JSON_TEXT_H
#define HEADRACE_JSON_TEXT_H

#include "json_scan.h"

/* Decodes the contents of a string that the scanner has checked: its bytes. dst NULL: only counts them. */
static inline size_t json_text_decode(Span text, char* dst) {
    const char* p = text.p;
    const char* const end = text.p + text.n;
    size_t n = 0;
    while (p != end) {
        const char* const found = (const char*)memchr(p, '\\', (size_t)(end - p));
        const size_t run = (size_t)((found == NULL ? end : found) - p);
        char utf8[4];
        if (dst != NULL && run) memcpy(dst + n, p, run);
        n += run;
        p += run;
        if (p == end) break;
        const int size = json_next_character(&p, utf8);
        if (dst != NULL) memcpy(dst + n, utf8, (size_t)size);
        n += (size_t)size;
    }
    return n;
}

/* What stands behind the backslash for c: a letter, 'u' for a control character without one, 0: c stands as it is. */
static inline char json_escape_of(unsigned char c) {
    if (c >= ' ') return c == '"' || c == '\\' ? (char)c : 0;
    switch (c) {
        case '\b':
            return 'b';
        case '\t':
            return 't';
        case '\n':
            return 'n';
        case '\f':
            return 'f';
        case '\r':
            return 'r';
        default:
            return 'u';
    }
}

/* Bytes of the string with its quotes. */
static inline size_t json_text_bytes(const char* p, size_t n) {
    size_t size = n + 2;
    for (size_t i = 0; i < n; ++i) {
        const char escape = json_escape_of((unsigned char)p[i]);
        size += escape == 0 ? 0 : escape == 'u' ? 5 : 1;
    }
    return size;
}

/* Writes UTF-8 as a string with its quotes: behind it. */
static inline char* json_text_put(char* dst, const char* p, size_t n) {
    static const char HEX[] = "0123456789abcdef";
    *dst++ = '"';
    for (size_t i = 0; i < n; ++i) {
        const unsigned char c = (unsigned char)p[i];
        const char escape = json_escape_of(c);
        if (escape) *dst++ = '\\';
        *dst++ = escape ? escape : (char)c;
        if (escape == 'u') {
            *dst++ = '0';
            *dst++ = '0';
            *dst++ = HEX[c >> 4];
            *dst++ = HEX[c & 15];
        }
    }
    *dst++ = '"';
    return dst;
}

#endif
