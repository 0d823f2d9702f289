"""Tensors of C++ strings have no C face: the executor is Python, and asks once for a tensor."""
