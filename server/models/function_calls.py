"""Which of a model's own functions call which, and how large the model is once all of them are written out.

ONNX Runtime writes functions out where they are called. A function that calls itself would never end, and ten that each
call the next one ten times make ten thousand million nodes of a hundred: both are refused before anything is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

#: Once written out; a language model with every layer unrolled has a tenth of it.
MAX_NODES = 10_000_000


class FunctionError(ValueError):
    """The functions cannot be written out; the text says why."""


def operator_name(domain: str, op_type: str) -> str:
    """`Relu`, `com.example.Gelu`."""
    return f"{domain}.{op_type}" if domain not in ("", "ai.onnx") else op_type


@dataclass(slots=True)
class FunctionCalls:
    """Filled function by function, then checked."""

    bodies: dict[str, Mapping[str, int]] = field(default_factory=dict)

    def add(self, name: str, op_counts: Mapping[str, int]) -> None:
        """A function and the operators in its body, subgraphs included."""
        self.bodies[name] = dict(op_counts)

    def check(self, op_counts: Mapping[str, int]) -> None:
        """op_counts: of the whole model. Raises FunctionError. O(functions + calls), without recursion."""
        sizes: dict[str, int] = {}
        for root in self.bodies:
            path: list[str] = []
            on_path: set[str] = set()
            todo: list[tuple[str, bool]] = [(root, False)]
            while todo:
                name, is_leaving = todo.pop()
                if is_leaving:
                    sizes[name] = _size(self.bodies[name], sizes)
                    on_path.discard(path.pop())
                    continue
                if name in on_path:
                    circle = " -> ".join([*path[path.index(name) :], name])
                    raise FunctionError(f"has functions that call themselves: {circle[:200]}")
                if name in sizes:
                    continue
                path.append(name)
                on_path.add(name)
                todo.append((name, True))
                todo += [(called, False) for called in self.bodies[name] if called in self.bodies]
        _size(op_counts, sizes)


def _size(op_counts: Mapping[str, int], sizes: Mapping[str, int]) -> int:
    size = sum(count * sizes.get(called, 1) for called, count in op_counts.items())
    if size > MAX_NODES:
        raise FunctionError(f"has functions that come to more than {MAX_NODES} nodes when they are written out")
    return size
