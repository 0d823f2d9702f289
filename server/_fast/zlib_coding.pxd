"""C face of gzip and deflate."""


# The decompressed bytes, or None when they are damaged, incomplete or larger than `limit`.
cdef bytes zlib_inflate(bytes data, bint is_gzip, size_t limit)
# The compressed bytes, at the fastest level.
cdef bytes zlib_deflate(bytes data, bint is_gzip)
