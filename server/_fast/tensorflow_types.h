/* TensorFlow's datatypes and ours, by number. Constant tables. Source: tensorflow/core/framework/types.proto. */
#ifndef HEADRACE_TENSORFLOW_TYPES_H
#define HEADRACE_TENSORFLOW_TYPES_H

#include "infer_types.h"

enum { TENSORFLOW_TYPES = 26 };

typedef struct TensorflowType {
    const char* name;
    int dtype; /* DTYPE_INVALID: not served */
} TensorflowType;

static const TensorflowType TENSORFLOW_TYPE_ROWS[TENSORFLOW_TYPES] = {
    {"DT_INVALID", 0},
    {"DT_FLOAT", DTYPE_FP32},
    {"DT_DOUBLE", DTYPE_FP64},
    {"DT_INT32", DTYPE_INT32},
    {"DT_UINT8", DTYPE_UINT8},
    {"DT_INT16", DTYPE_INT16},
    {"DT_INT8", DTYPE_INT8},
    {"DT_STRING", DTYPE_BYTES},
    {"DT_COMPLEX64", 0},
    {"DT_INT64", DTYPE_INT64},
    {"DT_BOOL", DTYPE_BOOL},
    {"DT_QINT8", 0},
    {"DT_QUINT8", 0},
    {"DT_QINT32", 0},
    {"DT_BFLOAT16", DTYPE_BF16},
    {"DT_QINT16", 0},
    {"DT_QUINT16", 0},
    {"DT_UINT16", DTYPE_UINT16},
    {"DT_COMPLEX128", 0},
    {"DT_HALF", DTYPE_FP16},
    {"DT_RESOURCE", 0},
    {"DT_VARIANT", 0},
    {"DT_UINT32", DTYPE_UINT32},
    {"DT_UINT64", DTYPE_UINT64},
    {"DT_FLOAT8_E5M2", 0},
    {"DT_FLOAT8_E4M3FN", 0},
};

static inline int tensorflow_dtype(int number) {
    return number >= 0 && number < TENSORFLOW_TYPES ? TENSORFLOW_TYPE_ROWS[number].dtype : DTYPE_INVALID;
}

static inline const char* tensorflow_dtype_name(int number) {
    return number >= 0 && number < TENSORFLOW_TYPES ? TENSORFLOW_TYPE_ROWS[number].name : "an unknown DataType";
}

/* The number of a datatype; 0 when there is none. */
static inline int tensorflow_number(int dtype) {
    for (int number = 1; number < TENSORFLOW_TYPES; ++number)
        if (TENSORFLOW_TYPE_ROWS[number].dtype == dtype && dtype_is_valid(dtype)) return number;
    return 0;
}

#endif
