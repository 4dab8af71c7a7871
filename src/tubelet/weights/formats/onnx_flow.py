"""How numbers flow through an ONNX graph: which constants are a linear map's or a norm's, and what follows what."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tubelet.nn.positions import Resize
from tubelet.weights.onnx import Graph, Node

SAME = ("Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Cast", "Identity", "Dropout")
"""Operations after which the numbers are the same, in another order or shape."""

_REACH = 400  # nodes that are looked at to find what follows a value
_HALF_PIXEL = (b"half_pixel", b"pytorch_half_pixel")


class NotPlainError(ValueError):
    """The graph goes on in another way than a plain ViT's: the message says with what."""


@dataclass(frozen=True)
class Linear:
    """A linear map: its weight (out, in) and bias (out,), the value that it reads and the one that it makes."""

    weight: Tensor
    bias: Tensor
    input: str
    output: str


@dataclass(frozen=True)
class Norm:
    """A layer norm over channels, and the value that it makes."""

    weight: Tensor
    bias: Tensor
    eps: float
    output: str


@dataclass(frozen=True)
class Rows:
    """Constant tokens (N, D), and how the graph resizes them as a picture; None where it does not."""

    rows: Tensor
    resize: Resize | None = None


@dataclass(frozen=True)
class Part:
    """Where a value comes from: the ``number`` of one of several; ``takes``: the numbers of the parts that are taken of
    it on the way; ``shape``: the sizes of the first shape that it is given, 0 for those that the graph computes."""

    number: int
    takes: tuple[int, ...] = ()
    shape: tuple[int, ...] = ()
    taken_first: bool = False

    @property
    def outer(self) -> int:
        """The size of the axis before those of heads and channels; 0 where a part is taken before there is a shape."""
        return 0 if self.taken_first or len(self.shape) < 3 else self.shape[-3]

    def heads(self, width: int) -> int:
        """The heads that a row of ``width`` channels is given; 0 where nothing tells."""
        outer, inner = (*self.shape[-2:], 0, 0)[:2]
        return width // inner if inner > 0 else max(outer, 0)


class Flow:
    """Finds its way in a graph. ``used``: the names of the constants that were asked for."""

    def __init__(self, graph: Graph) -> None:
        self.graph, self.used = graph, set[str]()
        self.made = {value: node for node in graph.nodes for value in node.outputs if value}
        self._users: defaultdict[str, list[Node]] = defaultdict(list)
        for node in graph.nodes:
            for value in dict.fromkeys(node.inputs):
                self._users[value].append(node)

    def users(self, value: str) -> list[Node]:
        """The nodes that read ``value``."""
        return self._users.get(value, [])

    def constant(self, value: str) -> Tensor | None:
        """The numbers of a value that does not depend on the input; None where it does, or is computed."""
        if value in self.graph:
            self.used.add(value)
            return self.graph[value]
        if (node := self.made.get(value)) is None or node.kind not in ("Constant", "Identity", "Cast", "Transpose"):
            return None
        if node.kind == "Constant":
            told = next((one for one in node.attributes.values() if not isinstance(one, bytes)), None)
            return told if isinstance(told, Tensor | None) else torch.tensor(told)
        x, order = self.constant(node.inputs[0]), node.attributes.get("perm")
        if x is None or node.kind != "Transpose":
            return x
        return x.permute(order) if isinstance(order, tuple) else x.permute(*range(x.ndim)[::-1])

    def whole(self, value: str) -> list[int]:
        """The whole numbers of a constant, or of constants put together; 0 for what is computed."""
        node = self.made.get(value)
        if node is not None and node.kind == "Concat":
            return [number for part in node.inputs for number in self.whole(part)]
        x = self.constant(value)
        return [0] if x is None else [int(number) for number in x.flatten()[:16]]

    def following(self, kinds: Collection[str], *values: str) -> Iterator[str]:
        """``values``, and all that operations of ``kinds`` make of them, the nearest first."""
        found, seen = [*values], {*values}
        for one in found:
            yield one
            for node in self.users(one):
                if node.kind in kinds and not seen.issuperset(node.outputs) and len(seen) < _REACH:
                    seen.update(node.outputs)
                    found += [made for made in node.outputs if made]

    def between(self, start: str, end: str) -> list[Node]:
        """The nodes on the ways from ``start`` to ``end``, and those that lead to ``end`` alone."""
        found, seen = list[Node](), {start}
        left = [end]
        while left and len(found) < _REACH:
            if (value := left.pop()) not in seen and (node := self.made.get(value)) is not None:
                seen.add(value)
                found.append(node)
                left += node.inputs
        return found

    def linears(self, value: str) -> list[Linear]:
        """The linear maps that read ``value``, or what is the same in another shape."""
        return [
            linear
            for same in self.following(SAME, value)
            for node in self.users(same)
            if node.kind in ("MatMul", "Gemm") and node.inputs[0] == same and (linear := self._linear(node)) is not None
        ]

    def _linear(self, node: Node) -> Linear | None:
        weight = self.constant(node.inputs[1])
        if weight is None or weight.ndim != 2:
            return None
        if node.kind == "MatMul" or not node.attributes.get("transB"):
            weight = weight.T
        (reads, _, *biases), output, bias = node.inputs, node.outputs[0], None
        if biases:
            bias = self.constant(biases[0])
        elif (added := self.with_vector(output, "Add")) is not None:
            bias, output = added
        return Linear(weight, torch.zeros(len(weight)) if bias is None else bias, reads, output)

    def with_vector(self, value: str, kind: str) -> tuple[Tensor, str] | None:
        """The constant vector that ``value`` is multiplied with, or that is added to it, and the result."""
        for node in self.users(value):
            others = [x for one in node.inputs if one != value and (x := self.constant(one)) is not None]
            if node.kind == kind and others and others[0].numel() == others[0].shape[-1:].numel() > 1:
                return others[0].flatten(), node.outputs[0]
        return None

    def norms(self, value: str) -> list[Norm]:
        """The layer norms of ``value``, also where they are written as means, differences and roots."""
        nodes = [node for same in self.following(("Cast", "Identity"), value) for node in self.users(same)]
        found = (self._norm(node) if node.kind == "LayerNormalization" else self._written_norm(node) for node in nodes)
        return [norm for norm in found if norm is not None]

    def _norm(self, node: Node) -> Norm | None:
        weight, eps = self.constant(node.inputs[1]), node.attributes.get("epsilon", 1e-5)
        if weight is None or not isinstance(eps, float):
            return None
        bias = self.constant(node.inputs[2]) if len(node.inputs) > 2 else None
        return Norm(weight, torch.zeros_like(weight) if bias is None else bias, _round(eps), node.outputs[0])

    def _written_norm(self, difference: Node) -> Norm | None:
        mean = self.made.get(difference.inputs[1]) if difference.kind == "Sub" else None
        if mean is None or mean.kind != "ReduceMean":
            return None
        for ratio in (node for node in self.users(difference.outputs[0]) if node.kind == "Div"):
            root = self.made.get(ratio.inputs[1])
            total = self.made.get(root.inputs[0]) if root is not None and root.kind == "Sqrt" else None
            if total is None or total.kind != "Add":
                continue
            eps = next((x for value in total.inputs if (x := self.constant(value)) is not None), None)
            scaled = self.with_vector(ratio.outputs[0], "Mul")
            shifted = self.with_vector(scaled[1], "Add") if scaled is not None else None
            if eps is not None and scaled is not None and shifted is not None:
                return Norm(scaled[0], shifted[0], _round(float(eps)), shifted[1])
        return None

    def part(self, value: str, made: Sequence[str], steps: int = 0) -> Part | None:
        """Which of the values ``made`` became ``value`` by nothing but shapes, parts and factors; None if none did."""
        if value in made:
            return Part(made.index(value))
        node = self.made.get(value)
        if node is None or steps > _REACH or node.kind not in (*SAME, "Gather", "Slice", "Split", "Mul", "Div"):
            return None
        if node.kind in ("Mul", "Div"):
            constants = [x for one in node.inputs if (x := self.constant(one)) is not None]
            if any(x.numel() > 1 for x in constants):
                return None
            parts = (self.part(one, made, steps + 1) for one in node.inputs if self.constant(one) is None)
            return next((part for part in parts if part is not None), None)
        if (part := self.part(node.inputs[0], made, steps + 1)) is None:
            return None
        if node.kind == "Reshape" and not part.shape:
            return replace(part, shape=tuple(self.whole(node.inputs[1])))
        if node.kind in SAME:
            return part
        take = node.outputs.index(value) if node.kind == "Split" else self.whole(node.inputs[1])[0]
        return replace(part, takes=(*part.takes, take), taken_first=part.taken_first or not part.shape)

    def rows(self, value: str, width: int) -> Rows | None:
        """The constant tokens that a value is made of; None where it depends on the input's numbers."""
        if (x := self.constant(value)) is not None:
            rows = _as_rows(x, width)
            return None if rows is None else Rows(rows)
        node = self.made.get(value)
        if node is None:
            return None
        parts = [self.rows(one, width) for one in (node.inputs if node.kind in ("Concat", "Add") else node.inputs[:1])]
        known = [part for part in parts if part is not None]
        if not parts or len(known) < len(parts):
            return None
        rows = known[0].rows
        resize: Resize | None = next((part.resize for part in known if part.resize), None)
        match node.kind:
            case "Concat":
                rows = torch.cat([part.rows for part in known])
            case "Add":
                rows = known[0].rows + known[1].rows
            case "Slice":
                start, end = self.whole(node.inputs[1])[0], self.whole(node.inputs[2])[0]
                rows = rows[start:end] if end else rows[start:]
            case "Gather":
                if (index := self.constant(node.inputs[1])) is None:
                    return None
                rows = rows[index.flatten()]
            case "Resize":
                resize = _resize(node)
            case kind if kind not in (*SAME, "Expand", "Tile"):
                return None
            case _:
                pass
        return Rows(rows, resize)


def _resize(node: Node) -> Resize:
    told = node.attributes
    mode, coordinates = told.get("mode"), told.get("coordinate_transformation_mode", _HALF_PIXEL[0])
    if mode != b"cubic" or coordinates not in _HALF_PIXEL:
        raise NotPlainError(f"{node.name} resizes positions by {mode!r} at {coordinates!r}, here they are by b'cubic'")
    return "antialiased" if told.get("antialias") else "cubic"


def _as_rows(x: Tensor, width: int) -> Tensor | None:
    """Tokens (N, D) of (..., D) or of a picture (1, D, h, w); of a batch whose examples are all the same, one."""
    if x.ndim == 4 and x.shape[:2] == (1, width):
        return x[0].flatten(1).T.float()
    if not x.ndim or x.shape[-1] != width or (x.ndim == 3 and not torch.equal(x, x[:1].expand_as(x))):
        return None
    return (x[0] if x.ndim == 3 else x).reshape(-1, width).float()


def _round(eps: float) -> float:
    """An epsilon as it was written, before it became a float of 32 bits."""
    return float(f"{eps:.6g}")
