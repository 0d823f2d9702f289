"""A sentence transformer of MiniLM's form, written byte by byte, with random weights.

Word and position embeddings, layers of masked attention and a feed-forward part, each with a LayerNormalization behind
it, and the mean of the last layer over the tokens that the mask counts. The lengths of texts are free: input_ids and
attention_mask have one axis name for them, as exporters write it.
"""

from __future__ import annotations

import random
import struct

from tests.support.onnx_writer import Graph


def sentence_encoder(
    layers: int = 2, hidden: int = 64, heads: int = 4, words: int = 256, longest: int = 512, seed: int = 5
) -> bytes:
    """`input_ids`, `attention_mask` INT64 [-1, -1] -> `last_hidden_state` FP32 [-1, -1, hidden] and
    `sentence_embedding` FP32 [-1, hidden].
    """
    graph = Graph("sentence_encoder")
    rng = random.Random(seed)
    graph.input("input_ids", "INT64", [-1, -1])
    graph.input("attention_mask", "INT64", [-1, -1])
    for name, rows in (("words", words), ("positions", longest)):
        table = [rng.gauss(0, 1) for _ in range(rows * hidden)]
        graph.constant(name, "FP32", [rows, hidden], struct.pack(f"<{rows * hidden}f", *table))
    for name, value in (("one", 1.0), ("hidden_away", -1e4), ("root_2", 2**0.5), ("half", 0.5)):
        graph.constant(name, "FP32", [], struct.pack("<f", value))
    graph.constant("scale", "FP32", [], struct.pack("<f", (hidden // heads) ** -0.5))
    for name, values in (("at_0", [0]), ("at_1", [1]), ("at_2", [2]), ("at_12", [1, 2])):
        graph.integers(name, values)
    graph.integers("split", [0, 0, heads, hidden // heads])
    graph.integers("joined", [0, 0, hidden])
    # The embeddings.
    graph.node("Gather", ["words", "input_ids"], ["word"])
    graph.node("Shape", ["input_ids"], ["shape"])
    graph.node("Slice", ["shape", "at_1", "at_2"], ["length"])
    graph.node("Slice", ["positions", "at_0", "length", "at_0"], ["position"])
    graph.node("Add", ["word", "position"], ["embedded"])
    _normal(graph, "embedded", "x0", hidden)
    # What the mask does not count gets no attention.
    graph.node("Cast", ["attention_mask"], ["mask"], to=1)
    graph.node("Sub", ["one", "mask"], ["absent"])
    graph.node("Mul", ["absent", "hidden_away"], ["flat_bias"])
    graph.node("Unsqueeze", ["flat_bias", "at_12"], ["bias"])
    for layer in range(layers):
        _layer(graph, layer, hidden, rng)
    last = f"x{layers}"
    graph.node("Identity", [last], ["last_hidden_state"])
    graph.node("Unsqueeze", ["mask", "at_2"], ["weight"])
    graph.node("Mul", [last, "weight"], ["counted"])
    graph.node("ReduceSum", ["counted", "at_1"], ["total"], keepdims=0)
    graph.node("ReduceSum", ["weight", "at_1"], ["count"], keepdims=0)
    graph.node("Max", ["count", "one"], ["divisor"])
    graph.node("Div", ["total", "divisor"], ["sentence_embedding"])
    graph.output("last_hidden_state", "FP32", [-1, -1, hidden])
    graph.output("sentence_embedding", "FP32", [-1, hidden])
    return graph.model()


def _normal(graph: Graph, source: str, target: str, hidden: int) -> None:
    graph.constant(f"{target}_scale", "FP32", [hidden], struct.pack("<f", 1.0) * hidden)
    graph.constant(f"{target}_shift", "FP32", [hidden], bytes(4 * hidden))
    graph.node("LayerNormalization", [source, f"{target}_scale", f"{target}_shift"], [target], axis=-1)


def _layer(graph: Graph, layer: int, hidden: int, rng: random.Random) -> None:
    """x{layer} -> x{layer + 1}."""
    source, here = f"x{layer}", f"l{layer}_"
    for part in ("q", "k", "v"):
        graph.weights(f"{here}w{part}", [hidden, hidden], rng)
        graph.node("MatMul", [source, f"{here}w{part}"], [f"{here}{part}flat"])
        graph.node("Reshape", [f"{here}{part}flat", "split"], [f"{here}{part}4"])
        order = [0, 2, 3, 1] if part == "k" else [0, 2, 1, 3]
        graph.node("Transpose", [f"{here}{part}4"], [f"{here}{part}"], perm=order)
    graph.node("MatMul", [f"{here}q", f"{here}k"], [f"{here}raw"])
    graph.node("Mul", [f"{here}raw", "scale"], [f"{here}scaled"])
    graph.node("Add", [f"{here}scaled", "bias"], [f"{here}scores"])
    graph.node("Softmax", [f"{here}scores"], [f"{here}attention"], axis=-1)
    graph.node("MatMul", [f"{here}attention", f"{here}v"], [f"{here}mixed4"])
    graph.node("Transpose", [f"{here}mixed4"], [f"{here}mixed3"], perm=[0, 2, 1, 3])
    graph.node("Reshape", [f"{here}mixed3", "joined"], [f"{here}mixed"])
    graph.weights(f"{here}wo", [hidden, hidden], rng)
    graph.node("MatMul", [f"{here}mixed", f"{here}wo"], [f"{here}attended"])
    graph.node("Add", [source, f"{here}attended"], [f"{here}sum1"])
    _normal(graph, f"{here}sum1", f"{here}middle", hidden)
    graph.weights(f"{here}w1", [hidden, 4 * hidden], rng)
    graph.weights(f"{here}w2", [4 * hidden, hidden], rng)
    graph.node("MatMul", [f"{here}middle", f"{here}w1"], [f"{here}wide"])
    # Gelu
    graph.node("Div", [f"{here}wide", "root_2"], [f"{here}g1"])
    graph.node("Erf", [f"{here}g1"], [f"{here}g2"])
    graph.node("Add", [f"{here}g2", "one"], [f"{here}g3"])
    graph.node("Mul", [f"{here}wide", f"{here}g3"], [f"{here}g4"])
    graph.node("Mul", [f"{here}g4", "half"], [f"{here}active"])
    graph.node("MatMul", [f"{here}active", f"{here}w2"], [f"{here}narrow"])
    graph.node("Add", [f"{here}middle", f"{here}narrow"], [f"{here}sum2"])
    _normal(graph, f"{here}sum2", f"x{layer + 1}", hidden)
