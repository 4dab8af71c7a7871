"""Parameters by name: each is used once, a missing one is an error, and the unused ones are known.

One table serves both ways: what :func:`rearranged`, :func:`gather` and :func:`gather_blocks` read by it,
:func:`restored`, :func:`scatter` and :func:`scatter_blocks` write by it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager

import torch
from einops import rearrange
from torch import Tensor

from tubelet.configs import ConfigError, nearest
from tubelet.weights.files import WeightsError, reason
from tubelet.weights.loaded import listed

Leaf = Callable[[str], tuple[Tensor, Tensor]]
Places = Mapping[str, tuple[str, str]]
"""By our names: a foreign parameter, and how its axes become ours, as einops writes it."""


class Tree:
    """``arrays`` by their names; ``origin`` is the file, for errors."""

    def __init__(self, arrays: Mapping[str, Tensor], origin: str) -> None:
        self.arrays, self._left, self.origin = arrays, dict.fromkeys(arrays), origin

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def has(self, prefix: str) -> bool:
        """Whether any name begins with ``prefix``."""
        return any(name.startswith(prefix) for name in self.arrays)

    def check_made(self, what: str, *shape: int) -> None:
        """Raise WeightsError before ``what`` is made from a claim, if it would be more than all that the file holds."""
        if math.prod(shape) > sum(x.numel() for x in self.arrays.values()):
            raise WeightsError(f"{self.origin}: the {what} that it describes, {shape}, are more than all its weights")

    def shape(self, name: str, axes: int | None = None) -> tuple[int, ...]:
        """Its shape. Raises WeightsError unless it has so many ``axes``, where they are given."""
        shape = tuple(self._find(name).shape)
        if axes is not None and len(shape) != axes:
            raise WeightsError(f"{self.origin}: {name} has shape {shape}, which should have {axes} axes")
        return shape

    def take(self, name: str) -> Tensor:
        self._left.pop(name, None)
        return self._find(name)

    def _find(self, name: str) -> Tensor:
        if name not in self.arrays:
            raise WeightsError(f"{self.origin}: no parameter {name!r}{nearest(name, self.arrays)}")
        return self.arrays[name]

    def layer(self, name: str) -> tuple[Tensor, Tensor]:
        """The weight and the bias of a PyTorch layer."""
        return self.take(f"{name}.weight"), self.take(f"{name}.bias")

    def layer_or_unbiased(self, name: str) -> tuple[Tensor, Tensor]:
        """:meth:`layer`, for an architecture that may leave biases out: those are zero."""
        if f"{name}.bias" in self:
            return self.layer(name)
        weight = self.take(f"{name}.weight")
        return weight, weight.new_zeros(weight.shape[0])

    def count(self, pattern: str) -> int:
        """How many consecutive numbers, from 0, ``pattern`` has: ``count("blocks.{}.norm1.weight")``."""
        number = 0
        while pattern.format(number) in self.arrays:
            number += 1
        return number

    @property
    def left(self) -> tuple[str, ...]:
        """The parameters that were not used."""
        return tuple(self._left)

    def finish(self, may_drop: Sequence[str] = ()) -> tuple[str, ...]:
        """The parameters that were not used. Raises WeightsError unless their names start with one of ``may_drop``."""
        left = self.left
        unknown = [f"{n} {tuple(self.arrays[n].shape)}" for n in left if not n.startswith(tuple(may_drop))]
        if unknown:
            raise WeightsError(
                f"{self.origin}: another architecture than this library's; it has no place for {listed(unknown)}"
            )
        return left


@contextmanager
def foreign(origin: str) -> Generator[None]:
    """Raises WeightsError for whatever goes wrong in here: another library's weights have the shapes that its reader
    takes apart and puts together, or they are no such weights."""
    try:
        yield
    except WeightsError:
        raise
    except ConfigError as error:
        raise WeightsError(f"{origin}: {error}") from None
    except Exception as error:
        raise WeightsError(f"{origin}: no architecture that is known here has its shapes ({reason(error)})") from error


def gather(table: Mapping[str, Sequence[str]], leaf: Leaf, prefix: str = "") -> dict[str, Tensor]:
    """Weights and biases by our names. ``table`` says which foreign layers make up each of ours, row after row."""
    state: dict[str, Tensor] = {}
    for ours, theirs in table.items():
        weights, biases = zip(*map(leaf, theirs), strict=True)
        state[f"{prefix}{ours}.weight"], state[f"{prefix}{ours}.bias"] = torch.cat(weights), torch.cat(biases)
    return state


def gather_blocks(
    table: Mapping[str, Sequence[str]], leaf: Leaf, theirs: str, depth: int, prefix: str
) -> dict[str, Tensor]:
    """:func:`gather` for every block of a stack; ``theirs`` is a foreign block's name with "{}" for its number."""
    state: dict[str, Tensor] = {}
    for i in range(depth):
        numbered = {ours: [theirs.format(i) + name for name in names] for ours, names in table.items()}
        state |= gather(numbered, leaf, f"{prefix}transformer.blocks.{i}.")
    return state


def rearranged(places: Places, tree: Tree, theirs: str = "") -> dict[str, Tensor]:
    """The parameters of ``places`` by our names. ``theirs`` is what all foreign names begin with."""
    return {ours: rearrange(tree.take(theirs + name), axes) for ours, (name, axes) in places.items()}


def restored(places: Places, tree: Tree, theirs: str = "", **sizes: int) -> dict[str, Tensor]:
    """The inverse of :func:`rearranged`, from our parameters. ``sizes``: of the axes that ours put together."""
    state: dict[str, Tensor] = {}
    for ours, (name, axes) in places.items():
        before, after = (side.strip() for side in axes.split("->"))
        known = {axis: size for axis, size in sizes.items() if axis in before.split()}
        state[theirs + name] = rearrange(tree.take(ours), f"{after} -> {before}", **known)
    return state


def scatter(table: Mapping[str, Sequence[str]], leaf: Leaf, prefix: str = "") -> dict[str, Tensor]:
    """The inverse of :func:`gather`: weights and biases by foreign names. ``leaf`` gives ours, which begin with
    ``prefix``; each is split into equal parts, one per foreign layer."""
    state: dict[str, Tensor] = {}
    for ours, theirs in table.items():
        weight, bias = leaf(f"{prefix}{ours}")
        for name, w, b in zip(theirs, weight.chunk(len(theirs)), bias.chunk(len(theirs)), strict=True):
            state[f"{name}.weight"], state[f"{name}.bias"] = w, b
    return state


def scatter_blocks(
    table: Mapping[str, Sequence[str]], leaf: Leaf, theirs: str, depth: int, prefix: str
) -> dict[str, Tensor]:
    """The inverse of :func:`gather_blocks`."""
    state: dict[str, Tensor] = {}
    for i in range(depth):
        numbered = {ours: [theirs.format(i) + name for name in names] for ours, names in table.items()}
        state |= scatter(numbered, leaf, f"{prefix}transformer.blocks.{i}.")
    return state
