"""gzip and deflate of whole messages and bodies, by the standard library's zlib.

Knows no protocol. Memory of a reading is bounded by the caller's limit whatever the data says. The result is a new
bytes object; O(bytes) on the calling thread.
"""

import zlib


cdef bytes zlib_inflate(bytes data, bint is_gzip, size_t limit):
    decoder = zlib.decompressobj(31 if is_gzip else 15)
    try:
        plain = decoder.decompress(data, limit + 1)
    except zlib.error:
        return None
    if <size_t>len(plain) > limit or not decoder.eof or decoder.unused_data:
        return None
    return plain


cdef bytes zlib_deflate(bytes data, bint is_gzip):
    encoder = zlib.compressobj(1, zlib.DEFLATED, 31 if is_gzip else 15)
    return encoder.compress(data) + encoder.flush()
