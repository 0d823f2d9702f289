"""Tensors of C++ strings, as ONNX Runtime keeps them, to and from the V2 binary form of BYTES.

ONNX Runtime's Python face makes Python strings of every element, which no bytes beside UTF-8 survive. Its string
tensors are arrays of std::string, whose address it does give: here they are filled and read where they lie. That
takes one C++ library in both, which is_known_layout proves before it is relied on. Strings belong to their tensor;
the form belongs to the caller. Any thread that holds the tensor alone; O(bytes), the GIL is released.
"""

from libc.stdint cimport UINT32_MAX, int64_t, uint64_t, uintptr_t
from libc.string cimport memcmp, memcpy


cdef extern from *:
    """
    #include <string>
    #include "bytes_form.h"

    static_assert(sizeof(std::string) == 32, "libstdc++'s std::string with its own buffer");

    static int string_assign(void* strings, int64_t index, const char* p, size_t n) {
        try {
            static_cast<std::string*>(strings)[index].assign(p, n);
        } catch (...) {
            return -1;
        }
        return 0;
    }

    static Span string_at(const void* strings, int64_t index) {
        const std::string& text = static_cast<const std::string*>(strings)[index];
        return Span{text.data(), text.size()};
    }
    """
    ctypedef struct Span:
        const char* p
        size_t n

    int string_assign(void* strings, int64_t index, const char* p, size_t n) noexcept nogil
    Span string_at(const void* strings, int64_t index) noexcept nogil
    int bytes_next(const char** p, const char* end, Span* element) noexcept nogil
    char* bytes_put(char* dst, const char* p, size_t n) noexcept nogil


def is_known_layout(uintptr_t address, bytes text):
    """See string_tensor.pyi."""
    # Words only, nothing is followed: a short string lies inside itself, behind its address and size.
    cdef uint64_t words[4]
    cdef size_t n = <size_t>len(text)
    if address == 0 or n > 15:
        return False
    memcpy(words, <const void*>address, sizeof(words))
    return words[0] == address + 16 and words[1] == n and memcmp(&words[2], <const char*>text, n + 1) == 0


def assign(uintptr_t address, int64_t count, uintptr_t form, size_t most_bytes):
    """See string_tensor.pyi."""
    cdef const char* p = <const char*>form
    cdef const char* end = p + most_bytes
    cdef Span element
    cdef int64_t index
    cdef int status = 1
    with nogil:
        for index in range(count):
            status = bytes_next(&p, end, &element)
            if status != 1:
                break
            if string_assign(<void*>address, index, element.p, element.n) < 0:
                status = -9
                break
    if status == -9:
        raise MemoryError
    if status != 1:
        raise ValueError(f"expected {count} elements in at most {most_bytes} bytes")
    return p - <const char*>form


def pack(uintptr_t address, int64_t count):
    """See string_tensor.pyi."""
    cdef uint64_t total = 0
    cdef size_t longest = 0
    cdef int64_t index
    cdef Span element
    cdef char* p
    with nogil:
        for index in range(count):
            element = string_at(<const void*>address, index)
            total += 4 + element.n
            if element.n > longest:
                longest = element.n
    if longest > UINT32_MAX:
        raise ValueError(f"a string of {longest} bytes: at most {UINT32_MAX} are served")
    made = bytearray(total)
    p = made
    with nogil:
        for index in range(count):
            element = string_at(<const void*>address, index)
            p = bytes_put(p, element.p, element.n)
    return made
