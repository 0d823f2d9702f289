/* The best classes of a row of scores, and a score as text.
 *
 * Knows nothing of replies. Borrows everything, allocates nothing; the order's room is the caller's. Any thread;
 * O(elements * log(classes)). Scores are ordered as Triton orders them, and where its order is an accident: equal ones
 * by index, NaN behind all others. The text of a score is that of std::to_string.
 */
#ifndef HEADRACE_CLASS_ORDER_H
#define HEADRACE_CLASS_ORDER_H

#include <algorithm>
#include <charconv>
#include <numeric>

#include "infer_types.h"

enum { CLASS_SCORE_MAX_BYTES = 352 };

namespace class_order {

template <typename T>
static T score(const char* row, size_t index) {
    T value;
    memcpy(&value, row + index * sizeof value, sizeof value);
    return value;
}

template <typename T>
static void pick(const char* row, size_t count, size_t best, size_t* order) {
    std::iota(order, order + count, static_cast<size_t>(0));
    std::partial_sort(order, order + best, order + count, [row](size_t i, size_t k) {
        const T a = score<T>(row, i), b = score<T>(row, k);
        const bool a_is_nan = a != a, b_is_nan = b != b;
        if (a_is_nan != b_is_nan) return b_is_nan;
        if (!a_is_nan && a != b) return a > b;
        return i < k;
    });
}

template <typename T>
static char* integer(char* dst, const char* row, size_t index) {
    return std::to_chars(dst, dst + CLASS_SCORE_MAX_BYTES, static_cast<int64_t>(score<T>(row, index))).ptr;
}

template <typename T>
static char* decimal(char* dst, const char* row, size_t index) {
    return std::to_chars(dst, dst + CLASS_SCORE_MAX_BYTES, score<T>(row, index), std::chars_format::fixed, 6).ptr;
}

}  // namespace class_order

/* Puts the indices of the `best` highest scores first in order[count]; best <= count. */
static inline void class_order_pick(const char* row, size_t count, size_t best, int dtype, size_t* order) {
    using namespace class_order;
    switch (dtype) {
        case DTYPE_UINT8:
            return pick<uint8_t>(row, count, best, order);
        case DTYPE_UINT16:
            return pick<uint16_t>(row, count, best, order);
        case DTYPE_UINT32:
            return pick<uint32_t>(row, count, best, order);
        case DTYPE_UINT64:
            return pick<uint64_t>(row, count, best, order);
        case DTYPE_INT8:
            return pick<int8_t>(row, count, best, order);
        case DTYPE_INT16:
            return pick<int16_t>(row, count, best, order);
        case DTYPE_INT32:
            return pick<int32_t>(row, count, best, order);
        case DTYPE_INT64:
            return pick<int64_t>(row, count, best, order);
        case DTYPE_FP32:
            return pick<float>(row, count, best, order);
        default:
            return pick<double>(row, count, best, order);
    }
}

/* Writes score `index`, at most CLASS_SCORE_MAX_BYTES: behind it. */
static inline char* class_order_score(char* dst, const char* row, size_t index, int dtype) {
    using namespace class_order;
    switch (dtype) {
        case DTYPE_UINT8:
            return integer<uint8_t>(dst, row, index);
        case DTYPE_UINT16:
            return integer<uint16_t>(dst, row, index);
        case DTYPE_UINT32:
            return integer<uint32_t>(dst, row, index);
        case DTYPE_UINT64:
            return std::to_chars(dst, dst + CLASS_SCORE_MAX_BYTES, score<uint64_t>(row, index)).ptr;
        case DTYPE_INT8:
            return integer<int8_t>(dst, row, index);
        case DTYPE_INT16:
            return integer<int16_t>(dst, row, index);
        case DTYPE_INT32:
            return integer<int32_t>(dst, row, index);
        case DTYPE_INT64:
            return integer<int64_t>(dst, row, index);
        case DTYPE_FP32:
            return decimal<float>(dst, row, index);
        default:
            return decimal<double>(dst, row, index);
    }
}

/* Whether Triton classifies outputs of this datatype. */
static inline int class_order_takes(int dtype) {
    return (dtype >= DTYPE_UINT8 && dtype <= DTYPE_INT64) || dtype == DTYPE_FP32 || dtype == DTYPE_FP64;
}

#endif
