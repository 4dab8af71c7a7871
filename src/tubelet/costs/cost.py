"""The cost of a model, counted without allocating it: tokens, parameters, multiply-adds and activations.

Multiply-adds are those of all matrix products (including the two of attention) for one clip; element-wise operations
are not counted. The papers call one multiply-add a FLOP.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from tubelet.models import Model, ModelConfig
from tubelet.nn.blocks import Block, Stack
from tubelet.nn.heads import LinearHead

_PARALLEL = re.compile(r"\b(streams|modalities)\.[^.]+")


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of the model, by its name in the model: its parameters and its multiply-adds."""

    name: str
    parameters: int
    multiply_adds: int


@dataclass(frozen=True, kw_only=True)
class Work:
    """The work for one example at batch size 1.

    ``tokens``: those that enter the first blocks, special tokens included, of all streams or modalities.
    ``parameters``: those of the whole model, even if a pass uses only some of them; ``parts`` lists those that it uses.
    """

    inputs: dict[str, tuple[int, ...]]
    tokens: int
    parameters: int
    multiply_adds: int
    parts: tuple[Part, ...]

    @property
    def parameter_bytes(self) -> int:
        """In float32."""
        return 4 * self.parameters

    @property
    def used_parameters(self) -> int:
        return sum(part.parameters for part in self.parts)


@dataclass(frozen=True, kw_only=True)
class Cost(Work):
    """The work, and ``activation_bytes``: what a training step keeps for the backward pass, in float32, with the fused
    attention kernel.
    """

    activation_bytes: int


def costs(config: ModelConfig, classes: int = 400) -> list[Cost]:
    """The cost for every set of inputs that ``config`` takes: one, or one for each modality of a PolyViT. Where any may
    be missing: of all of them, and of each alone."""
    sets = config.input_sets
    if config.may_miss:
        sets = [inputs for inputs in sets if inputs == sets[0] or len(inputs) == 1]
    return [cost(config, classes, inputs) for inputs in sets]


def cost(config: ModelConfig, classes: int = 400, inputs: Sequence[str] = ()) -> Cost:
    """Count ``config`` with one linear head of ``classes`` classes on ``inputs``, which may be left out if the model
    takes only one set of inputs.
    """
    counted = work(config, classes, inputs)
    return Cost(
        **vars(counted), activation_bytes=_activation_bytes(_unallocated(config, classes, inputs), counted.inputs)
    )


def work(config: ModelConfig, classes: int = 400, inputs: Sequence[str] = ()) -> Work:
    """:func:`cost` without the bytes of activations, which take most of the time to count."""
    if not inputs and len(config.input_sets) > 1:
        raise ValueError(f"say which inputs: {', '.join(' and '.join(names) for names in config.input_sets)}")
    model = _unallocated(config, classes, inputs)
    shapes = {name: config.inputs[name].shape for name in inputs or config.inputs}
    count = _Count(model)
    count.run(shapes)
    return Work(
        inputs=shapes,
        tokens=count.first_tokens(),
        parameters=_numbers(model),
        multiply_adds=sum(count.products.values()),
        parts=tuple(_parts(model, count.products)),
    )


def parameters(config: ModelConfig, classes: int) -> int:
    """The number of parameters of ``config`` with one linear head of ``classes`` classes."""
    return _numbers(_unallocated(config, classes))


def _unallocated(config: ModelConfig, classes: int, inputs: Sequence[str] = ()) -> Model:
    """The head is for the first of ``inputs``, whose features are the result where inputs have their own."""
    with torch.device("meta"), _NoInitialization():
        encoder = config.build()
        first = next(name for name in config.inputs if name in (inputs or config.inputs))
        return Model(encoder, {"head": LinearHead(encoder.widths[first], classes)}).train()


class _NoInitialization(TorchFunctionMode):
    """Skips the random initialization, which takes long even on the meta device."""

    _DRAWS = (Tensor.normal_, Tensor.uniform_, nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        return (*args, *kwargs.values())[0] if func in self._DRAWS else func(*args, **kwargs)


def _inputs(model: Model, shapes: Mapping[str, tuple[int, ...]], device: str | None = None) -> dict[str, Tensor]:
    """Inputs of no particular numbers; ids of words are integers."""
    kinds = {name: torch.int64 if model.encoder.inputs[name].integers else torch.float32 for name in shapes}
    return {name: torch.empty(1, *shape, dtype=kinds[name], device=device) for name, shape in shapes.items()}


def _numbers(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


class _Count:
    """One forward pass of a model on the meta device. Of equal blocks only one runs for each shape of input.

    ``products``: the multiply-adds of every module that is used, by name, without those of the modules that it calls.
    """

    def __init__(self, model: Model) -> None:
        self.model, self.products = model, Counter[str]()
        self._tokens = Counter[str]()  # that enter each block
        self._running: list[str] = []
        self._counted = 0
        self._known: dict[tuple[object, ...], int] = {}

    def run(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Call this once only: it changes the blocks of the model."""
        inputs = _inputs(self.model, shapes, "meta")
        with FlopCounterMode(display=False) as counter:
            for name, module in self.model.named_modules():
                module.register_forward_pre_hook(partial(self._enter, counter, name))
                module.register_forward_hook(partial(self._leave, counter))
                if isinstance(module, Block):
                    module.forward = partial(self._block, counter, name, module, module.forward)
            self.model(inputs, "head")

    def first_tokens(self) -> int:
        """The number of tokens that enter the first block, of all streams or modalities together."""
        parallel = {name: _PARALLEL.sub(r"\1.*", name) for name in self._tokens}
        first = next(iter(parallel.values()))
        return sum(self._tokens[name] for name, pattern in parallel.items() if pattern == first)

    def _enter(self, counter: FlopCounterMode, name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        self._add(counter)
        self._running.append(name)
        self.products[name] += 0
        block = name if isinstance(module, Block) else name.removesuffix(".norm_attention")
        inside = isinstance(module, Block) or (block != name and block not in self._running)
        if inside:
            self._tokens[block] += args[0].numel() // args[0].shape[-1]

    def _leave(self, counter: FlopCounterMode, *_: object) -> None:
        self._add(counter)
        self._running.pop()

    def _add(self, counter: FlopCounterMode) -> None:
        """Attribute what was counted since the last call to the module that runs now."""
        now = counter.get_total_flops() // 2
        if self._running:
            self.products[self._running[-1]] += now - self._counted
        self._counted = now

    def _block(
        self,
        counter: FlopCounterMode,
        name: str,
        block: Block,
        forward: Callable[..., Tensor],
        x: Tensor,
        *bias: Tensor,
    ) -> Tensor:
        parts = tuple((n, p.shape) for n, p in block.named_parameters())
        alike = (type(block), block.attention.heads, parts, x.shape)
        if alike in self._known:
            self.products[name] += self._known[alike]
            return x
        before = counter.get_total_flops()
        y = forward(x, *bias)
        self._known[alike] = (counter.get_total_flops() - before) // 2
        return y


def _parts(model: Model, products: Mapping[str, int]) -> Iterator[Part]:
    """The encoder's children that are used, those that hold several stacks opened up, its own numbers, and the head."""
    for name, parameter in model.encoder.named_parameters(recurse=False):
        yield Part(name=f"encoder.{name}", parameters=parameter.numel(), multiply_adds=0)
    for name, module in [*_open(model.encoder, "encoder"), ("heads.head", model.heads["head"])]:
        inner = [n for n in products if n == name or n.startswith(f"{name}.")]
        if (count := _numbers(module)) and inner:
            multiply_adds = sum(products[n] for n in inner)
            yield Part(name=name.removeprefix("heads."), parameters=count, multiply_adds=multiply_adds)


def _open(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    for child_name, child in module.named_children():
        stacks = sum(isinstance(part, Stack) for part in child.modules())
        path = f"{name}.{child_name}"
        if stacks > 1 or isinstance(child, nn.ModuleDict):
            yield from _open(child, path)
        else:
            yield path, child


def _activation_bytes(model: Model, shapes: dict[str, tuple[int, ...]]) -> int:
    """Bytes that autograd saves in one forward pass, each storage once, parameters left out."""
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        kept[id(storage)] = storage
        return x

    with FakeTensorMode():
        state = {name: torch.empty(p.shape, requires_grad=True) for name, p in model.named_parameters()}
        state |= {name: torch.empty(b.shape) for name, b in model.named_buffers()}
        inputs = _inputs(model, shapes)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            functional_call(model, state, (inputs, "head"))
        given = {id(x.untyped_storage()) for x in (*state.values(), *inputs.values())}
        return sum(storage.nbytes() for key, storage in kept.items() if key not in given)
