"""What a model costs, counted without allocating it: tokens, parameters, multiply-adds and activations.

Multiply-adds are those of every matrix product (the attention's two included) for one clip; element-wise work is left
out. The papers call one multiply-add a FLOP.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from tubelet.models.model import Model, ModelConfig
from tubelet.nn.blocks import Block, Transformer
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

    ``tokens`` enter the first block, special tokens included. ``activation_bytes``: what a training step keeps for the
    backward pass in float32, under the fused attention kernel. ``parameter_bytes``: float32.
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


def cost(config: ModelConfig, classes: int = 400) -> Cost:
    """Count ``config`` with one linear head of ``classes`` classes."""
    with torch.device("meta"):
        encoder = config.build()
        model = Model(encoder, {"head": LinearHead(encoder.width, classes)}).train()
    shapes = {name: input_shape(spec) for name, spec in config.inputs.items()}
    tokens, flops = _count(model, shapes)
    parts = tuple(_parts(model, flops))
    return Cost(
        inputs=shapes,
        tokens=tokens,
        parameters=sum(p.numel() for p in model.parameters()),
        multiply_adds=flops["Global"] // 2,
        activation_bytes=_activation_bytes(model, shapes),
        parts=parts,
    )


def input_shape(spec: InputSpec) -> tuple[int, ...]:
    """The shape of one example: (C, H, W), (T, C, H, W), or (T, M) of a spectrogram."""
    match spec:
        case ImageSpec():
            return (spec.channels, *spec.size)
        case VideoSpec():
            return (spec.frames, spec.channels, *spec.size)
        case SpectrogramSpec():
            return (spec.frames, spec.bins)


def _count(model: Model, shapes: dict[str, tuple[int, ...]]) -> tuple[int, dict[str, int]]:
    """The tokens that enter the first block, and the FLOPs (two per multiply-add) of every module by name."""
    tokens: list[int] = []

    def first_block(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        tokens.append(args[0].numel() // args[0].shape[-1])

    block = next(module for module in model.modules() if isinstance(module, Block))
    handle = block.register_forward_pre_hook(first_block)
    inputs = {name: torch.empty(1, *shape, device="meta") for name, shape in shapes.items()}
    with FlopCounterMode(display=False) as counter:
        model(inputs, "head")
    handle.remove()
    return tokens[0], {name: sum(ops.values()) for name, ops in counter.get_flop_counts().items()}


def _parts(model: Model, flops: dict[str, int]) -> Iterator[Part]:
    """The encoder's children, those that hold several transformers opened up, and the head."""
    for name, module in _open(model.encoder, "encoder"):
        parameters = sum(p.numel() for p in module.parameters())
        if parameters:
            yield Part(name=name, parameters=parameters, multiply_adds=flops.get(f"Model.{name}", 0) // 2)
    head = model.heads["head"]
    yield Part(
        name="head",
        parameters=sum(p.numel() for p in head.parameters()),
        multiply_adds=flops.get("Model.heads.head", 0) // 2,
    )


def _open(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    for child_name, child in module.named_children():
        stacks = sum(isinstance(part, Transformer) for part in child.modules())
        path = f"{name}.{child_name}"
        if stacks > 1:
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
