/* A scanner over JSON text (RFC 8259): white space, strings, values to skip, the extent of an array.
 *
 * Knows nothing of what the text means. Borrows the text, reads no byte outside [p, end), allocates nothing and does
 * not recurse: nesting is a bit per level, at most JSON_MAX_DEPTH levels. Any thread, O(bytes). Functions return 0 or
 * -1; after -1 `expected` says what was expected at `p`. Beyond RFC 8259 the bare tokens NaN, Infinity and -Infinity
 * are values, as they are to the clients of this protocol.
 */
#ifndef HEADRACE_JSON_SCAN_H
#define HEADRACE_JSON_SCAN_H

#include <emmintrin.h>

#include "infer_types.h"

enum { JSON_MAX_DEPTH = 100 };

typedef struct JsonScan {
    const char* p;
    const char* end;
    const char* begin;
    const char* expected;
    int depth; /* containers open around p */
} JsonScan;

static inline void json_start(JsonScan* s, const char* p, size_t n) {
    s->p = s->begin = p;
    s->end = p + n;
    s->expected = NULL;
    s->depth = 0;
}

static inline int json_want(JsonScan* s, const char* p, const char* expected) {
    s->p = p;
    s->expected = expected;
    return -1;
}

static inline void json_space(JsonScan* s) {
    const char* p = s->p;
    while (p != s->end && (unsigned char)*p <= ' ' && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t')) ++p;
    s->p = p;
}

/* The byte at p behind white space; 0 at the end (a NUL in the text is never valid there either). */
static inline char json_peek(JsonScan* s) {
    json_space(s);
    return s->p == s->end ? 0 : *s->p;
}

static inline int json_hex4(const char* p, const char* end) {
    int value = 0;
    if (end - p < 4) return -1;
    for (int i = 0; i < 4; ++i) {
        const unsigned char c = (unsigned char)p[i];
        const unsigned char letter = (unsigned char)((c | 0x20) - 'a');
        if (c >= '0' && c <= '9')
            value = value << 4 | (c - '0');
        else if (letter < 6)
            value = value << 4 | (letter + 10);
        else
            return -1;
    }
    return value;
}

/* The bytes of one well-formed UTF-8 sequence (RFC 3629) at p, or 0. */
static inline int json_utf8(const char* p, const char* end) {
    const unsigned char a = (unsigned char)p[0];
    const ptrdiff_t left = end - p;
    if (a < 0xC2 || a > 0xF4) return 0;
    const int n = a < 0xE0 ? 2 : a < 0xF0 ? 3 : 4;
    if (left < n) return 0;
    const unsigned char b = (unsigned char)p[1];
    const unsigned char low = a == 0xE0 ? 0xA0 : a == 0xF0 ? 0x90 : 0x80;
    const unsigned char high = a == 0xED ? 0x9F : a == 0xF4 ? 0x8F : 0xBF;
    if (b < low || b > high) return 0;
    for (int i = 2; i < n; ++i)
        if (((unsigned char)p[i] & 0xC0) != 0x80) return 0;
    return n;
}

/* An escape sequence at the backslash p: its bytes, or 0. A surrogate needs its other half right behind. */
static inline int json_escape(const char* p, const char* end) {
    if (end - p < 2) return 0;
    switch (p[1]) {
        case '"':
        case '\\':
        case '/':
        case 'b':
        case 'f':
        case 'n':
        case 'r':
        case 't':
            return 2;
        case 'u':
            break;
        default:
            return 0;
    }
    const int unit = json_hex4(p + 2, end);
    if (unit < 0 || (unit >= 0xDC00 && unit <= 0xDFFF)) return 0;
    if (unit < 0xD800 || unit > 0xDBFF) return 6;
    if (end - p < 12 || p[6] != '\\' || p[7] != 'u') return 0;
    const int other = json_hex4(p + 8, end);
    return other >= 0xDC00 && other <= 0xDFFF ? 12 : 0;
}

/* A string at the quote p. `text` gets what is between the quotes, still escaped; *escaped whether it has escapes. */
static inline int json_string(JsonScan* s, Span* text, int* escaped) {
    const char* p = s->p + 1;
    const char* const end = s->end;
    const __m128i quote = _mm_set1_epi8('"'), backslash = _mm_set1_epi8('\\'), space = _mm_set1_epi8(' ');
    text->p = p;
    *escaped = 0;
    for (;;) {
        /* Signed compare: bytes from 0x80 on are below ' ' too, so one compare finds controls and UTF-8. */
        while (end - p >= 16) {
            const __m128i block = _mm_loadu_si128((const __m128i*)p);
            const __m128i ends = _mm_or_si128(_mm_cmpeq_epi8(block, quote), _mm_cmpeq_epi8(block, backslash));
            const int mask = _mm_movemask_epi8(_mm_or_si128(ends, _mm_cmplt_epi8(block, space)));
            if (mask) {
                p += __builtin_ctz((unsigned)mask);
                break;
            }
            p += 16;
        }
        while (p != end && *p != '"' && *p != '\\' && (signed char)*p >= ' ') ++p;
        if (p == end) return json_want(s, p, "'\"'");
        if (*p == '"') {
            text->n = (size_t)(p - text->p);
            s->p = p + 1;
            return 0;
        }
        int n;
        if (*p == '\\') {
            n = json_escape(p, end);
            if (n == 0) return json_want(s, p, "a valid escape, surrogates in pairs");
            *escaped = 1;
        } else {
            n = (signed char)*p < 0 ? json_utf8(p, end) : 0;
            if (n == 0) return json_want(s, p, "UTF-8 without control characters");
        }
        p += n;
    }
}

/* Decodes the character at *p of a checked string's contents into utf8[4]: its bytes. */
static inline int json_next_character(const char** p, char* utf8) {
    const char* q = *p;
    if (*q != '\\') {
        utf8[0] = *q;
        *p = q + 1;
        return 1;
    }
    if (q[1] != 'u') {
        const char c = q[1];
        utf8[0] = c == 'b' ? '\b' : c == 'f' ? '\f' : c == 'n' ? '\n' : c == 'r' ? '\r' : c == 't' ? '\t' : c;
        *p = q + 2;
        return 1;
    }
    unsigned point = (unsigned)json_hex4(q + 2, q + 6);
    q += 6;
    if (point >= 0xD800 && point <= 0xDBFF) {
        point = 0x10000 + ((point - 0xD800) << 10) + ((unsigned)json_hex4(q + 2, q + 6) - 0xDC00);
        q += 6;
    }
    *p = q;
    if (point < 0x80) {
        utf8[0] = (char)point;
        return 1;
    }
    if (point < 0x800) {
        utf8[0] = (char)(0xC0 | point >> 6);
        utf8[1] = (char)(0x80 | (point & 0x3F));
        return 2;
    }
    if (point < 0x10000) {
        utf8[0] = (char)(0xE0 | point >> 12);
        utf8[1] = (char)(0x80 | (point >> 6 & 0x3F));
        utf8[2] = (char)(0x80 | (point & 0x3F));
        return 3;
    }
    utf8[0] = (char)(0xF0 | point >> 18);
    utf8[1] = (char)(0x80 | (point >> 12 & 0x3F));
    utf8[2] = (char)(0x80 | (point >> 6 & 0x3F));
    utf8[3] = (char)(0x80 | (point & 0x3F));
    return 4;
}

/* Decodes a checked string's contents into out, at most `capacity` bytes, cut between characters: the bytes written. */
__attribute__((unused)) static size_t json_unescape(Span text, char* out, size_t capacity) {
    const char* p = text.p;
    const char* const end = text.p + text.n;
    size_t n = 0;
    while (p != end) {
        char utf8[4];
        const int size = json_next_character(&p, utf8);
        if (n + (size_t)size > capacity) break;
        memcpy(out + n, utf8, (size_t)size);
        n += (size_t)size;
    }
    while (p != end && n > 0 && ((unsigned char)*p & 0xC0) == 0x80) { /* the cut fell into raw UTF-8 */
        if (((unsigned char)out[--n] & 0xC0) == 0xC0) break;
    }
    return n;
}

/* Whether a checked string's contents, decoded, are `plain`. */
static inline int json_text_is(Span text, int escaped, const char* plain, size_t n) {
    if (!escaped) return text.n == n && memcmp(text.p, plain, n) == 0;
    const char* p = text.p;
    const char* const end = text.p + text.n;
    size_t at = 0;
    while (p != end) {
        char utf8[4];
        const size_t size = (size_t)json_next_character(&p, utf8);
        if (size > n - at || memcmp(plain + at, utf8, size) != 0) return 0;
        at += size;
    }
    return at == n;
}

/* Whether two checked strings' contents are the same text, however they are escaped. */
__attribute__((unused)) static int json_same_text(Span a, Span b) {
    const char* p = a.p;
    const char* q = b.p;
    const char* const p_end = a.p + a.n;
    const char* const q_end = b.p + b.n;
    char left[4], right[4];
    int left_n = 0, right_n = 0, left_at = 0, right_at = 0;
    for (;;) {
        if (left_at == left_n) left_at = left_n = 0;
        if (right_at == right_n) right_at = right_n = 0;
        if (left_n == 0 && p != p_end) left_n = json_next_character(&p, left);
        if (right_n == 0 && q != q_end) right_n = json_next_character(&q, right);
        if (left_n == 0 || right_n == 0) return left_n == right_n;
        if (left[left_at++] != right[right_at++]) return 0;
    }
}

/* The number at p by RFC 8259's grammar: the byte behind it, or NULL. */
static inline const char* json_number_end(const char* p, const char* end) {
#define DIGIT(q) ((q) != end && (unsigned char)(*(q) - '0') < 10)
    if (p != end && *p == '-') ++p;
    if (!DIGIT(p)) return NULL;
    if (*p == '0')
        ++p;
    else
        while (DIGIT(p)) ++p;
    if (DIGIT(p)) return NULL;
    if (p != end && *p == '.') {
        ++p;
        if (!DIGIT(p)) return NULL;
        while (DIGIT(p)) ++p;
    }
    if (p != end && (*p | 0x20) == 'e') {
        ++p;
        if (p != end && (*p == '+' || *p == '-')) ++p;
        if (!DIGIT(p)) return NULL;
        while (DIGIT(p)) ++p;
    }
    return p;
#undef DIGIT
}

static inline int json_word(JsonScan* s, const char* word, size_t n) {
    if ((size_t)(s->end - s->p) < n || memcmp(s->p, word, n) != 0) return 0;
    s->p += n;
    return 1;
}

/* A value that is no container, at p behind white space. */
static inline int json_scalar(JsonScan* s) {
    if (s->p == s->end) return json_want(s, s->p, "a value");
    Span text;
    int escaped;
    switch (*s->p) {
        case '"':
            return json_string(s, &text, &escaped);
        case 't':
            if (json_word(s, "true", 4)) return 0;
            break;
        case 'f':
            if (json_word(s, "false", 5)) return 0;
            break;
        case 'n':
            if (json_word(s, "null", 4)) return 0;
            break;
        case 'N':
            if (json_word(s, "NaN", 3)) return 0;
            break;
        case 'I':
            if (json_word(s, "Infinity", 8)) return 0;
            break;
        default: {
            const char* behind = json_number_end(s->p, s->end);
            if (behind != NULL) {
                s->p = behind;
                return 0;
            }
            if (json_word(s, "-Infinity", 9)) return 0;
        }
    }
    return json_want(s, s->p, "a value");
}

/* A key and its colon. */
static inline int json_key(JsonScan* s, Span* key, int* escaped) {
    if (json_peek(s) != '"') return json_want(s, s->p, "a key in quotes");
    if (json_string(s, key, escaped) < 0) return -1;
    if (json_peek(s) != ':') return json_want(s, s->p, "':'");
    ++s->p;
    json_space(s);
    return 0;
}

/* Enters a container at p: 1 at its first member, 0 when it is empty (already left), -1. */
static inline int json_enter(JsonScan* s, char open) {
    if (json_peek(s) != open) return json_want(s, s->p, open == '{' ? "an object" : "an array");
    if (s->depth == JSON_MAX_DEPTH) return json_want(s, s->p, "at most 100 levels of nesting");
    ++s->p;
    if (json_peek(s) == open + 2) { /* '[' + 2 is ']', '{' + 2 is '}' */
        ++s->p;
        return 0;
    }
    ++s->depth;
    return 1;
}

/* Behind a member: 1 at the next one, 0 behind the closing bracket, -1. */
static inline int json_more(JsonScan* s, char open) {
    const char c = json_peek(s);
    if (c == ',') {
        ++s->p;
        json_space(s);
        return 1;
    }
    if (c == open + 2) {
        ++s->p;
        --s->depth;
        return 0;
    }
    return json_want(s, s->p, open == '{' ? "',' or '}'" : "',' or ']'");
}

/* Skips one whole value, checking it. */
__attribute__((unused)) static int json_skip(JsonScan* s) {
    uint64_t is_object[2] = {0, 0};
    const int base = s->depth;
    Span key;
    int escaped;
    for (;;) {
        const char c = json_peek(s);
        if (c == '{' || c == '[') {
            const int level = s->depth;
            const int entered = json_enter(s, c);
            if (entered < 0) return -1;
            if (entered) {
                if (c == '{') {
                    is_object[level >> 6] |= (uint64_t)1 << (level & 63);
                    if (json_key(s, &key, &escaped) < 0) return -1;
                } else {
                    is_object[level >> 6] &= ~((uint64_t)1 << (level & 63));
                }
                continue;
            }
        } else if (json_scalar(s) < 0) {
            return -1;
        }
        for (;;) {
            if (s->depth == base) return 0;
            const int level = s->depth - 1;
            const char open = is_object[level >> 6] >> (level & 63) & 1 ? '{' : '[';
            const int more = json_more(s, open);
            if (more < 0) return -1;
            if (more) {
                if (open == '{' && json_key(s, &key, &escaped) < 0) return -1;
                break;
            }
        }
    }
}

/* The text of the array at p, found by its brackets alone: whoever reads the elements checks what lies between. */
static inline int json_array_extent(JsonScan* s, Span* text) {
    const char* p = s->p;
    const char* const end = s->end;
    const __m128i open = _mm_set1_epi8('['), close = _mm_set1_epi8(']'), quote = _mm_set1_epi8('"');
    int depth = s->depth;
    if (p == end || *p != '[') return json_want(s, p, "an array");
    text->p = p;
    for (;;) {
        while (end - p >= 32) {
            const __m128i a = _mm_loadu_si128((const __m128i*)p);
            const __m128i b = _mm_loadu_si128((const __m128i*)(p + 16));
            const __m128i in_a =
                _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(a, open), _mm_cmpeq_epi8(a, close)), _mm_cmpeq_epi8(a, quote));
            const __m128i in_b =
                _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(b, open), _mm_cmpeq_epi8(b, close)), _mm_cmpeq_epi8(b, quote));
            const unsigned mask = (unsigned)_mm_movemask_epi8(in_a) | (unsigned)_mm_movemask_epi8(in_b) << 16;
            if (mask) {
                p += __builtin_ctz(mask);
                break;
            }
            p += 32;
        }
        while (p != end && *p != '[' && *p != ']' && *p != '"') ++p;
        if (p == end) return json_want(s, p, "']'");
        if (*p == '[') {
            if (depth++ == JSON_MAX_DEPTH) return json_want(s, p, "at most 100 levels of nesting");
            ++p;
        } else if (*p == ']') {
            ++p;
            if (--depth == s->depth) {
                text->n = (size_t)(p - text->p);
                s->p = p;
                return 0;
            }
        } else {
            Span string;
            int escaped;
            s->p = p;
            if (json_string(s, &string, &escaped) < 0) return -1;
            p = s->p;
        }
    }
}

#endif
