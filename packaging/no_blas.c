/* Stands in for OpenBLAS inside the executable, where numpy holds arrays and multiplies nothing: 28 MB less to unpack
 * at each start, no threads and no buffers of its own in an executor.
 *
 * numpy checks itself with one dot product when it is imported, so the two real ones are here. Every other function
 * that numpy was linked against (absent.h, made by packaging/no_blas.py) ends the process and says its name: a wrong
 * result would be worse. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define REAL_DOT(name, real)                                                                              \
    real name(int64_t n, const real *x, int64_t x_step, const real *y, int64_t y_step)                    \
    {                                                                                                     \
        real sum = 0;                                                                                     \
        for (int64_t i = 0; i < n; i++) sum += x[i * x_step] * y[i * y_step];                             \
        return sum;                                                                                       \
    }

REAL_DOT(scipy_cblas_sdot64_, float)
REAL_DOT(scipy_cblas_ddot64_, double)

#define ABSENT(name)                                                                                      \
    void name(void)                                                                                       \
    {                                                                                                     \
        fputs("headrace: expected no linear algebra while serving, numpy called " #name "\n", stderr);     \
        abort();                                                                                          \
    }

#include "absent.h"
