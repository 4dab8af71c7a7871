"""The released VATT's parameters (TensorFlow) in our names.

A name is a path of attributes, such as ``tx/layers/0/mha/q/kernel``; in a checkpoint of pre-training each tower's stand
below ``_base_layer``, the common spaces' below ``_head_layer``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tubelet.models.vatt import LinearWords, Sense, VattConfig, Words
from tubelet.specs import SpectrogramSpec, TextSpec, WaveformSpec
from tubelet.weights.formats.tree import Tree

State = dict[str, Tensor]

SHARED = "_base_layer/unified_backbone/unified_transformer/"
BRIDGE = "_head_layer/_bridge_heads/0/"
_BACKBONES = {"image": "vid_backbone/_base/", "video": "vid_backbone/_base/", "audio": "aud_backbone/_base/"}
_SHORT = {"video": "vid", "audio": "aud", "text": "txt"}
_AXES = {"time": "temporal", "height": "vertical", "width": "horizontal"}


def vatt(tree: Tree, config: VattConfig) -> State:
    """The state of a :class:`~tubelet.models.vatt.VattEncoder`, from all towers of a pre-training."""
    if config.shared:
        return unified(tree, config, SHARED)
    state: State = {}
    for name in config.modalities:
        backbone = _BACKBONES.get(name, "txt_backbone/")
        state |= tower(tree, config, name, f"_base_layer/{backbone}")
    return state


def tower(tree: Tree, config: VattConfig, name: str, theirs: str = "") -> State:
    """One modality's part of the state. ``theirs`` stands before all of its released names."""
    ours, modality = f"modalities.{name}.", config.modalities[name]
    match modality:
        case Sense():
            state = _sense(tree, modality, config.shared, theirs, ours)
            stack = "shared." if config.shared else f"{ours}transformer."
            return state | _transformer(tree, f"{theirs}tx/", modality.backbone.depth, stack)
        case Words():
            return _text(tree, modality, theirs, ours)
        case LinearWords():
            kernel = tree.take(f"{theirs}base_lm/conv1d/kernel")
            return {
                f"{ours}words.table": tree.take(f"{theirs}embedding/embeddings"),
                f"{ours}projection.weight": kernel[0].T,
                f"{ours}projection.bias": tree.take(f"{theirs}base_lm/conv1d/bias"),
            }


def unified(tree: Tree, config: VattConfig, theirs: str = "") -> State:
    """The state of a modality-agnostic encoder. ``theirs`` stands before all of its released names."""
    first, *_ = config.towers()
    state = _transformer(tree, f"{theirs}tx/", first.backbone.depth, "shared.")
    for name, modality in config.modalities.items():
        ours, raw = f"modalities.{name}.", f"{theirs}raw_to_embeddings/{name}"
        if isinstance(modality.spec, TextSpec):
            state[f"{ours}words.table"] = tree.take(f"{raw}/embeddings")
        else:
            state |= _tokenizer(tree, raw, ours)
        state |= _dense(tree, f"{theirs}pre_proj/{name}", f"{ours}before.0")
        state |= _dense(tree, f"{theirs}post_proj/{name}", f"{ours}after.0")
        axes = _AXES if name == "video" else {"width": "temporal"}
        state |= _positions(tree, f"{theirs}pos_embedding_lookup/{name}/", ours, axes)
        state[f"{ours}agg"] = tree.take(f"{theirs}{_SHORT[name]}_agg_embedding")[None]
    return state


def common_space(tree: Tree, theirs: str = "", others: Sequence[str] = ("audio", "text")) -> State:
    """The state of a :class:`~tubelet.nn.common_space.CommonSpace`."""
    state: State = {
        "video_in.weight": tree.take(f"{theirs}vid_to_hid/kernel").T,
        "video_audio.weight": tree.take(f"{theirs}hid_to_va/dense/kernel").T,
        "video_text.weight": tree.take(f"{theirs}va_to_vat/dense/kernel").T,
    }
    norms = {"video_in": "hid_to_va/pre_bn", "video_audio": "hid_to_va/bn", "video_text": "va_to_vat/bn"}
    for ours, norm in norms.items():
        state |= _batch_norm(tree, f"{theirs}{norm}", f"{ours}_norm")
    for name in others:
        released = {"audio": "aud_to_va", "text": "txt_to_vat"}[name]
        state |= _dense(tree, f"{theirs}{released}", f"others.{name}")
    return state


def joint_space(tree: Tree, theirs: str = "", names: Sequence[str] = ("video", "audio", "text")) -> State:
    """The state of a :class:`~tubelet.nn.joint_space.JointSpace`."""
    state: State = {}
    for name in names:
        released = f"{theirs}{_SHORT[name]}_to_vat"
        state[f"maps.{name}.weight"] = tree.take(f"{released}/dense/kernel").T
        state |= _batch_norm(tree, f"{released}/bn", f"norms.{name}")
    return state


def classifier(tree: Tree, theirs: str = "_ops/cls") -> State:
    """The state of a :class:`~tubelet.nn.heads.LinearHead`."""
    return _dense(tree, theirs, "projection")


def _sense(tree: Tree, sense: Sense, projected: bool, theirs: str, ours: str) -> State:
    match sense.spec:
        case WaveformSpec():
            patches, axes = "wave_to_patch", {"width": "temporal"}
        case SpectrogramSpec():
            patches, axes = "spectrum_to_patch", {"height": "temporal", "width": "spectoral"}
        case _:
            patches, axes = "voxel_to_patch", _AXES
    state = _tokenizer(tree, f"{theirs}{patches}", ours)
    state |= _positions(tree, f"{theirs}pos_embedding_lookup/", ours, axes)
    state[f"{ours}agg"] = tree.take(f"{theirs}agg_embedding")[None]
    if projected:
        state |= _dense(tree, f"{theirs}pre_proj", f"{ours}before.0")
        state |= _dense(tree, f"{theirs}post_proj", f"{ours}after.0")
    return state


def _tokenizer(tree: Tree, theirs: str, ours: str) -> State:
    """A convolution over time, over time and frequency, or over time, height and width."""
    kernel = tree.take(f"{theirs}/kernel")
    weight = kernel.movedim((-1, -2), (0, 1)).flatten(1)
    return {
        f"{ours}tokenizer.projection.weight": weight,
        f"{ours}tokenizer.projection.bias": tree.take(f"{theirs}/bias"),
    }


def _positions(tree: Tree, theirs: str, ours: str, axes: dict[str, str]) -> State:
    tables = {
        f"{ours}positions.axes.{name}.table": tree.take(f"{theirs}{released}_position_embeddings/embeddings")
        for name, released in axes.items()
    }
    return tables | _norm(tree, f"{theirs}layernorm", f"{ours}positions.norm")


def _transformer(tree: Tree, theirs: str, depth: int, ours: str) -> State:
    state = _norm(tree, f"{theirs}final_layer_norm", f"{ours}norm")
    for i in range(depth):
        layer, block = f"{theirs}layers/{i}/", f"{ours}blocks.{i}."
        state |= _norm(tree, f"{layer}layer_norm", f"{block}norm_attention")
        state |= _attention(tree, f"{layer}mha", f"{block}attention")
        state |= _mlp(tree, f"{layer}feed_forward/", block)
    return state


def _text(tree: Tree, words: Words, theirs: str, ours: str) -> State:
    lm, stack = f"{theirs}base_lm/", f"{ours}transformer."
    first = f"{lm}layers/0/self_attention/attention/"
    state: State = {
        f"{ours}words.table": tree.take(f"{theirs}embedding/embeddings"),
        f"{ours}agg": tree.take(f"{theirs}agg_embedding")[None],
        f"{ours}before.0.weight": tree.take(f"{theirs}pre_proj/kernel").T,
        f"{ours}bias.table": tree.take(f"{first}relative_attention_bias/embeddings"),
        f"{stack}norm.weight": tree.take(f"{lm}final_layer_norm/weight"),
    }
    for i in range(words.backbone.depth):
        layer, block = f"{lm}layers/{i}/", f"{stack}blocks.{i}."
        state[f"{block}norm_attention.weight"] = tree.take(f"{layer}self_attention/layer_norm/weight")
        state |= _attention(tree, f"{layer}self_attention/attention", f"{block}attention")
        state |= _mlp(tree, f"{layer}feed_forward/", block)
    return state


def _attention(tree: Tree, theirs: str, ours: str) -> State:
    parts = [_dense(tree, f"{theirs}/{part}", part) for part in "qkv"]
    state = _dense(tree, f"{theirs}/o", f"{ours}.out")
    for kind in ("weight", "bias"):
        found = [state for part in parts for name, state in part.items() if name.endswith(kind)]
        if found:
            state[f"{ours}.qkv.{kind}"] = torch.cat(found)
    return state


def _mlp(tree: Tree, theirs: str, block: str) -> State:
    state = _norm(tree, f"{theirs}layer_norm", f"{block}norm_mlp")
    for ours, part in {"mlp.0": "wi", "mlp.3": "wo"}.items():
        state |= _dense(tree, f"{theirs}mlp/{part}", f"{block}{ours}")
    return state


def _norm(tree: Tree, theirs: str, ours: str) -> State:
    return {f"{ours}.weight": tree.take(f"{theirs}/gamma"), f"{ours}.bias": tree.take(f"{theirs}/beta")}


def _batch_norm(tree: Tree, theirs: str, ours: str) -> State:
    numbers = {"weight": "gamma", "bias": "beta", "mean": "moving_mean", "variance": "moving_variance"}
    return {f"{ours}.{number}": tree.take(f"{theirs}/{released}") for number, released in numbers.items()}


def _dense(tree: Tree, theirs: str, ours: str) -> State:
    """A dense layer, which may have no bias."""
    bias = {f"{ours}.bias": tree.take(f"{theirs}/bias")} if f"{theirs}/bias" in tree else {}
    return {f"{ours}.weight": tree.take(f"{theirs}/kernel").T, **bias}
