/* Protobuf's wire format: the fields of one message in contiguous memory, and the elements of packed fields.
 *
 * Knows no message type: callers compare number and wire type and leave alone what they do not know, which is how
 * unknown fields, and known ones with another wire type, are skipped. Accepts what the protobuf library accepts:
 * tags and lengths of at most five bytes, varints of at most ten (bits beyond 64 are dropped), groups only as something
 * to skip, PROTO_MAX_DEPTH messages and groups inside each other, the outermost counted. Borrows everything, allocates nothing, no recursion,
 * any thread; O(bytes). Functions return >= 0, or PROTO_MALFORMED.
 */
#ifndef HEADRACE_PROTO_SCAN_H
#define HEADRACE_PROTO_SCAN_H

#include "infer_types.h"
#include "utf8.h"

enum { PROTO_MALFORMED = -1, PROTO_MAX_DEPTH = 101, PROTO_VARINT_MAX_BYTES = 10 };

enum ProtoWire { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_GROUP = 3, WIRE_END = 4, WIRE_FIXED32 = 5 };

typedef struct ProtoScan {
    const char* p;
    const char* end;
    int depth;   /* of this message; the outermost is 1 */
    int skipped; /* groups */
} ProtoScan;

typedef struct ProtoField {
    uint32_t number;
    int wire;
    uint64_t value; /* of WIRE_VARINT, WIRE_FIXED32, WIRE_FIXED64 */
    Span bytes;     /* of WIRE_BYTES: its contents; else the encoded value */
} ProtoField;

static inline void proto_start(ProtoScan* s, const char* p, size_t n, int depth) {
    s->p = p;
    s->end = p + n;
    s->depth = depth;
    s->skipped = 0;
}

/* Reads a varint of at most max_bytes at *p. */
static inline int proto_varint(const char** p, const char* end, int max_bytes, uint64_t* value) {
    const char* q = *p;
    uint64_t bits = 0;
    for (int i = 0; i < max_bytes && q != end; ++i) {
        const uint64_t byte = (unsigned char)*q++;
        bits |= (byte & 0x7F) << (7 * i);
        if (byte < 0x80) {
            *value = bits;
            *p = q;
            return 0;
        }
    }
    return PROTO_MALFORMED;
}

static inline int proto_tag(const char** p, const char* end, uint32_t* number, int* wire) {
    uint64_t tag;
    if (proto_varint(p, end, 5, &tag) < 0 || tag > UINT32_MAX) return PROTO_MALFORMED;
    *number = (uint32_t)(tag >> 3);
    *wire = (int)(tag & 7);
    return 0;
}

/* Reads the value behind a tag that is not a group's. */
static inline int proto_value(const char** p, const char* end, ProtoField* f) {
    uint64_t n;
    f->bytes.p = *p;
    switch (f->wire) {
        case WIRE_VARINT:
            if (proto_varint(p, end, PROTO_VARINT_MAX_BYTES, &f->value) < 0) return PROTO_MALFORMED;
            break;
        case WIRE_FIXED64:
            if (end - *p < 8) return PROTO_MALFORMED;
            memcpy(&f->value, *p, 8);
            *p += 8;
            break;
        case WIRE_FIXED32:
            if (end - *p < 4) return PROTO_MALFORMED;
            f->value = 0;
            memcpy(&f->value, *p, 4);
            *p += 4;
            break;
        case WIRE_BYTES:
            if (proto_varint(p, end, 5, &n) < 0 || n > INT32_MAX || n > (uint64_t)(end - *p)) return PROTO_MALFORMED;
            f->bytes.p = *p;
            *p += n;
            break;
        default:
            return PROTO_MALFORMED;
    }
    f->bytes.n = (size_t)(*p - f->bytes.p);
    return 0;
}

/* Moves behind the end of a group whose start tag has been read. Field numbers inside are of no interest. */
__attribute__((cold, noinline, unused)) static int proto_skip_group(ProtoScan* s, uint32_t number) {
    uint32_t open[PROTO_MAX_DEPTH];
    int count = 0;
    ProtoField inner;
    if (s->depth >= PROTO_MAX_DEPTH) return PROTO_MALFORMED;
    open[count++] = number;
    ++s->skipped;
    while (count) {
        if (proto_tag(&s->p, s->end, &inner.number, &inner.wire) < 0) return PROTO_MALFORMED;
        if (inner.wire == WIRE_GROUP) {
            if (s->depth + count >= PROTO_MAX_DEPTH) return PROTO_MALFORMED;
            open[count++] = inner.number;
        } else if (inner.wire == WIRE_END) {
            if (open[--count] != inner.number) return PROTO_MALFORMED;
        } else if (proto_value(&s->p, s->end, &inner) < 0) {
            return PROTO_MALFORMED;
        }
    }
    return 0;
}

/* The next field: 1, 0 at the end of the message. Groups are passed over. */
static inline int proto_next(ProtoScan* s, ProtoField* f) {
    while (s->p != s->end) {
        if (proto_tag(&s->p, s->end, &f->number, &f->wire) < 0 || f->number == 0) return PROTO_MALFORMED;
        if (f->wire != WIRE_GROUP) return proto_value(&s->p, s->end, f) < 0 ? PROTO_MALFORMED : 1;
        if (proto_skip_group(s, f->number) < 0) return PROTO_MALFORMED;
    }
    return 0;
}

/* A string field's contents: 1 when `f` is one, 0 when its wire type is another; MALFORMED when it is not UTF-8. */
static inline int proto_text(const ProtoField* f, Span* out) {
    if (f->wire != WIRE_BYTES) return 0;
    if (!utf8_is_valid(f->bytes.p, f->bytes.n)) return PROTO_MALFORMED;
    *out = f->bytes;
    return 1;
}

static inline int proto_text_is(Span text, const char* plain, size_t n) {
    return text.n == n && memcmp(text.p, plain, n) == 0;
}

/* ---- repeated numbers: packed or one by one; `wire` is that of one element */

static inline int64_t proto_count_varints(Span run) {
    const char* p = run.p;
    const char* const end = run.p + run.n;
    int64_t count = 0;
    uint64_t ignored;
    while (p != end) {
        uint64_t eight;
        if (end - p >= 8) {
            memcpy(&eight, p, 8);
            if ((eight & 0x8080808080808080u) == 0) {
                p += 8;
                count += 8;
                continue;
            }
        }
        if (proto_varint(&p, end, PROTO_VARINT_MAX_BYTES, &ignored) < 0) return PROTO_MALFORMED;
        ++count;
    }
    return count;
}

/* The elements that `f` adds to a repeated number whose elements are of wire type `wire`; 0 when it is no such field. */
static inline int64_t proto_count_elements(const ProtoField* f, int wire) {
    if (f->wire == wire) return 1;
    if (f->wire != WIRE_BYTES) return 0;
    if (wire == WIRE_VARINT) return proto_count_varints(f->bytes);
    const size_t width = wire == WIRE_FIXED32 ? 4 : 8;
    return f->bytes.n % width ? PROTO_MALFORMED : (int64_t)(f->bytes.n / width);
}

/* ---- writing: nothing is checked, the caller reserved room by the sizes */

static inline size_t proto_varint_bytes(uint64_t value) { return (size_t)(70 - __builtin_clzll(value | 1)) / 7; }

/* Tag, length and contents of a field with a number below 16. */
static inline size_t proto_bytes_field_bytes(size_t n) { return 1 + proto_varint_bytes(n) + n; }

static inline char* proto_put_varint(char* dst, uint64_t value) {
    while (value >= 0x80) {
        *dst++ = (char)(value | 0x80);
        value >>= 7;
    }
    *dst++ = (char)value;
    return dst;
}

/* Tag and length of a field with a number below 16. */
static inline char* proto_put_head(char* dst, int number, size_t n) {
    *dst++ = (char)(number << 3 | WIRE_BYTES);
    return proto_put_varint(dst, n);
}

static inline char* proto_put_bytes(char* dst, int number, const char* p, size_t n) {
    dst = proto_put_head(dst, number, n);
    if (n) memcpy(dst, p, n);
    return dst + n;
}

#endif
