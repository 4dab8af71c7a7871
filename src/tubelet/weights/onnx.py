"""ONNX files: the graph of a model, its nodes and the numbers that they use.

Read without ONNX's library: a file is a protocol buffer, of which constants, nodes, inputs and outputs are of interest.
Numbers are mapped, what they claim of their shape is compared with what is there, and nothing is computed.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tubelet.configs import shown
from tubelet.weights.files import MOST_NAMES, WeightsError, check_file, looks_like
from tubelet.weights.protobuf import View, fields, varint

Attribute = int | float | bytes | Tensor | tuple[int, ...]

_DTYPES = {1: torch.float32, 7: torch.int64, 10: torch.float16, 11: torch.float64, 16: torch.bfloat16}
_GRAPH, _APART = 7, 1
# Far more than any model has: fields of all messages, bytes of a name.
_FIELDS, _NAME = 4_000_000, 1000


@dataclass(frozen=True)
class Node:
    """An operation: ``kind`` is ONNX's name of it; ``inputs`` and ``outputs`` are names of values."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute]


class Graph(dict[str, Tensor]):
    """The constants of a graph by name, its ``nodes`` in the order of the file, and its ends.

    ``inputs``: the sizes of each, 0 where the file leaves them open; ``outputs``: their names. Constants that are
    neither floats nor whole numbers of 64 bits are left out.
    """

    def __init__(
        self,
        constants: Mapping[str, Tensor],
        nodes: tuple[Node, ...],
        inputs: Mapping[str, tuple[int, ...]],
        outputs: tuple[str, ...],
    ) -> None:
        super().__init__(constants)
        self.nodes, self.inputs, self.outputs = nodes, inputs, outputs


def read_onnx(path: Path) -> Graph:
    """The graph of an ONNX file. Numbers may also lie in a file beside it, as PyTorch's exporter puts them.

    Raises WeightsError, also where a file is named that does not lie beside it.
    """
    try:
        return _Reader(path).graph()
    except WeightsError:
        raise
    except (ValueError, IndexError, OverflowError, RuntimeError, OSError, struct.error) as error:
        fault = looks_like(path) or error
        raise WeightsError(f"{path}: no whole ONNX file ({fault}); fetch it again, or export it anew") from None


class _Reader:
    """Reads one file, and maps those beside it that its numbers lie in."""

    def __init__(self, path: Path) -> None:
        self._path, self._mapped, self._read = path, dict[str, View](), 0

    def graph(self) -> Graph:
        graphs = [graph for number, graph in self._messages(_mapped(self._path)) if number == _GRAPH]
        if len(graphs) != 1:
            raise ValueError("it has no graph")
        constants: dict[str, Tensor] = {}
        nodes: list[Node] = []
        inputs: dict[str, tuple[int, ...]] = {}
        outputs: list[str] = []
        for number, message in self._messages(graphs[0]):
            match number:
                case 1:
                    nodes.append(self._node(message))
                case 5:
                    name, tensor = self._tensor(message)
                    if tensor is not None:
                        constants[name] = tensor
                case 11:
                    inputs[self._name(message)] = self._sizes(message)
                case 12:
                    outputs.append(self._name(message))
                case _:
                    pass
        return Graph(constants, tuple(nodes), inputs, tuple(outputs))

    def _fields(self, message: View) -> Iterator[tuple[int, int | View]]:
        for field in fields(message):
            self._read += 1
            if self._read > _FIELDS:
                raise ValueError(f"more than {_FIELDS:,} fields")
            yield field

    def _messages(self, message: View) -> Iterator[tuple[int, View]]:
        """The fields that are messages or texts."""
        return ((number, value) for number, value in self._fields(message) if isinstance(value, View))

    def _node(self, message: View) -> Node:
        texts: dict[int, list[str]] = {1: [], 2: [], 3: [], 4: []}
        attributes: dict[str, Attribute] = {}
        for number, value in self._messages(message):
            if number in texts:
                texts[number].append(_text(value))
            elif number == 5:
                name, attribute = self._attribute(value)
                if attribute is not None:
                    attributes[name] = attribute
        inputs, outputs, name, kind = texts.values()
        return Node("".join(name), "".join(kind), tuple(inputs), tuple(outputs), attributes)

    def _attribute(self, message: View) -> tuple[str, Attribute | None]:
        name, value, numbers = "", None, list[int]()
        for number, field in self._fields(message):
            match number, field:
                case 1, View():
                    name = _text(field)
                case 2, int():
                    (value,) = struct.unpack("<f", field.to_bytes(4, "little"))
                case 3, int():
                    value = _signed(field)
                case 4, View():
                    value = bytes(field[:_NAME])
                case 5, View():
                    value = self._tensor(field)[1]
                case 8, _:
                    numbers += _numbers(field)
                case _:
                    pass
        return name, tuple(numbers) if numbers else value

    def _name(self, message: View) -> str:
        """The name of an input or output."""
        return next((_text(value) for number, value in self._messages(message) if number == 1), "")

    def _sizes(self, message: View) -> tuple[int, ...]:
        """The sizes of an input or output; 0 where they are open."""
        inside = [message]
        for wanted in (2, 1, 2, 1):  # its type, a tensor's, its shape, each size
            inside = [value for outer in inside for number, value in self._messages(outer) if number == wanted]
        told = (dict(self._fields(dim)).get(1, 0) for dim in inside)
        return tuple(size if isinstance(size, int) else 0 for size in told)

    def _tensor(self, message: View) -> tuple[str, Tensor | None]:
        """A constant's name and numbers; None where they are of a type that is of no interest."""
        shape, whole, name, kind = list[int](), list[int](), "", 0
        data, apart, elsewhere = View(b""), False, dict[str, str]()
        for number, value in self._fields(message):
            match number, value:
                case 1, _:
                    shape += _numbers(value)
                case 2, int():
                    kind = value
                case 7, _:
                    whole += _numbers(value)
                case 8, View():
                    name = _text(value)
                case ((4 | 9 | 10), View()):
                    data = value
                case 13, View():
                    key, told = (_text(text) for _, text in self._messages(value))
                    elsewhere[key] = told
                case 14, int():
                    apart = value == _APART
                case _:
                    pass
        if (dtype := _DTYPES.get(kind)) is None:
            return name, None
        if apart or elsewhere:
            data = self._elsewhere(name, elsewhere)
        values = torch.tensor(whole) if whole else _floats(data, dtype)
        if min(shape, default=0) < 0 or math.prod(shape) != len(values):
            raise ValueError(f"{name} claims the shape {tuple(shape)} for its {len(values):,} numbers")
        return name, values.reshape(shape)

    def _elsewhere(self, name: str, place: Mapping[str, str]) -> View:
        """The numbers of a constant that lie in a file beside this one."""
        file, offset, length = place.get("location", ""), int(place.get("offset", "0")), int(place.get("length", "-1"))
        if not file or file != Path(file).name or file == "..":
            raise ValueError(f"{name} lies in {shown(file)}, and numbers are read from files beside this one alone")
        if file not in self._mapped:
            self._mapped[file] = _mapped(self._path.with_name(file))
        data = self._mapped[file]
        if offset < 0 or length < 0 or offset + length > len(data):
            raise ValueError(f"{name} lies at {offset:,} of {file}, which is not there")
        return data[offset : offset + length]


def _mapped(path: Path) -> View:
    check_file(path)
    with path.open("rb") as file:
        return View(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))  # torch wants what could be written


def _floats(data: View, dtype: torch.dtype) -> Tensor:
    if len(data) % dtype.itemsize:
        raise ValueError(f"{len(data):,} bytes, which are no {dtype}")
    return torch.frombuffer(data, dtype=dtype) if len(data) else torch.empty(0, dtype=dtype)


def _text(data: View) -> str:
    if len(data) > _NAME:
        raise ValueError(f"a name longer than {_NAME:,} bytes")
    return str(data, "utf-8")


def _numbers(field: int | View) -> list[int]:
    """Whole numbers: one, or several packed."""
    if isinstance(field, int):
        return [_signed(field)]
    if len(field) > MOST_NAMES:
        raise ValueError(f"a list of numbers longer than {MOST_NAMES:,} bytes")
    found, at = list[int](), 0
    while at < len(field):
        value, at = varint(field, at)
        found.append(_signed(value))
    return found


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value
