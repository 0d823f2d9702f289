"""Functions inside a model: circles and bombs are found, large honest ones are not."""

from __future__ import annotations

import pytest

from server.models.function_calls import MAX_NODES, FunctionCalls, FunctionError, operator_name


def check(bodies: dict[str, dict[str, int]], graph: dict[str, int] | None = None) -> None:
    calls = FunctionCalls()
    for name, body in bodies.items():
        calls.add(name, body)
    calls.check(graph or {})


@pytest.mark.parametrize(
    ("bodies", "circle"),
    [
        ({"f": {"f": 1}}, "f -> f"),
        ({"f": {"g": 1, "Relu": 2}, "g": {"f": 1}}, "f -> g -> f"),
        ({"a": {"b": 1}, "b": {"c": 1}, "c": {"Add": 1, "b": 1}}, "b -> c -> b"),
    ],
)
def test_circles(bodies: dict[str, dict[str, int]], circle: str) -> None:
    with pytest.raises(FunctionError, match=f"call themselves: {circle}$"):
        check(bodies)


def test_a_long_chain_is_no_circle_and_needs_no_recursion() -> None:
    check({f"f{number}": {f"f{number + 1}": 1, "Relu": 1} for number in range(50_000)})


def test_one_called_from_two_places_is_no_circle() -> None:
    check({"f": {"h": 1}, "g": {"f": 1, "h": 2}, "h": {"Relu": 1}}, {"f": 3, "g": 1})


def test_bombs() -> None:
    with pytest.raises(FunctionError, match="more than 10000000 nodes"):
        check({**{f"f{number}": {f"f{number + 1}": 10} for number in range(8)}, "f8": {"Relu": 1}})
    # Harmless by itself, but for how often it is called.
    check({"f": {"Relu": 1000}}, {"f": MAX_NODES // 1000})
    with pytest.raises(FunctionError):
        check({"f": {"Relu": 1000}}, {"f": MAX_NODES // 1000 + 1})


def test_names() -> None:
    assert operator_name("", "Relu") == operator_name("ai.onnx", "Relu") == "Relu"
    assert operator_name("com.example", "Gelu") == "com.example.Gelu"
