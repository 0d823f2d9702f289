/* JSON arrays of strings as BYTES elements, in two passes: the first checks and measures, the second writes.
 *
 * Nesting does not matter, as with numbers (number_arrays.h). Borrows the text; the destination has the measured size.
 * Allocates nothing, does not recurse, any thread; O(text bytes).
 */
#ifndef HEADRACE_STRING_ARRAYS_H
#define HEADRACE_STRING_ARRAYS_H

#include "bytes_form.h"
#include "json_text.h"

/* The next string of the array: 1, 0 behind the last one, -1 with `expected` set. Begins with the scanner at '['. */
static inline int string_array_next(JsonScan* s, int after_value, Span* text, int* escaped) {
    for (;;) {
        if (after_value) {
            const int more = json_more(s, '[');
            if (more < 0) return -1;
            if (more == 0) {
                if (s->depth == 0) return 0;
                continue;
            }
        }
        after_value = 0;
        if (json_peek(s) == '"') return json_string(s, text, escaped) < 0 ? -1 : 1;
        if (s->p == s->end || *s->p != '[') return json_want(s, s->p, "a string");
        const int entered = json_enter(s, '[');
        if (entered < 0) return -1;
        if (entered == 0) {
            if (s->depth == 0) return 0;
            after_value = 1;
        }
    }
}

/* Up to 40 printable bytes at p, to the end of the token. */
static inline int string_array_excerpt(const char* p, const char* end, char* out) {
    int n = 0;
    while (p + n != end && n < 40 && p[n] != ',' && p[n] != ']' && p[n] != '\n') {
        out[n] = p[n] >= 0x20 && p[n] < 0x7F ? p[n] : '?';
        ++n;
    }
    return n;
}

/* Counts elements, and their bytes together, of an array that stands alone in `array`: 0, or -1 and a text. */
__attribute__((unused)) static int string_array_measure(Span array, int64_t* count, size_t* bytes, InferError* err) {
    JsonScan s;
    Span text;
    int escaped, status, after_value = 0;
    *count = 0;
    *bytes = 0;
    json_start(&s, array.p, array.n);
    while ((status = string_array_next(&s, after_value, &text, &escaped)) > 0) {
        *bytes += escaped ? json_text_decode(text, NULL) : text.n;
        ++*count;
        after_value = 1;
    }
    if (status == 0) {
        json_space(&s);
        if (s.p == s.end) return 0;
        s.expected = "the end of the array";
    }
    char token[40];
    const int n = string_array_excerpt(s.p, s.end, token);
    return infer_fail(err, INFER_INVALID_ARGUMENT, "Unable to parse 'data': element %lld: expected %s, got %s%.*s%s",
                      (long long)*count, s.expected, s.p == s.end ? "the end" : "'", n, token, s.p == s.end ? "" : "'");
}

/* Writes the elements of an array that has been measured: behind the last one. */
__attribute__((unused)) static char* string_array_write(Span array, char* dst) {
    JsonScan s;
    Span text;
    int escaped, after_value = 0;
    json_start(&s, array.p, array.n);
    while (string_array_next(&s, after_value, &text, &escaped) > 0) {
        const size_t n = escaped ? json_text_decode(text, dst + BYTES_LENGTH_BYTES) : text.n;
        if (!escaped && n) memcpy(dst + BYTES_LENGTH_BYTES, text.p, n);
        dst = bytes_put_length(dst, n) + n;
        after_value = 1;
    }
    return dst;
}

#endif
