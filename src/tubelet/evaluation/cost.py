"""What a model costs, counted without allocating it: tokens, parameters, multiply-adds and activations.

Multiply-adds are those of every matrix product (the attention's two included) for one clip; element-wise work is left
out. The papers call one multiply-add a FLOP.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from tubelet.models.model import Model, ModelConfig
from tubelet.nn.blocks import Block, Stack
from tubelet.nn.heads import LinearHead
from tubelet.specs import ImageSpec, InputSpec, SpectrogramSpec, VideoSpec


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of the model, by its name in the model: its learned numbers and its multiply-adds."""

    name: str
    parameters: int
    multiply_adds: int


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The cost of one example at batch size 1.

    ``tokens`` enter the first block, special tokens included. ``parameters``: the model's, also where a pass uses only
    a part of them; ``parts`` are those that it uses. ``activation_bytes``: what a training step keeps for the backward
    pass in float32, under the fused attention kernel. ``parameter_bytes``: float32.
    """

    inputs: dict[str, tuple[int, ...]]
    tokens: int
    parameters: int
    multiply_adds: int
    activation_bytes: int
    parts: tuple[Part, ...]

    @property
    def parameter_bytes(self) -> int:
        return 4 * self.parameters

    @property
    def used_parameters(self) -> int:
        return sum(part.parameters for part in self.parts)


def costs(config: ModelConfig, classes: int = 400) -> list[Cost]:
    """The cost of every set of inputs that ``config`` takes: one, or one for each modality of a PolyViT."""
    return [cost(config, classes, inputs) for inputs in config.input_sets]


def cost(config: ModelConfig, classes: int = 400, inputs: Sequence[str] = ()) -> Cost:
    """Count ``config`` with one linear head of ``classes`` classes on ``inputs``, which a model of one set need not be
    told."""
    if not inputs and len(config.input_sets) > 1:
        raise ValueError(f"say which inputs: {', '.join(' and '.join(names) for names in config.input_sets)}")
    model = _unallocated(config, classes)
    shapes = {name: input_shape(config.inputs[name]) for name in inputs or config.inputs}
    tokens, flops, used = _count(model, shapes)
    parts = tuple(_parts(model, flops, used))
    return Cost(
        inputs=shapes,
        tokens=tokens,
        parameters=_numbers(model),
        multiply_adds=flops["Global"] // 2,
        activation_bytes=_activation_bytes(model, shapes),
        parts=parts,
    )


def parameters(config: ModelConfig, classes: int) -> int:
    """The learned numbers of ``config`` with one linear head of ``classes`` classes."""
    return _numbers(_unallocated(config, classes))


def _unallocated(config: ModelConfig, classes: int) -> Model:
    with torch.device("meta"):
        encoder = config.build()
        return Model(encoder, {"head": LinearHead(encoder.width, classes)}).train()


def _numbers(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def input_shape(spec: InputSpec) -> tuple[int, ...]:
    """The shape of one example: (C, H, W), (T, C, H, W), or (T, M) of a spectrogram."""
    match spec:
        case ImageSpec():
            return (spec.channels, *spec.size)
        case VideoSpec():
            return (spec.frames, spec.channels, *spec.size)
        case SpectrogramSpec():
            return (spec.frames, spec.bins)


def _count(model: Model, shapes: dict[str, tuple[int, ...]]) -> tuple[int, dict[str, int], set[str]]:
    """The tokens that enter the first block, the FLOPs (two per multiply-add) of every module by name, and the names of
    the modules that are used."""
    tokens: list[int] = []
    used: set[str] = set()

    def watch(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def before(module: nn.Module, args: tuple[Any, ...]) -> None:
            used.add(name)
            if isinstance(module, Block):
                tokens.append(args[0].numel() // args[0].shape[-1])

        return before

    handles = [module.register_forward_pre_hook(watch(name)) for name, module in model.named_modules()]
    inputs = {name: torch.empty(1, *shape, device="meta") for name, shape in shapes.items()}
    with FlopCounterMode(display=False) as counter:
        model(inputs, "head")
    for handle in handles:
        handle.remove()
    return tokens[0], {name: sum(ops.values()) for name, ops in counter.get_flop_counts().items()}, used


def _parts(model: Model, flops: dict[str, int], used: Collection[str]) -> Iterator[Part]:
    """The encoder's children that are used, those that hold several stacks opened up, and the head."""
    for name, module in _open(model.encoder, "encoder"):
        if (count := _numbers(module)) and name in used:
            yield Part(name=name, parameters=count, multiply_adds=flops.get(f"Model.{name}", 0) // 2)
    head, multiply_adds = model.heads["head"], flops.get("Model.heads.head", 0) // 2
    yield Part(name="head", parameters=_numbers(head), multiply_adds=multiply_adds)


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
        inputs = {name: torch.empty(1, *shape) for name, shape in shapes.items()}
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            functional_call(model, state, (inputs, "head"))
        given = {id(x.untyped_storage()) for x in (*state.values(), *inputs.values())}
        return sum(storage.nbytes() for key, storage in kept.items() if key not in given)
