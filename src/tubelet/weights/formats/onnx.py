"""The ViT inside an ONNX file, whoever exported it and whatever stands behind it.

Exporters rename, transpose and merge parameters, so that names say little. What a constant is for, the graph says: from
the convolution of patches on, the stream of tokens is followed through norms, attention and MLPs to the last norm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from tubelet.cards import ClassCard
from tubelet.models import ModelConfig
from tubelet.models.vit import ViTConfig
from tubelet.nn.blocks import TransformerConfig
from tubelet.specs import ImageSpec
from tubelet.weights.checkpoint import Checkpoint
from tubelet.weights.files import WeightsError
from tubelet.weights.formats.huggingface import filled
from tubelet.weights.formats.onnx_flow import SAME, Flow, Linear, Norm, NotPlainError, Rows
from tubelet.weights.formats.tree import foreign
from tubelet.weights.loaded import LoadedModel
from tubelet.weights.onnx import Graph, Node

LOADS = "the plain ViT in an ONNX file"

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_TO_SCORES = (*SAME, "Gather", "Split", "Slice", "Mul", "Div", "Add", "Neg", "Concat", "MatMul")
_KEPT = ("Cast", "Identity", "Dropout", "Where")  # what stands between a softmax and the product with the values
_ACTIVATION = (*SAME, "Div", "Mul", "Add", "Pow", "Erf", "Tanh", "Gelu", "Sigmoid")
Gelu = Literal["exact", "tanh", "quick"]


def recognizes(checkpoint: Checkpoint) -> bool:
    return not checkpoint.config and isinstance(checkpoint.tensors, Graph)


def read(checkpoint: Checkpoint) -> LoadedModel:
    """A ViT; a classifier that reads the class token, or the mean where there is none, is the task "label".

    Whatever else the file has is dropped. It says nothing of how pictures are scaled: ImageNet's mean and deviation are
    taken, and the size that the file asks for, else that of its positions; where ``like`` is a ViT of the same patches,
    its ImageSpec. Raises WeightsError, naming the operation, where the graph is no plain ViT's.
    """
    graph = checkpoint.tensors
    assert isinstance(graph, Graph)
    with foreign(checkpoint.origin):
        try:
            found = _Reading(Flow(graph))
            config, told = found.config(checkpoint.like)
        except NotPlainError as error:
            raise WeightsError(f"{checkpoint.origin}: holds no plain ViT: {error}") from None
        encoder, heads = found.encoder(config), found.heads()
        dropped = tuple(
            name for name, x in graph.items() if x.is_floating_point() and x.ndim and name not in found.used
        )
    count = len(heads.get("label.projection.bias", ()))
    tasks = {"label": ClassCard(classes=tuple(map(str, range(count))))} if count else {}
    loaded = filled(checkpoint, config, tasks, encoder, heads, dropped)
    return replace(loaded, provenance={**loaded.provenance, "preprocessing": told})


@dataclass(frozen=True)
class _Patches:
    """The convolution of patches, and the sizes of the pictures that it reads; 0 where the file leaves them open."""

    weight: Tensor
    bias: Tensor
    output: str
    height: int
    width: int


@dataclass(frozen=True)
class _Tokens:
    """What becomes of patches before the first block: the ``special`` tokens before them, the ``places`` that are added
    to the last ``placed`` of those and to the patches, and a norm. ``stream`` is what the first block reads."""

    special: Tensor
    places: Rows
    placed: int
    norm: Norm | None
    stream: str


@dataclass(frozen=True)
class _Attention:
    qkv: tuple[Tensor, Tensor]
    heads: int
    output: str


@dataclass(frozen=True)
class _Branch:
    """The end of a block's half: what is added to the stream, with its layer scale if it has one, and the sum."""

    linear: Linear
    scale: Tensor | None
    output: str


@dataclass(frozen=True)
class _Block:
    norm_attention: Norm
    attention: _Attention
    out: _Branch
    norm_mlp: Norm
    expand: Linear
    gelu: Gelu
    reduce: _Branch


class _Reading:
    """Follows a graph from its picture to the last norm, and a classifier behind it. Raises NotPlainError."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._patches = self._find_patches()
        self._width = len(self._patches.weight)
        self._tokens = self._find_tokens()
        blocks, stream = list[_Block](), self._tokens.stream
        while (block := self._block(stream)) is not None:
            blocks.append(block)
            stream = block.reduce.output
        ends = flow.following(("Gather", "Slice"), stream)  # CLIP's norm is of the class token alone
        if not (norms := [norm for end in ends for norm in flow.norms(end)]):
            raise NotPlainError(
                f"block {len(blocks)} is followed by {self._named(stream)}, and not by a norm or a block"
            )
        self._blocks, self._norm = blocks, norms[0]
        self.used = frozenset(flow.used)
        if (head := self._find_head()) is not None:
            self.used = frozenset(flow.used)
        self._head = head

    def _named(self, value: str) -> str:
        """The operations that read a value, for errors."""
        nodes = self._flow.users(value)
        return ", ".join(f"{node.kind} ({node.name})" for node in nodes[:3]) or "nothing more"

    def _find_patches(self) -> _Patches:
        flow = self._flow
        for name, sizes in flow.graph.inputs.items():
            for value in flow.following(("Cast", "Identity"), name):
                for node in (node for node in flow.users(value) if node.kind == "Conv"):
                    weight = flow.constant(node.inputs[1])
                    if weight is None or not _cuts_patches(node, weight) or len(sizes) != 4:
                        continue
                    bias = flow.constant(node.inputs[2]) if len(node.inputs) > 2 else None
                    bias = weight.new_zeros(len(weight)) if bias is None else bias
                    return _Patches(weight, bias, node.outputs[0], sizes[2], sizes[3])
        raise NotPlainError("no convolution cuts the picture that it takes into patches")

    def _find_tokens(self) -> _Tokens:
        flow, value = self._flow, self._patches.output
        special, places, placed, norm = torch.empty(0, self._width), None, 0, None
        seen = {value}
        while self._first_block(value) is None:
            for node in flow.users(value):
                others = [other for other in node.inputs if other != value]
                if node.kind == "Concat" and node.inputs[-1] == value:
                    parts = [flow.rows(other, self._width) for other in others]
                    if all(part is not None for part in parts):
                        special = torch.cat([*(part.rows for part in parts if part is not None), special])
                        break
                elif node.kind == "Add" and places is None and len(others) == 1:
                    if (places := flow.rows(others[0], self._width)) is not None:
                        placed = len(special)
                        break
                elif node.kind in SAME and node.inputs[0] == value:
                    break
            else:
                if norm is not None or not (norms := flow.norms(value)):
                    raise NotPlainError(f"its patches go into {self._named(value)}, before any block")
                norm, value = norms[0], norms[0].output
                continue
            value = node.outputs[0]
            if value in seen:
                raise NotPlainError("its graph runs in a circle")
            seen.add(value)
        if places is None:
            raise NotPlainError("no table of positions is added to its patches; rotary ones are not read from ONNX")
        return _Tokens(special, places, placed, norm, value)

    def _first_block(self, value: str) -> tuple[Norm, _Attention] | None:
        """The norm of a stream whose result attends, and what that makes."""
        for norm in self._flow.norms(value):
            attention = self._find_attention(self._flow.linears(norm.output))
            if attention is not None:
                return norm, attention
        return None

    def _block(self, stream: str) -> _Block | None:
        if (begun := self._first_block(stream)) is None:
            return None
        norm, attention = begun
        out = self._branch(self._only(self._flow.linears(attention.output), attention.output), stream)
        norms = [n for n in self._flow.norms(out.output) if self._flow.linears(n.output)]
        if not norms:
            raise NotPlainError(f"attention is followed by {self._named(out.output)}, and not by a norm and an MLP")
        expand = self._only(self._flow.linears(norms[0].output), norms[0].output)
        gelu, reduce = self._activation(expand)
        return _Block(norm, attention, out, norms[0], expand, gelu, self._branch(reduce, out.output))

    def _only(self, linears: list[Linear], value: str) -> Linear:
        if len(linears) != 1:
            raise NotPlainError(
                f"one linear map should read {value}, and there are {len(linears)}: {self._named(value)}"
            )
        return linears[0]

    def _find_attention(self, linears: list[Linear]) -> _Attention | None:
        """The attention over what one linear map makes, or three; None where no softmax follows them."""
        flow, made = self._flow, [linear.output for linear in linears]
        reached = (node for value in flow.following(_TO_SCORES, *made) for node in flow.users(value))
        if (node := next((node for node in reached if node.kind in ("Softmax", "Attention")), None)) is None:
            return None
        *qkv, output = self._one_node(node) if node.kind == "Attention" else self._product(node)
        parts = [part for value in qkv if (part := flow.part(value, made)) is not None]
        numbers, takes = [part.number for part in parts], [part.takes for part in parts]
        if len(made) == 3 and sorted(numbers) == [0, 1, 2] and not any(takes):
            order = numbers
        elif len(made) == 1 and len(parts) == 3 and _thirds(takes, self._width) and parts[0].outer in (0, 3):
            order = [0]
        else:
            raise NotPlainError(f"{node.name} does not attend over plain queries, keys and values")
        qkv = [linears[number] for number in order]
        weights = torch.cat([one.weight for one in qkv]), torch.cat([one.bias for one in qkv])
        heads = node.attributes.get("q_num_heads") or parts[0].heads(len(weights[0]) // 3)
        if not isinstance(heads, int) or heads < 1:
            raise NotPlainError(f"nothing tells the heads of the attention of {node.name}")
        return _Attention(weights, heads, output)

    def _one_node(self, node: Node) -> tuple[str, str, str, str]:
        if any(node.inputs[3:]):
            raise NotPlainError(f"{node.name} has a mask, or a past")
        return node.inputs[0], node.inputs[1], node.inputs[2], node.outputs[0]

    def _product(self, softmax: Node) -> tuple[str, str, str, str]:
        """Queries, keys, values and the result of softmax(q k) v; a factor may stand before the softmax."""
        flow = self._flow
        scores = flow.made.get(softmax.inputs[0])
        while scores is not None and (scores.kind in (*SAME, "Mul", "Div") or self._adds_nothing(scores)):
            scores = flow.made.get(next((one for one in scores.inputs if flow.constant(one) is None), ""))
        if scores is None or scores.kind != "MatMul":
            between = f"{scores.kind} ({scores.name})" if scores is not None else "nothing"
            raise NotPlainError(
                f"{between} makes the scores of {softmax.name}: masks and relative positions are not read"
            )
        for value in flow.following(_KEPT, softmax.outputs[0]):
            for node in flow.users(value):
                if node.kind == "MatMul" and node.inputs[0] == value:
                    return scores.inputs[0], scores.inputs[1], node.inputs[1], node.outputs[0]
        raise NotPlainError(f"{self._named(softmax.outputs[0])} reads what {softmax.name} makes")

    def _adds_nothing(self, node: Node) -> bool:
        """Whether what is added is zero: a mask that masks nothing."""
        added = [x for one in node.inputs if (x := self._flow.constant(one)) is not None]
        return node.kind == "Add" and len(added) == 1 and not added[0].any()

    def _activation(self, expand: Linear) -> tuple[Gelu, Linear]:
        """The function between the linear maps of an MLP, and the second of them."""
        flow = self._flow
        found = (one for value in flow.following(_ACTIVATION, expand.output) for one in flow.linears(value))
        if (reduce := next(found, None)) is None:
            raise NotPlainError(f"its MLP goes into {self._named(expand.output)}, and not into a GELU")
        nodes = flow.between(expand.output, reduce.input)
        kinds = {node.kind for node in nodes}
        factors = [x for node in nodes for one in node.inputs if (x := flow.constant(one)) is not None]
        if "Erf" in kinds:
            return "exact", reduce
        if "Sigmoid" in kinds and any(x.numel() == 1 and abs(float(x) - 1.702) < 1e-3 for x in factors):
            return "quick", reduce
        if "Tanh" in kinds:
            return "tanh", reduce
        if (gelu := next((node for node in nodes if node.kind == "Gelu"), None)) is not None:
            return "tanh" if gelu.attributes.get("approximate") == b"tanh" else "exact", reduce
        raise NotPlainError(f"the activation of its MLP is no GELU: {', '.join(sorted(kinds - {'Constant'}))}")

    def _branch(self, linear: Linear, stream: str) -> _Branch:
        flow, scale = self._flow, None
        value = linear.output
        if (scaled := flow.with_vector(value, "Mul")) is not None:
            scale, value = scaled
        for same in flow.following(SAME, value):
            for node in flow.users(same):
                if node.kind == "Add" and stream in node.inputs:
                    return _Branch(linear, scale, node.outputs[0])
        raise NotPlainError(f"a branch of a block ends in {self._named(value)}, and is not added to what it began with")

    def _find_head(self) -> Linear | None:
        """The classifier that reads the pooled feature and makes an output of the file; None where there is none."""
        flow, token = self._flow, len(self._tokens.special) > 0
        for node in flow.users(self._norm.output):
            if token and not (node.kind in ("Gather", "Slice") and flow.whole(node.inputs[1]) == [0]):
                continue
            if not token and node.kind != "ReduceMean":
                continue
            for linear in flow.linears(node.outputs[0]):
                if any(value in flow.graph.outputs for value in flow.following(("Identity", "Cast"), linear.output)):
                    return linear
        return None

    def config(self, like: ModelConfig | None) -> tuple[ViTConfig, str]:
        """The config, and where its preprocessing is from."""
        _, channels, *patch = self._patches.weight.shape
        places, size = len(self._tokens.places.rows) - self._tokens.placed, (self._patches.height, self._patches.width)
        grid = size[0] // patch[0], size[1] // patch[1]
        if math.prod(grid) != places:
            if all(size) and self._tokens.places.resize is None:
                raise NotPlainError(f"{places} positions are added to the {grid[0]}x{grid[1]} patches of its pictures")
            grid = math.isqrt(max(places, 0)), math.isqrt(max(places, 0))
        if math.prod(grid) != places or not places:
            raise NotPlainError(f"{places} positions are no square grid")
        height, width = size if all(size) else (grid[0] * patch[0], grid[1] * patch[1])
        mean, std = _IMAGENET if channels == 3 else ((0.5,) * channels, (0.5,) * channels)
        image = ImageSpec(size=(height, width), short_side=min(height, width), mean=mean, std=std)
        known = "the mean and deviation of ImageNet" if channels == 3 else "pixels in [-1, 1]"
        told = f"{known}, as an ONNX file tells none"
        if isinstance(like, ViTConfig) and list(like.patch) == patch and like.image.channels == channels:
            image, told = like.image, "that of the model that it was said to be like"
        first, special = self._blocks[0], len(self._tokens.special)
        backbone = TransformerConfig(
            width=self._width,
            depth=len(self._blocks),
            heads=first.attention.heads,
            mlp=len(first.expand.weight),
            gelu=first.gelu,
            norm_eps=first.norm_attention.eps,
            layer_scale=0.0 if first.out.scale is None else 1.0,
        )
        config = ViTConfig(
            backbone=backbone,
            patch=(patch[0], patch[1]),
            image=image,
            pool="token" if special else "mean",
            registers=max(special - 1, 0),
            pre_norm=self._tokens.norm is not None,
            position_grid=grid,
            resize=self._tokens.places.resize or "cubic",
        )
        return config, told

    def encoder(self, config: ViTConfig) -> dict[str, Tensor]:
        """The state of the encoder."""
        tokens, special = self._tokens, len(self._tokens.special)
        rows = tokens.places.rows
        places = torch.cat([rows.new_zeros(special - tokens.placed, self._width), rows])
        state = {
            "tokenizer.projection.weight": self._patches.weight.flatten(1),
            "tokenizer.projection.bias": self._patches.bias,
            "encoder.positions.table": torch.cat([places[: min(special, 1)], places[special:]]),
            **_named("encoder.transformer.norm", self._norm),
        }
        if special:
            state["encoder.cls"] = tokens.special[:1]
        if config.registers:
            state["encoder.registers"] = tokens.special[1:] + places[1:special]
        if tokens.norm is not None:
            state |= _named("encoder.norm_tokens", tokens.norm)
        for i, block in enumerate(self._blocks):
            ours = f"encoder.transformer.blocks.{i}."
            weight, bias = block.attention.qkv
            state |= {f"{ours}attention.qkv.weight": weight, f"{ours}attention.qkv.bias": bias}
            state |= _named(f"{ours}norm_attention", block.norm_attention) | _named(f"{ours}norm_mlp", block.norm_mlp)
            state |= _named(f"{ours}attention.out", block.out.linear) | _named(f"{ours}mlp.0", block.expand)
            state |= _named(f"{ours}mlp.3", block.reduce.linear)
            scales = {f"{ours}attention.out.gamma": block.out.scale, f"{ours}mlp.3.gamma": block.reduce.scale}
            state |= {name: scale for name, scale in scales.items() if scale is not None}
        return state

    def heads(self) -> dict[str, Tensor]:
        """The state of the classifier; nothing where there is none."""
        return {} if self._head is None else _named("label.projection", self._head)


def _cuts_patches(node: Node, weight: Tensor) -> bool:
    """Whether a convolution has a stride as large as its kernel, and no more."""
    plain = {"strides": tuple(weight.shape[2:]), "group": 1, "dilations": (1, 1), "pads": (0, 0, 0, 0)}
    told = {"strides": (1, 1)} | {name: value for name, value in node.attributes.items() if name in plain}
    return weight.ndim == 4 and min(weight.shape[2:]) > 1 and {**plain, **told} == plain


def _thirds(takes: list[tuple[int, ...]], width: int) -> bool:
    """Whether queries, keys and values are the first, second and last third, by number or by where they begin."""
    return takes in ([(0,), (1,), (2,)], [(0,), (width,), (2 * width,)])


def _named(name: str, layer: Linear | Norm) -> dict[str, Tensor]:
    return {f"{name}.weight": layer.weight, f"{name}.bias": layer.bias}
