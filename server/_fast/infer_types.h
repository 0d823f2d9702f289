/* Words that every reader and writer of tensors shares: datatypes, byte spans and the error a request is refused with.
 *
 * Knows nothing of JSON, HTTP or models. Nothing here owns memory: a Span borrows from whoever filled it, and an
 * InferError holds its text itself. Callable from any thread. The values of both enums are fixed: they are stored in
 * shared memory and mapped to HTTP and gRPC statuses by number.
 */
#ifndef HEADRACE_INFER_TYPES_H
#define HEADRACE_INFER_TYPES_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum Datatype {
    DTYPE_INVALID = 0,
    DTYPE_BOOL = 1,
    DTYPE_UINT8 = 2,
    DTYPE_UINT16 = 3,
    DTYPE_UINT32 = 4,
    DTYPE_UINT64 = 5,
    DTYPE_INT8 = 6,
    DTYPE_INT16 = 7,
    DTYPE_INT32 = 8,
    DTYPE_INT64 = 9,
    DTYPE_FP16 = 10,
    DTYPE_FP32 = 11,
    DTYPE_FP64 = 12,
    DTYPE_BYTES = 13,
    DTYPE_BF16 = 14,
    DTYPE_COUNT = 15
};

enum InferErrorCode {
    INFER_OK = 0,
    INFER_INVALID_ARGUMENT = 1,
    INFER_NOT_FOUND = 2,
    INFER_UNAVAILABLE = 3,
    INFER_UNIMPLEMENTED = 4,
    INFER_INTERNAL = 5,
    INFER_RESOURCE_EXHAUSTED = 6,
    INFER_DEADLINE = 7,
    INFER_ALREADY_EXISTS = 8,
    INFER_NO_MEMORY = 9
};

enum { INFER_MAX_RANK = 8, INFER_ERROR_BYTES = 512 };

/* Where the elements of an input that came as protobuf values are, see wire_elements.h; then one BYTES element, and the
 * binary form in a client's shared memory. */
enum WireSource {
    WIRE_SOURCE_NONE = 0,
    WIRE_SOURCE_CONTENTS = 1,
    WIRE_SOURCE_TENSOR_PROTO = 2,
    WIRE_SOURCE_ELEMENT = 3,
    WIRE_SOURCE_SHARED = 4
};

/* Bytes that somebody else owns; never NUL-terminated. */
typedef struct Span {
    const char* p;
    size_t n;
} Span;

typedef struct InferError {
    int code;
    int retry_after_s; /* of INFER_UNAVAILABLE; 0: not said */
    size_t n;
    char text[INFER_ERROR_BYTES];
} InferError;

/* How far the text of a JSON array has been read; here, and not beside its C++ readers, so that users may be C. */
typedef struct FillCursor {
    const char* p;
    const char* end;
    int64_t element_count; /* read so far */
    int dtype;
    int depth;       /* open brackets; 0 before the first and after the last */
    int after_value; /* the next token is `,` or `]` */
    int may_close;   /* `]` may stand where a value may: right behind `[` */
} FillCursor;

typedef struct DatatypeRow {
    const char* name;
    uint8_t name_bytes;
    uint8_t width_bytes; /* 0: no fixed width */
} DatatypeRow;

static const DatatypeRow DATATYPE_ROWS[DTYPE_COUNT] = {
    {"<invalid>", 9, 0}, {"BOOL", 4, 1}, {"UINT8", 5, 1}, {"UINT16", 6, 2}, {"UINT32", 6, 4},
    {"UINT64", 6, 8},    {"INT8", 4, 1}, {"INT16", 5, 2}, {"INT32", 5, 4},  {"INT64", 5, 8},
    {"FP16", 4, 2},      {"FP32", 4, 4}, {"FP64", 4, 8},  {"BYTES", 5, 0},  {"BF16", 4, 2}};

static inline int dtype_is_valid(int dtype) { return dtype > DTYPE_INVALID && dtype < DTYPE_COUNT; }

static inline size_t dtype_width_bytes(int dtype) {
    return dtype_is_valid(dtype) ? DATATYPE_ROWS[dtype].width_bytes : 0;
}

static inline const char* dtype_name(int dtype) { return DATATYPE_ROWS[dtype_is_valid(dtype) ? dtype : 0].name; }

static inline int dtype_from_name(const char* p, size_t n) {
    for (int dtype = 1; dtype < DTYPE_COUNT; ++dtype) {
        const DatatypeRow* row = &DATATYPE_ROWS[dtype];
        if (row->name_bytes == n && memcmp(row->name, p, n) == 0) return dtype;
    }
    return DTYPE_INVALID;
}

/* Fills `err` and returns -1. A text that does not fit is cut before a broken UTF-8 sequence. */
__attribute__((format(printf, 3, 4), cold, noinline, unused)) static int infer_fail(InferError* err, int code,
                                                                                    const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int written = vsnprintf(err->text, sizeof err->text, format, arguments);
    va_end(arguments);
    size_t n = written < 0 ? 0 : (size_t)written;
    if (n >= sizeof err->text) {
        n = sizeof err->text - 1;
        size_t lead = n;
        while (lead > 0 && n - lead < 3 && ((unsigned char)err->text[lead - 1] & 0xC0) == 0x80) --lead;
        if (lead > 0 && (unsigned char)err->text[lead - 1] >= 0xC0) {
            unsigned char first = (unsigned char)err->text[lead - 1];
            size_t want = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
            if (n - (lead - 1) < want) n = lead - 1;
        }
        err->text[n] = '\0';
    }
    err->code = code;
    err->retry_after_s = 0;
    err->n = n;
    return -1;
}

/* Puts "input 'NAME': " before the text of `err`: for whoever knows which tensor a number belonged to. */
__attribute__((cold, noinline, unused)) static void infer_error_name_input(InferError* err, Span name) {
    char before[INFER_ERROR_BYTES];
    int code = err->code;
    memcpy(before, err->text, sizeof before);
    infer_fail(err, code, "input '%.*s': %s", (int)(name.n < 128 ? name.n : 128), name.p, before);
}

#endif
