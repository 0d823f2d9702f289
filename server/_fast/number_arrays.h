/* Arrays of numbers: JSON array text to packed little-endian elements, and back.
 *
 * The reader is a cursor: it may stop after any element and go on into another destination, so a request that is split
 * over slabs is read once. Nesting does not matter, as in Triton: [[1,2],[3]] and [1,2,3] are the same elements. The
 * whole text is checked: brackets, commas, at most MAX_DEPTH levels, nothing behind the last bracket.
 * Borrows the text and the destination, allocates nothing, recurses nowhere; one thread per cursor. O(text bytes).
 */
#ifndef HEADRACE_NUMBER_ARRAYS_H
#define HEADRACE_NUMBER_ARRAYS_H

#include "numbers.h"

enum { NUMBER_ARRAY_MAX_DEPTH = 100, NUMBER_TEXT_MAX_BYTES = 36 };

namespace number_arrays {

static inline bool is_space(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

/* Up to 40 printable bytes of the token at p, for an error text. */
static inline int excerpt(const char* p, const char* end, char* out) {
    int n = 0;
    while (p + n != end && n < 40 && !is_space(p[n]) && p[n] != ',' && p[n] != ']') {
        const unsigned char c = static_cast<unsigned char>(p[n]);
        out[n++] = c >= 0x20 && c < 0x7F ? static_cast<char>(c) : '?';
    }
    return n;
}

__attribute__((cold, noinline, unused)) static int fail_syntax(const FillCursor* c, const char* p, const char* expected,
                                                               InferError* err) {
    if (p == c->end)
        return infer_fail(err, INFER_INVALID_ARGUMENT,
                          "Unable to parse 'data': expected %s after %lld elements, got the end", expected,
                          static_cast<long long>(c->element_count));
    char token[40];
    int n = excerpt(p, c->end, token);
    if (n == 0) token[n++] = *p;
    return infer_fail(err, INFER_INVALID_ARGUMENT,
                      "Unable to parse 'data': expected %s after %lld elements, got '%.*s'", expected,
                      static_cast<long long>(c->element_count), n, token);
}

static const char* const RANGES[DTYPE_COUNT] = {"",
                                                "true, false, 0 or 1",
                                                "0 to 255",
                                                "0 to 65535",
                                                "0 to 4294967295",
                                                "0 to 18446744073709551615",
                                                "-128 to 127",
                                                "-32768 to 32767",
                                                "-2147483648 to 2147483647",
                                                "-9223372036854775808 to 9223372036854775807",
                                                "-65504 to 65504",
                                                "-3.4028235e+38 to 3.4028235e+38",
                                                "-1.7976931348623157e+308 to 1.7976931348623157e+308",
                                                "",
                                                "-3.3895314e+38 to 3.3895314e+38"};

__attribute__((cold, noinline, unused)) static int fail_number(const FillCursor* c, const char* p,
                                                               numbers::Problem problem, InferError* err) {
    char token[40];
    const int n = excerpt(p, c->end, token);
    const long long element = c->element_count;
    const char* name = dtype_name(c->dtype);
    if (problem == numbers::OUT_OF_RANGE)
        return infer_fail(err, INFER_INVALID_ARGUMENT,
                          "Unable to parse 'data': element %lld: %.*s does not fit %s, expected "
                          "%s", element, n, token, name,
                          RANGES[c->dtype]);
    if (problem == numbers::NOT_AN_INTEGER)
        return infer_fail(err, INFER_INVALID_ARGUMENT,
                          "Unable to parse 'data': element %lld: %.*s is a floating-point number, but %s takes "
                          "integers, "
                          "expected %s",
                          element, n, token, name, RANGES[c->dtype]);
    return infer_fail(err, INFER_INVALID_ARGUMENT,
                      "Unable to parse 'data': element %lld: expected a number for %s, got '%.*s'", element, name, n,
                      token);
}

enum Step : int { AT_VALUE = 1, AT_END = 0, FAILED = -1 };

/* Moves over commas, brackets and white space to the next value or behind the last bracket. */
__attribute__((noinline, unused)) static Step to_value(FillCursor* c, InferError* err) {
    const char* p = c->p;
    for (;;) {
        while (p != c->end && is_space(*p)) ++p;
        c->p = p;
        if (p == c->end) {
            if (c->depth == 0 && c->after_value) return AT_END;
            fail_syntax(c, p, c->after_value ? "',' or ']'" : c->depth ? "a value" : "'['", err);
            return FAILED;
        }
        const char ch = *p;
        if (c->depth == 0 && (c->after_value || ch != '[')) {
            fail_syntax(c, p, c->after_value ? "the end of the array" : "'['", err);
            return FAILED;
        }
        if (c->after_value) {
            if (ch == ',') {
                c->after_value = 0;
                c->may_close = 0;
            } else if (ch == ']') {
                --c->depth;
            } else {
                fail_syntax(c, p, "',' or ']'", err);
                return FAILED;
            }
        } else if (ch == '[') {
            if (c->depth == NUMBER_ARRAY_MAX_DEPTH) {
                infer_fail(err, INFER_INVALID_ARGUMENT,
                           "Unable to parse 'data': JSON nesting depth exceeds maximum allowed limit (%d)",
                           static_cast<int>(NUMBER_ARRAY_MAX_DEPTH));
                return FAILED;
            }
            ++c->depth;
            c->may_close = 1;
        } else if (ch == ']' && c->may_close) {
            --c->depth;
            c->after_value = 1;
        } else if (ch == ']' || ch == ',') {
            fail_syntax(c, p, "a value", err);
            return FAILED;
        } else {
            return AT_VALUE;
        }
        ++p;
    }
}

template <int DTYPE>
static int fill_next(FillCursor* c, int64_t count, char* dst, InferError* err) {
    using Element = numbers::Element<DTYPE>;
    typename Element::Bits bits;
    const char* const end = c->end;
    const char* p = c->p;
    for (; count > 0; --count) {
        /* What almost every separator is: one comma, at most one space. */
        if (c->after_value && p != end && *p == ',') {
            ++p;
            if (p != end && *p == ' ') ++p;
            c->after_value = 0;
            c->may_close = 0;
        }
        if (__builtin_expect(c->after_value || c->depth == 0 || p == end || (!numbers::is_digit(*p) && *p != '-'), 0)) {
            c->p = p;
            const Step step = to_value(c, err);
            if (step == FAILED) return -1;
            if (step == AT_END)
                return infer_fail(err, INFER_INVALID_ARGUMENT,
                                  "Unable to parse 'data': Shape does not match true shape of 'data' field: the "
                                  "shape asks "
                                  "for at least %lld elements, got %lld",
                                  static_cast<long long>(c->element_count + count),
                                  static_cast<long long>(c->element_count));
            p = c->p;
        }
        numbers::Problem problem = numbers::NONE;
        const char* behind = Element::read(p, end, &bits, &problem);
        if (__builtin_expect(behind == nullptr, 0)) {
            c->p = p;
            return fail_number(c, p, problem, err);
        }
        std::memcpy(dst, &bits, sizeof bits);
        dst += sizeof bits;
        p = behind;
        c->after_value = 1;
        ++c->element_count;
    }
    c->p = p;
    return 0;
}

template <int DTYPE>
static char* write_elements(char* dst, const char* src, size_t count) {
    using Element = numbers::Element<DTYPE>;
    typename Element::Bits bits;
    for (; count; --count, src += sizeof bits) {
        std::memcpy(&bits, src, sizeof bits);
        dst = Element::write(dst, bits);
        *dst++ = ',';
    }
    return dst;
}

static inline char* write_decimal(char* dst, int64_t value) { return std::to_chars(dst, dst + 20, value).ptr; }

using Fill = int (*)(FillCursor*, int64_t, char*, InferError*);
using Write = char* (*)(char*, const char*, size_t);

static const Fill FILLS[DTYPE_COUNT] = {
    nullptr,
    fill_next<DTYPE_BOOL>,
    fill_next<DTYPE_UINT8>,
    fill_next<DTYPE_UINT16>,
    fill_next<DTYPE_UINT32>,
    fill_next<DTYPE_UINT64>,
    fill_next<DTYPE_INT8>,
    fill_next<DTYPE_INT16>,
    fill_next<DTYPE_INT32>,
    fill_next<DTYPE_INT64>,
    fill_next<DTYPE_FP16>,
    fill_next<DTYPE_FP32>,
    fill_next<DTYPE_FP64>,
    nullptr,
    fill_next<DTYPE_BF16>,
};

static const Write WRITES[DTYPE_COUNT] = {
    nullptr,
    write_elements<DTYPE_BOOL>,
    write_elements<DTYPE_UINT8>,
    write_elements<DTYPE_UINT16>,
    write_elements<DTYPE_UINT32>,
    write_elements<DTYPE_UINT64>,
    write_elements<DTYPE_INT8>,
    write_elements<DTYPE_INT16>,
    write_elements<DTYPE_INT32>,
    write_elements<DTYPE_INT64>,
    write_elements<DTYPE_FP16>,
    write_elements<DTYPE_FP32>,
    write_elements<DTYPE_FP64>,
    nullptr,
    write_elements<DTYPE_BF16>,
};

}  // namespace number_arrays

static inline void number_array_begin(FillCursor* c, const char* p, size_t n, int dtype) {
    c->p = p;
    c->end = p + n;
    c->element_count = 0;
    c->dtype = dtype;
    c->depth = 0;
    c->after_value = 0;
    c->may_close = 0;
}

/* Reads the next `count` elements to dst: 0, or -1 and a text. */
static inline int number_array_next(FillCursor* c, int64_t count, char* dst, InferError* err) {
    const number_arrays::Fill fill = dtype_is_valid(c->dtype) ? number_arrays::FILLS[c->dtype] : nullptr;
    if (fill == nullptr)
        return infer_fail(err, INFER_UNIMPLEMENTED, "%s tensors are not supported", dtype_name(c->dtype));
    return fill(c, count, dst, err);
}

/* Checks that nothing is left but closing brackets: 0, or -1 and a text. */
static inline int number_array_end(FillCursor* c, InferError* err) {
    const number_arrays::Step step = number_arrays::to_value(c, err);
    if (step == number_arrays::AT_END) return 0;
    if (step == number_arrays::AT_VALUE)
        return infer_fail(err, INFER_INVALID_ARGUMENT,
                          "Unable to parse 'data': Shape does not match true shape of 'data' field: 'data' has "
                          "more than "
                          "the %lld elements of the shape",
                          static_cast<long long>(c->element_count));
    return -1;
}

/* Writes `count` elements, each followed by a comma: the byte behind. NUMBER_TEXT_MAX_BYTES per element must fit. */
static inline char* number_array_write(char* dst, const char* src, size_t count, int dtype) {
    return number_arrays::WRITES[dtype](dst, src, count);
}

#endif
