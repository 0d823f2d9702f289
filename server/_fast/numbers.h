/* One number: JSON text to the bits of a datatype, and back.
 *
 * Text is read by std::from_chars and written by std::to_chars (fast_float and Ryu inside libstdc++), after a check of
 * the part of JSON's grammar (RFC 8259, section 6) that from_chars does not know: no leading zero, a digit behind the
 * point. Beyond JSON the bare tokens NaN, Infinity and -Infinity are floats. Every read rounds once, to nearest, ties
 * to even; FP16 and BF16 too. Knows nothing of arrays, shapes or errors' texts. No memory, any thread, O(length).
 */
#ifndef HEADRACE_NUMBERS_H
#define HEADRACE_NUMBERS_H

#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <system_error>
#include <type_traits>

#include "infer_types.h"

namespace numbers {

enum Problem : int { NONE = 0, NOT_A_NUMBER = 1, OUT_OF_RANGE = 2, NOT_AN_INTEGER = 3 };

static inline bool is_digit(char c) { return static_cast<unsigned char>(c - '0') < 10; }

/* The end of "-? (0 | [1-9][0-9]*)", or NULL. */
static inline const char* integer_part(const char* p, const char* end) {
    if (p != end && *p == '-') ++p;
    if (p == end || !is_digit(*p)) return nullptr;
    if (*p == '0') {
        ++p;
        return p != end && is_digit(*p) ? nullptr : p;
    }
    do ++p;
    while (p != end && is_digit(*p));
    return p;
}

/* A walk over the significant decimal digits of a JSON number: leading zeros are skipped, the point is not seen. */
struct Digits {
    const char* p;
    const char* end;
    int64_t exponent = 0; /* of the first significant digit; meaningless when there is none */
    bool zero = true;

    Digits(const char* begin, const char* stop) : p(begin), end(stop) {
        if (p != end && *p == '-') ++p;
        const char* mantissa_end = p;
        while (mantissa_end != end && (is_digit(*mantissa_end) || *mantissa_end == '.')) ++mantissa_end;
        int64_t whole = 0;
        const char* point = p;
        while (point != mantissa_end && *point != '.') ++point;
        whole = point - p;
        const char* first = p;
        while (first != mantissa_end && (*first == '0' || *first == '.')) ++first;
        zero = first == mantissa_end;
        exponent = first < point ? whole - 1 - (first - p) : -(first - point);
        if (mantissa_end != end && (*mantissa_end | 0x20) == 'e') {
            const char* q = mantissa_end + 1;
            bool negative = q != end && *q == '-';
            if (q != end && (*q == '-' || *q == '+')) ++q;
            int64_t written = 0;
            for (; q != end && is_digit(*q); ++q)
                if (written < (int64_t{1} << 40)) written = written * 10 + (*q - '0');
            exponent += negative ? -written : written;
        }
        p = first;
        end = mantissa_end;
    }

    int next() { /* 0 behind the last digit: as good as a trailing zero */
        if (p != end && *p == '.') ++p;
        return p == end ? 0 : *p++ - '0';
    }

    bool done() const { return p == end; }
};

/* Sign of |text| - |value|, exactly. Only for values with at most 120 significant decimal digits. */
__attribute__((noinline, unused)) static int compare_magnitude(const char* p, const char* end, double value) {
    char exact[160];
    const std::to_chars_result written =
        std::to_chars(exact, exact + sizeof exact, std::fabs(value), std::chars_format::scientific, 120);
    Digits a(p, end), b(exact, written.ptr);
    if (a.zero || b.zero) return a.zero ? (b.zero ? 0 : -1) : 1;
    if (a.exponent != b.exponent) return a.exponent < b.exponent ? -1 : 1;
    while (!a.done() || !b.done()) {
        int difference = a.next() - b.next();
        if (difference) return difference < 0 ? -1 : 1;
    }
    return 0;
}

/* std::from_chars reports numbers too large and too small alike: the small ones are a signed zero to us. */
template <class T>
__attribute__((noinline)) Problem zero_or_out_of_range(const char* p, const char* end, T* value) {
    Digits digits(p, end);
    if (!digits.zero && digits.exponent >= 0) return OUT_OF_RANGE;
    *value = *p == '-' ? -T(0) : T(0);
    return NONE;
}

static inline bool starts_with(const char* p, const char* end, const char* word, size_t n) {
    return static_cast<size_t>(end - p) >= n && std::memcmp(p, word, n) == 0;
}

template <class T>
static const char* read_token(const char* p, const char* end, T* value, Problem* problem) {
    if (starts_with(p, end, "NaN", 3)) {
        *value = std::numeric_limits<T>::quiet_NaN();
        return p + 3;
    }
    if (starts_with(p, end, "Infinity", 8)) {
        *value = std::numeric_limits<T>::infinity();
        return p + 8;
    }
    if (starts_with(p, end, "-Infinity", 9)) {
        *value = -std::numeric_limits<T>::infinity();
        return p + 9;
    }
    *problem = NOT_A_NUMBER;
    return nullptr;
}

/* Reads T at p: the byte behind it, or NULL and a problem. */
template <class T>
static inline const char* read_float(const char* p, const char* end, T* value, Problem* problem) {
    const char* whole = integer_part(p, end);
    if (__builtin_expect(whole == nullptr, 0)) return read_token(p, end, value, problem);
    if (whole != end && *whole == '.' && (end - whole < 2 || !is_digit(whole[1]))) {
        *problem = NOT_A_NUMBER;
        return nullptr;
    }
    std::from_chars_result result = std::from_chars(p, end, *value);
    if (__builtin_expect(result.ec != std::errc(), 0)) {
        *problem = NOT_A_NUMBER;
        if (result.ec == std::errc::result_out_of_range) *problem = zero_or_out_of_range(p, result.ptr, value);
        if (*problem != NONE) return nullptr;
    }
    return result.ptr;
}

template <class T>
static inline const char* read_integer(const char* p, const char* end, T* value, Problem* problem) {
    const char* whole = integer_part(p, end);
    if (whole == nullptr) {
        *problem = NOT_A_NUMBER;
        return nullptr;
    }
    if (whole != end && (*whole == '.' || (*whole | 0x20) == 'e')) {
        *problem = NOT_AN_INTEGER;
        return nullptr;
    }
    if (std::is_unsigned<T>::value && *p == '-') {
        *value = 0;
        if (p[1] == '0') return whole; /* the grammar leaves only "-0" */
        *problem = OUT_OF_RANGE;
        return nullptr;
    }
    std::from_chars_result result = std::from_chars(p, whole, *value);
    if (result.ec != std::errc()) {
        *problem = OUT_OF_RANGE;
        return nullptr;
    }
    return result.ptr;
}

/* The 16-bit floats: sign, EXPONENT_BITS, MANTISSA_BITS. FP16 is <5, 10>, BF16 is <8, 7>. */
template <int EXPONENT_BITS, int MANTISSA_BITS>
struct Half {
    static constexpr int BIAS = (1 << (EXPONENT_BITS - 1)) - 1;
    static constexpr uint16_t INFINITE = ((1 << EXPONENT_BITS) - 1) << MANTISSA_BITS;

    static const char* read(const char* p, const char* end, uint16_t* bits, Problem* problem) {
        double value;
        const char* behind = read_float(p, end, &value, problem);
        if (behind == nullptr) return nullptr;
        uint64_t wide;
        std::memcpy(&wide, &value, 8);
        const uint16_t sign = static_cast<uint16_t>((wide >> 63) << 15);
        wide &= ~(uint64_t{1} << 63);
        const int exponent = static_cast<int>(wide >> 52) - 1023;
        const uint64_t fraction = wide & ((uint64_t{1} << 52) - 1);
        if (exponent == 1024) {
            *bits = sign | INFINITE | (fraction ? 1 << (MANTISSA_BITS - 1) : 0);
            return behind;
        }
        const uint64_t mantissa = fraction | (uint64_t{1} << 52);
        int shift = 52 - MANTISSA_BITS;
        if (exponent < 1 - BIAS) shift += 1 - BIAS - exponent;
        *bits = sign;
        if (shift > 53) return behind; /* below half of the smallest subnormal; zero is here too */
        uint64_t kept = mantissa >> shift;
        const uint64_t lost = mantissa & ((uint64_t{1} << shift) - 1);
        const uint64_t tie = uint64_t{1} << (shift - 1);
        if (lost > tie) {
            ++kept;
        } else if (lost == tie) {
            /* The double may itself be rounded onto the tie: the text decides, then the even neighbour. */
            const int above = compare_magnitude(p, behind, value);
            if (above > 0 || (above == 0 && (kept & 1))) ++kept;
        }
        if (exponent >= 1 - BIAS) kept += static_cast<uint64_t>(exponent + BIAS - 1) << MANTISSA_BITS;
        if (kept >= INFINITE) {
            *problem = OUT_OF_RANGE;
            return nullptr;
        }
        *bits = sign | static_cast<uint16_t>(kept);
        return behind;
    }

    static float widen(uint16_t bits) {
        const bool negative = bits >> 15;
        const int exponent = (bits & 0x7FFF) >> MANTISSA_BITS;
        const int fraction = bits & ((1 << MANTISSA_BITS) - 1);
        float magnitude;
        if (exponent == (1 << EXPONENT_BITS) - 1) {
            magnitude = fraction ? std::numeric_limits<float>::quiet_NaN() : std::numeric_limits<float>::infinity();
        } else if (exponent == 0) {
            magnitude = std::ldexp(static_cast<float>(fraction), 1 - BIAS - MANTISSA_BITS);
        } else {
            const int mantissa = fraction | (1 << MANTISSA_BITS);
            magnitude = std::ldexp(static_cast<float>(mantissa), exponent - BIAS - MANTISSA_BITS);
        }
        return negative ? -magnitude : magnitude;
    }
};

using Fp16 = Half<5, 10>;
using Bf16 = Half<8, 7>;

static inline const char* read_bool(const char* p, const char* end, uint8_t* value, Problem* problem) {
    if (starts_with(p, end, "true", 4)) {
        *value = 1;
        return p + 4;
    }
    if (starts_with(p, end, "false", 5)) {
        *value = 0;
        return p + 5;
    }
    const char* behind = read_integer(p, end, value, problem);
    if (behind != nullptr && *value > 1) {
        *problem = OUT_OF_RANGE;
        return nullptr;
    }
    return behind;
}

/* Shortest text that reads back to the same bits, always recognisable as a float: "1.0", "1e+20", "NaN". */
template <class T>
static inline char* write_float(char* dst, T value) {
    if (__builtin_expect(!std::isfinite(value), 0)) {
        const char* word = std::isnan(value) ? "NaN" : value < 0 ? "-Infinity" : "Infinity";
        const size_t n = std::strlen(word);
        std::memcpy(dst, word, n);
        return dst + n;
    }
    char* behind = std::to_chars(dst, dst + 32, value).ptr;
    for (char* p = dst; p != behind; ++p)
        if (*p == '.' || *p == 'e') return behind;
    *behind++ = '.';
    *behind++ = '0';
    return behind;
}

/* One traits struct per datatype: Bits, TEXT_BYTES (the longest text), read and write. */
template <int DTYPE>
struct Element;

template <class T, size_t TEXT>
struct IntegerElement {
    using Bits = T;
    static constexpr size_t TEXT_BYTES = TEXT;
    static const char* read(const char* p, const char* end, T* value, Problem* problem) {
        return read_integer(p, end, value, problem);
    }
    static char* write(char* dst, T value) { return std::to_chars(dst, dst + TEXT, value).ptr; }
};

template <class T>
struct FloatElement {
    using Bits = T;
    static constexpr size_t TEXT_BYTES = 34;
    static const char* read(const char* p, const char* end, T* value, Problem* problem) {
        return read_float(p, end, value, problem);
    }
    static char* write(char* dst, T value) { return write_float(dst, value); }
};

template <class H>
struct HalfElement {
    using Bits = uint16_t;
    static constexpr size_t TEXT_BYTES = 34;
    static const char* read(const char* p, const char* end, uint16_t* bits, Problem* problem) {
        return H::read(p, end, bits, problem);
    }
    static char* write(char* dst, uint16_t bits) { return write_float(dst, H::widen(bits)); }
};

struct BoolElement {
    using Bits = uint8_t;
    static constexpr size_t TEXT_BYTES = 5;
    static const char* read(const char* p, const char* end, uint8_t* value, Problem* problem) {
        return read_bool(p, end, value, problem);
    }
    static char* write(char* dst, uint8_t value) {
        std::memcpy(dst, value ? "true" : "false", value ? 4 : 5);
        return dst + (value ? 4 : 5);
    }
};

template <> struct Element<DTYPE_BOOL> : BoolElement {};
template <> struct Element<DTYPE_UINT8> : IntegerElement<uint8_t, 3> {};
template <> struct Element<DTYPE_UINT16> : IntegerElement<uint16_t, 5> {};
template <> struct Element<DTYPE_UINT32> : IntegerElement<uint32_t, 10> {};
template <> struct Element<DTYPE_UINT64> : IntegerElement<uint64_t, 20> {};
template <> struct Element<DTYPE_INT8> : IntegerElement<int8_t, 4> {};
template <> struct Element<DTYPE_INT16> : IntegerElement<int16_t, 6> {};
template <> struct Element<DTYPE_INT32> : IntegerElement<int32_t, 11> {};
template <> struct Element<DTYPE_INT64> : IntegerElement<int64_t, 20> {};
template <> struct Element<DTYPE_FP16> : HalfElement<Fp16> {};
template <> struct Element<DTYPE_FP32> : FloatElement<float> {};
template <> struct Element<DTYPE_FP64> : FloatElement<double> {};
template <> struct Element<DTYPE_BF16> : HalfElement<Bf16> {};

}  // namespace numbers

#endif
