/* The extent and the shape of a nested JSON array, in one pass over its brackets and commas.
 *
 * Knows nothing of the elements: whoever reads them checks what stands between the separators. For text that is valid
 * JSON the answer is exact; for other text it is some answer, within bounds, and reading the elements refuses the text.
 * Borrows the text, reads no byte outside [p, end), allocates nothing, does not recurse. Any thread, O(bytes).
 */
#ifndef HEADRACE_JSON_SHAPE_H
#define HEADRACE_JSON_SHAPE_H

#include "json_scan.h"

typedef struct JsonShape {
    Span text;
    int rank;
    int is_regular; /* every list of a level has one length, all scalars are on the deepest level, no objects */
    int has_object;
    int64_t dims[JSON_MAX_DEPTH];
} JsonShape;

/* From p to the next bracket, quote or opening brace, or the end; *commas grows by those passed. */
static inline const char* json_next_special(const char* p, const char* end, int64_t* commas) {
    const __m128i open = _mm_set1_epi8('['), close = _mm_set1_epi8(']'), quote = _mm_set1_epi8('"');
    const __m128i brace = _mm_set1_epi8('{'), comma = _mm_set1_epi8(',');
    int64_t passed = 0;
    while (end - p >= 16) {
        const __m128i block = _mm_loadu_si128((const __m128i*)p);
        const __m128i brackets = _mm_or_si128(_mm_cmpeq_epi8(block, open), _mm_cmpeq_epi8(block, close));
        const __m128i others = _mm_or_si128(_mm_cmpeq_epi8(block, quote), _mm_cmpeq_epi8(block, brace));
        const unsigned special = (unsigned)_mm_movemask_epi8(_mm_or_si128(brackets, others));
        const unsigned separators = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(block, comma));
        if (special) {
            *commas += passed + __builtin_popcount(separators & (special ^ (special - 1)));
            return p + __builtin_ctz(special);
        }
        passed += __builtin_popcount(separators);
        p += 16;
    }
    for (; p != end && *p != '[' && *p != ']' && *p != '"' && *p != '{'; ++p) passed += *p == ',';
    *commas += passed;
    return p;
}

/* The array at p, whose '[' is there: 0 behind it, or -1. */
__attribute__((unused)) static int json_array_shape(JsonScan* s, JsonShape* out) {
    int64_t commas[JSON_MAX_DEPTH], lists[JSON_MAX_DEPTH];
    const char* const end = s->end;
    const char* p = s->p;
    const char* opened = p;
    const int most = JSON_MAX_DEPTH - s->depth;
    int depth = 0;
    if (p == end || *p != '[') return json_want(s, p, "an array");
    out->text.p = p;
    out->rank = 0;
    out->is_regular = 1;
    out->has_object = 0;
    for (;;) {
        if (depth) {
            int64_t* const here = &commas[depth - 1];
            const int64_t before = *here;
            p = json_next_special(p, end, here);
            /* The first element of everything so far is the first scalar. */
            if (out->rank == 0 && *here != before) out->rank = depth;
        }
        if (p == end) return json_want(s, p, "']'");
        if (*p == '[') {
            if (depth == most) return json_want(s, p, "at most 100 levels of nesting");
            if (out->rank && depth >= out->rank) out->is_regular = 0;
            if (depth) ++lists[depth - 1];
            commas[depth] = lists[depth] = 0;
            if (out->rank == 0) out->dims[depth] = -1;
            ++depth;
            opened = ++p;
        } else if (*p == ']') {
            const int64_t inner = lists[depth - 1];
            int64_t size = commas[depth - 1] + 1;
            if (out->rank == 0) out->rank = depth;
            if (size == 1 && inner == 0 && opened != NULL) {
                while (opened != p && (*opened == ' ' || *opened == '\n' || *opened == '\r' || *opened == '\t')) ++opened;
                if (opened == p) size = 0;
            }
            if (depth > out->rank || (depth < out->rank ? inner != size : inner != 0))
                out->is_regular = 0;
            else if (out->dims[depth - 1] < 0)
                out->dims[depth - 1] = size;
            else if (out->dims[depth - 1] != size)
                out->is_regular = 0;
            ++p;
            if (--depth == 0) {
                out->text.n = (size_t)(p - out->text.p);
                s->p = p;
                return 0;
            }
            opened = NULL; /* only a list that has just begun can be empty */
        } else if (*p == '"') {
            Span string;
            int escaped;
            s->p = p;
            if (json_string(s, &string, &escaped) < 0) return -1;
            p = s->p;
            opened = NULL;
        } else {
            out->has_object = 1;
            out->is_regular = 0;
            ++p;
        }
    }
}

#endif
