/* Elements of a tensor from protobuf's repeated numbers, and back: which field holds a datatype, how it is encoded there.
 *
 * Two sources: the typed contents of a KServe V2 tensor (InferTensorContents) and the *_val fields of TensorFlow's
 * TensorProto. Knows nothing of shapes. Borrows everything, any thread; O(elements).
 */
#ifndef HEADRACE_WIRE_ELEMENTS_H
#define HEADRACE_WIRE_ELEMENTS_H

#include "proto_scan.h"

enum { WIRE_CONTENTS_FIELDS = 9, WIRE_TENSOR_PROTO_FIELDS = 18 };

/* Where the message with the elements stands: in an InferInputTensor, in a map entry; BYTES elements in either. */
enum { WIRE_CONTENTS_FIELD = 5, WIRE_TENSOR_PROTO_FIELD = 2, WIRE_BYTES_FIELD = 8 };

typedef struct WireField {
    uint8_t number; /* 0: the datatype cannot be sent this way */
    uint8_t wire;   /* of one element */
} WireField;

/* By datatype. */
static const WireField WIRE_FIELDS[3][DTYPE_COUNT] = {
    {{0, 0}},
    {{0, 0},
     {1, WIRE_VARINT}, /* BOOL */
     {4, WIRE_VARINT},
     {4, WIRE_VARINT},
     {4, WIRE_VARINT},
     {5, WIRE_VARINT}, /* UINT64 */
     {2, WIRE_VARINT},
     {2, WIRE_VARINT},
     {2, WIRE_VARINT},
     {3, WIRE_VARINT},  /* INT64 */
     {0, 0},            /* FP16: raw only */
     {6, WIRE_FIXED32}, /* FP32 */
     {7, WIRE_FIXED64}, /* FP64 */
     {8, WIRE_BYTES},   /* BYTES */
     {0, 0}},           /* BF16: raw only */
    {{0, 0},
     {11, WIRE_VARINT}, /* bool_val */
     {7, WIRE_VARINT},  /* int_val */
     {7, WIRE_VARINT},
     {16, WIRE_VARINT}, /* uint32_val */
     {17, WIRE_VARINT}, /* uint64_val */
     {7, WIRE_VARINT},  /* int_val */
     {7, WIRE_VARINT},
     {7, WIRE_VARINT},
     {10, WIRE_VARINT}, /* int64_val */
     {13, WIRE_VARINT}, /* half_val */
     {5, WIRE_FIXED32}, /* float_val */
     {6, WIRE_FIXED64}, /* double_val */
     {8, WIRE_BYTES},   /* string_val */
     {13, WIRE_VARINT}} /* half_val */
};

static inline WireField wire_field(int source, int dtype) {
    return WIRE_FIELDS[source][dtype_is_valid(dtype) ? dtype : DTYPE_INVALID];
}

/* The datatype after which Triton names a field of InferTensorContents. */
static inline const char* wire_contents_name(int number) {
    static const char* const NAMES[WIRE_CONTENTS_FIELDS] = {"<invalid>", "BOOL",   "INT32", "INT64", "UINT32",
                                                            "UINT64",    "FP32", "FP64",  "BYTES"};
    return NAMES[number];
}

/* The wire type of one element of the repeated number in field `number` of a source; -1: another kind of field. */
static inline int wire_of_number(int source, uint32_t number) {
    static const int8_t CONTENTS[WIRE_CONTENTS_FIELDS] = {
        -1, WIRE_VARINT, WIRE_VARINT, WIRE_VARINT, WIRE_VARINT, WIRE_VARINT, WIRE_FIXED32, WIRE_FIXED64, -1};
    static const int8_t TENSOR_PROTO[WIRE_TENSOR_PROTO_FIELDS] = {
        -1,           -1,          -1,          -1,           -1,          WIRE_FIXED32, WIRE_FIXED64, WIRE_VARINT, -1,
        WIRE_FIXED32, WIRE_VARINT, WIRE_VARINT, WIRE_FIXED64, WIRE_VARINT, -1,           -1,           WIRE_VARINT,
        WIRE_VARINT};
    if (source == WIRE_SOURCE_CONTENTS) return number < WIRE_CONTENTS_FIELDS ? CONTENTS[number] : -1;
    return number < WIRE_TENSOR_PROTO_FIELDS ? TENSOR_PROTO[number] : -1;
}

/* Reads up to `count` varints at *p as elements of TYPE; stops before one for which BAD. `bits` is the varint. */
#define WIRE_VARINTS(TYPE, BAD)                                           \
    for (; done < count && q != end; ++done) {                            \
        const char* const at = q;                                         \
        uint64_t bits;                                                    \
        if ((signed char)*q >= 0)                                         \
            bits = (unsigned char)*q++;                                   \
        else if (proto_varint(&q, end, PROTO_VARINT_MAX_BYTES, &bits) < 0) \
            return PROTO_MALFORMED;                                       \
        if (BAD) {                                                        \
            q = at;                                                       \
            break;                                                        \
        }                                                                 \
        const TYPE element = (TYPE)bits;                                  \
        memcpy(dst + (size_t)done * sizeof element, &element, sizeof element); \
    }                                                                     \
    break

/* Copies up to `count` elements of a run at *p, as far as the run goes: how many. When that is fewer, and the run is not
 * at its end, *p is at a number that does not fit the datatype. */
static inline int64_t wire_copy_elements(const char** p, const char* end, int dtype, int64_t count, char* dst) {
    const char* q = *p;
    int64_t done = 0;
    switch (dtype) {
        case DTYPE_FP32:
        case DTYPE_FP64: {
            const size_t width = dtype_width_bytes(dtype);
            done = (end - q) / (int64_t)width;
            if (done > count) done = count;
            if (done) memcpy(dst, q, (size_t)done * width);
            q += (size_t)done * width;
            break;
        }
        case DTYPE_BOOL:
            for (; done < count && q != end; ++done) {
                uint64_t bits;
                if (proto_varint(&q, end, PROTO_VARINT_MAX_BYTES, &bits) < 0) return PROTO_MALFORMED;
                dst[done] = bits != 0;
            }
            break;
        case DTYPE_INT8:
            WIRE_VARINTS(int8_t, (int32_t)bits < INT8_MIN || (int32_t)bits > INT8_MAX);
        case DTYPE_INT16:
            WIRE_VARINTS(int16_t, (int32_t)bits < INT16_MIN || (int32_t)bits > INT16_MAX);
        case DTYPE_INT32:
            WIRE_VARINTS(int32_t, 0);
        case DTYPE_INT64:
            WIRE_VARINTS(int64_t, 0);
        case DTYPE_UINT8:
            WIRE_VARINTS(uint8_t, (uint32_t)bits > UINT8_MAX);
        case DTYPE_UINT16:
        case DTYPE_FP16:
        case DTYPE_BF16:
            WIRE_VARINTS(uint16_t, (uint32_t)bits > UINT16_MAX);
        case DTYPE_UINT32:
            WIRE_VARINTS(uint32_t, 0);
        case DTYPE_UINT64:
            WIRE_VARINTS(uint64_t, 0);
        default:
            return PROTO_MALFORMED;
    }
    *p = q;
    return done;
}

/* ---- writing packed elements of the *_val fields; BOOL, FP32 and FP64 are their own encoding */

static inline int wire_is_plain(int dtype) { return dtype == DTYPE_BOOL || dtype == DTYPE_FP32 || dtype == DTYPE_FP64; }

/* Element `i` as the varint that its *_val field takes: negative int32s are sign-extended to 64 bits. */
static inline uint64_t wire_varint_of(const char* src, size_t i, int dtype) {
    union {
        int8_t i8;
        int16_t i16;
        int32_t i32;
        uint8_t u8;
        uint16_t u16;
        uint32_t u32;
        uint64_t u64;
    } v;
    memcpy(&v, src + i * dtype_width_bytes(dtype), dtype_width_bytes(dtype));
    switch (dtype) {
        case DTYPE_INT8:
            return (uint64_t)(int64_t)v.i8;
        case DTYPE_INT16:
            return (uint64_t)(int64_t)v.i16;
        case DTYPE_INT32:
            return (uint64_t)(int64_t)v.i32;
        case DTYPE_UINT8:
            return v.u8;
        case DTYPE_UINT16:
        case DTYPE_FP16:
        case DTYPE_BF16:
            return v.u16;
        case DTYPE_UINT32:
            return v.u32;
        default:
            return v.u64;
    }
}

static inline size_t wire_packed_bytes(const char* src, size_t count, int dtype) {
    size_t n = 0;
    if (wire_is_plain(dtype)) return count * dtype_width_bytes(dtype);
    for (size_t i = 0; i < count; ++i) n += proto_varint_bytes(wire_varint_of(src, i, dtype));
    return n;
}

static inline char* wire_put_packed(char* dst, const char* src, size_t count, int dtype) {
    if (wire_is_plain(dtype)) {
        const size_t n = count * dtype_width_bytes(dtype);
        if (n) memcpy(dst, src, n);
        return dst + n;
    }
    for (size_t i = 0; i < count; ++i) dst = proto_put_varint(dst, wire_varint_of(src, i, dtype));
    return dst;
}

#endif
