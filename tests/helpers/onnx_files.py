"""Writes what exporters of ONNX write: a packer of protocol buffers of the tests' own, and graphs of ViTs."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

_TYPES = {"float32": 1, "int64": 7, "float16": 10}


def field(number: int, value: Any) -> bytes:
    """A field of a message: a number, or bytes, or text."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value % 2**64)
    if isinstance(value, float):
        return _varint(number << 3 | 5) + struct.pack("<f", value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    head, rest = value & 0x7F, value >> 7
    return bytes([head | 0x80]) + _varint(rest) if rest else bytes([head])


def tensor(name: str, array: np.ndarray, place: Mapping[str, str] | None = None) -> bytes:
    """``place``: where its numbers lie, if not here."""
    shape = b"".join(field(1, size) for size in array.shape)
    head = shape + field(2, _TYPES[array.dtype.name]) + field(8, name)
    if place is None:
        return head + field(9, array.tobytes())
    return head + b"".join(field(13, field(1, k) + field(2, v)) for k, v in place.items()) + field(14, 1)


def attribute(name: str, value: Any) -> bytes:
    match value:
        case np.ndarray():
            return field(1, name) + field(5, tensor("", value))
        case tuple():
            return field(1, name) + b"".join(field(8, one) for one in value)
        case float():
            return field(1, name) + field(2, value)
        case int():
            return field(1, name) + field(3, value)
        case _:
            return field(1, name) + field(4, value)


class GraphFile:
    """A graph that grows node by node: each call of :meth:`node` returns the name of what it makes."""

    def __init__(self) -> None:
        self.nodes, self.arrays = list[bytes](), dict[str, np.ndarray]()
        self._count = 0

    def constant(self, array: Any, name: str = "") -> str:
        """An initializer; without a name it gets one that says nothing."""
        self._count += 1
        name = name or f"onnx::Something_{self._count}"
        self.arrays[name] = np.ascontiguousarray(np.asarray(array))
        return name

    def node(self, kind: str, *inputs: str, outputs: int = 1, scope: str = "", **attributes: Any) -> Any:
        """Its output's name, or the names of several."""
        self._count += 1
        made = [f"{scope}/{kind}_{self._count}_output_{i}" for i in range(outputs)]
        message = b"".join(field(1, one) for one in inputs) + b"".join(field(2, one) for one in made)
        message += field(3, f"{scope}/{kind}_{self._count}") + field(4, kind)
        self.nodes.append(message + b"".join(field(5, attribute(k, v)) for k, v in attributes.items()))
        return made[0] if outputs == 1 else made

    def write(self, path: Path, sizes: Sequence[int], output: str, beside: str = "") -> Path:
        """``sizes`` of the input "picture", 0 where it is open. ``beside``: a file that the numbers are written to."""
        dims = b"".join(field(1, field(1, size) if size else field(2, "open")) for size in sizes)
        shape = field(1, "picture") + field(2, field(1, field(1, 1) + field(2, dims)))
        graph, data = b"".join(field(1, node) for node in self.nodes), b""
        for name, array in self.arrays.items():
            place = {"location": beside, "offset": str(len(data)), "length": str(array.nbytes)} if beside else None
            graph += field(5, tensor(name, array, place))
            data += array.tobytes() if beside else b""
        if beside and "/" not in beside:
            path.with_name(beside).write_bytes(data)
        path.write_bytes(field(1, 8) + field(7, graph + field(11, shape) + field(12, field(1, output))))
        return path


class ViTFile(GraphFile):
    """The graph of a ViT as PyTorch's exporter writes it, from parameters by transformers' names.

    ``written``: norms and GELUs as their arithmetic, linear maps as products with anonymous, transposed constants;
    positions resized by the graph. Otherwise as single nodes, and one linear map for queries, keys and values.
    """

    def __init__(self, state: Mapping[str, np.ndarray], heads: int, *, written: bool, patch: int, eps: float) -> None:
        super().__init__()
        self.state, self.heads, self.written, self.patch, self.eps = state, heads, written, patch, eps

    def tokens(self, grid: int) -> str:
        """What the first block reads; positions are resized to ``grid`` if :attr:`written`."""
        prefix, size = "embeddings.", (self.patch, self.patch)
        weights = [self._named(f"{prefix}patch_embeddings.projection.{name}") for name in ("weight", "bias")]
        x = self.node("Conv", self.node("Cast", "picture", to=1), *weights, strides=size, kernel_shape=size, group=1)
        x = self.node("Reshape", x, self.constant(np.array([0, self.width, -1])))
        x = self.node("Transpose", x, perm=(0, 2, 1))
        token = self.node("Expand", self._named(f"{prefix}cls_token"), self.node("Shape", x))
        x = self.node("Concat", token, x, axis=1)
        table = self.state[f"{prefix}position_embeddings"]
        if not self.written:
            return self.node("Add", x, self.constant(table, f"{prefix}position_embeddings"))
        side = int(len(table[0]) ** 0.5)
        places = self.node("Reshape", self.constant(table[:, 1:]), self.constant(np.array([1, side, side, self.width])))
        places = self.node("Transpose", places, perm=(0, 3, 1, 2))
        sizes = self.constant(np.array([1, self.width, grid, grid]))
        places = self.node("Resize", places, "", "", sizes, mode="cubic", coordinate_transformation_mode="half_pixel")
        places = self.node(
            "Reshape", self.node("Transpose", places, perm=(0, 2, 3, 1)), self.constant(np.array([1, -1, 0]))
        )
        return self.node("Add", x, self.node("Concat", self.constant(table[:, :1]), places, axis=1))

    @property
    def width(self) -> int:
        return self.state["embeddings.cls_token"].shape[-1]

    def _named(self, name: str) -> str:
        return self.constant(self.state[name], name)

    def norm(self, x: str, name: str) -> str:
        weight, bias = self._named(f"{name}.weight"), self._named(f"{name}.bias")
        if not self.written:
            return self.node("LayerNormalization", x, weight, bias, axis=-1, epsilon=self.eps, scope=name)
        difference = self.node("Sub", x, self.node("ReduceMean", x, axes=(-1,), scope=name))
        squares = self.node("Pow", difference, self.node("Constant", value=np.array(2, np.float32)))
        eps = self.node("Constant", value=np.array(self.eps, np.float32))
        root = self.node("Sqrt", self.node("Add", self.node("ReduceMean", squares, axes=(-1,)), eps))
        return self.node("Add", self.node("Mul", self.node("Div", difference, root), weight), bias)

    def linear(self, x: str, *names: str) -> str:
        """Several names are one map, whose rows follow each other."""
        weight = np.concatenate([self.state[f"{name}.weight"] for name in names])
        bias = np.concatenate([self.state[f"{name}.bias"] for name in names])
        product = self.node("MatMul", x, self.constant(weight.T), scope=names[0])
        return self.node("Add", self.constant(bias, f"{names[0]}.bias"), product, scope=names[0])

    def attention(self, x: str, names: Mapping[str, str], mask: Any = None) -> str:
        """``names`` of query, key and value; ``mask`` is added to the scores."""
        wide = self.width // self.heads
        if self.written:  # the order is not theirs
            made = {part: self.linear(x, names[part]) for part in ("key", "value", "query")}
            shape = self.constant(np.array([0, -1, self.heads, wide]))
            parts = {part: self.node("Reshape", value, shape) for part, value in made.items()}
            turned = {part: self.node("Transpose", value, perm=(0, 2, 1, 3)) for part, value in parts.items()}
        else:
            joined = self.linear(x, names["query"], names["key"], names["value"])
            joined = self.node("Reshape", joined, self.constant(np.array([0, -1, 3, self.heads, wide])))
            joined = self.node("Transpose", joined, perm=(2, 0, 3, 1, 4))
            numbered = {part: self.constant(np.array(i)) for i, part in enumerate(("query", "key", "value"))}
            turned = {part: self.node("Gather", joined, i, axis=0) for part, i in numbered.items()}
        factor = self.node("Constant", value=np.array(wide**-0.25, np.float32))
        key = self.node("Transpose", turned["key"], perm=(0, 1, 3, 2))
        scores = self.node("MatMul", self.node("Mul", turned["query"], factor), self.node("Mul", key, factor))
        if mask is not None:
            scores = self.node("Add", scores, self.constant(mask))
        seen = self.node("MatMul", self.node("Softmax", scores, axis=-1), turned["value"])
        return self.node(
            "Reshape", self.node("Transpose", seen, perm=(0, 2, 1, 3)), self.constant(np.array([0, -1, self.width]))
        )

    def gelu(self, x: str) -> str:
        if not self.written:
            return self.node("Gelu", x)
        half, one, root = (self.node("Constant", value=np.array(n, np.float32)) for n in (0.5, 1.0, 2**0.5))
        return self.node(
            "Mul", self.node("Mul", x, self.node("Add", self.node("Erf", self.node("Div", x, root)), one)), half
        )

    def scaled(self, x: str, name: str) -> str:
        return self.node("Mul", x, self._named(name)) if name in self.state else x
