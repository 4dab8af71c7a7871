"""The released VATT's parameters (TensorFlow) in our names.

A name is a path of attributes, such as ``tx/layers/0/mha/q/kernel``; in a checkpoint of pre-training each tower's stand
below ``_base_layer``, the common spaces' below ``_head_layer``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from tubelet.cards import ClassCard, RetrievalCard, TaskCard
from tubelet.models import ModelConfig
from tubelet.models.vatt import LinearWords, Sense, VattConfig, Words
from tubelet.models.vatt.config import Tokens, released
from tubelet.nn.blocks import TransformerConfig
from tubelet.specs import InputSpec, SpectrogramSpec, TextSpec, VideoSpec, WaveformSpec
from tubelet.weights.checkpoint import Checkpoint
from tubelet.weights.files import WeightsError
from tubelet.weights.formats.tree import Tree, foreign
from tubelet.weights.loaded import LoadedModel, filled_model

State = dict[str, Tensor]

SHARED = "_base_layer/unified_backbone/unified_transformer/"
BRIDGE = "_head_layer/_bridge_heads/0/"
_BACKBONES = {"image": "vid_backbone/_base/", "video": "vid_backbone/_base/", "audio": "aud_backbone/_base/"}
_SHORT = {"video": "vid", "audio": "aud", "text": "txt"}
_AXES = {"time": "temporal", "height": "vertical", "width": "horizontal"}

LOADS = "VATT of the released TensorFlow code (ckpt-N.index, its data beside it)"

_ROOTS = ("_base_layer/", "_head_layer/", "_base/", "_ops/")  # what a model's own names begin with
_HEAD_WIDTH = 64  # of all released models


def recognizes(checkpoint: Checkpoint) -> bool:
    return not checkpoint.config and any("/tx/" in f"/{name}" for name in _rooted(checkpoint.tensors))


def read(checkpoint: Checkpoint) -> LoadedModel:
    """A VATT as it was pre-trained, with its common spaces as the task "common", or one tower as it was fine-tuned,
    with its classifier as the task "label".

    Shapes tell all but the number of heads, which released models have 64 channels for, and how captions are cut; a
    VATT that is ``like`` it says both. What no tower has a place for is an error, as always.
    """
    tree = Tree(_rooted(checkpoint.tensors), checkpoint.origin)
    with foreign(tree.origin):
        config, theirs = vatt_config(tree, checkpoint.like)
        if theirs:
            ((name, _),) = config.modalities.items()
            state = tower(tree, config, name, theirs)
        else:
            state = vatt(tree, config)
        tasks, heads = _tasks(tree, config)
        dropped = tree.finish()
    state = {f"encoder.{name}": x for name, x in state.items()} | heads
    return LoadedModel(filled_model(config, tasks, state, tree.origin), config, tasks, {"source": tree.origin}, dropped)


def _rooted(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by the model's own names, without the attributes of a trainer that lead to them."""
    found: dict[str, Tensor] = {}
    for name, x in tensors.items():
        starts = [at for at in (f"/{name}".find(f"/{root}") for root in _ROOTS) if at >= 0]
        if starts:
            found[name[min(starts) :]] = x
    return found


def vatt_config(tree: Tree, like: ModelConfig | None = None) -> tuple[VattConfig, str]:
    """The config of a VATT, read off its names and shapes, and what stands before the names of a single tower."""
    told = like if isinstance(like, VattConfig) else None
    if f"{SHARED}tx/final_layer_norm/gamma" in tree:
        raw = {name: f"{SHARED}raw_to_embeddings/{name}" for name in _SHORT}
        names = [name for name, x in raw.items() if f"{x}/kernel" in tree or f"{x}/embeddings" in tree]
        modalities = {name: _agnostic(tree, told, name, raw[name]) for name in names}
        width = tree.shape(f"{SHARED}post_proj/{names[0]}/kernel", 2)[1]
        return _config(told, modalities, width), ""
    senses = {"video": "voxel_to_patch", "audio": "wave_to_patch"}
    alone = next((name for name, x in senses.items() if f"_base/{x}/kernel" in tree), "")
    before = {alone: "_base/"} if alone else {name: f"_base_layer/{_BACKBONES[name]}" for name in senses}
    modalities: dict[str, Tokens] = {}
    for name, theirs in before.items():
        if f"{theirs}{senses[name]}/kernel" in tree:
            positions = f"{theirs}pos_embedding_lookup/"
            modalities[name] = _sense_of(tree, told, name, theirs, f"{theirs}{senses[name]}", positions)
    if "_base_layer/txt_backbone/agg_embedding" in tree:
        modalities["text"] = _words_of(tree, told, "_base_layer/txt_backbone/")
    if not modalities:
        raise WeightsError(
            f"{tree.origin}: no tower of video, of a waveform or of T5's words is there; what loads: {LOADS}"
        )
    width = tree.shape("_base/post_proj/kernel", 2)[1] if "_base/post_proj/kernel" in tree else 0
    return _config(told, modalities, width), "_base/" if alone else ""


def _config(told: VattConfig | None, modalities: dict[str, Tokens], projection: int) -> VattConfig:
    kept, dropout = (told.kept, told.position_dropout) if told else (VattConfig.kept, VattConfig.position_dropout)
    return VattConfig(modalities=modalities, projection=projection, kept=kept, position_dropout=dropout)


def _sense_of(tree: Tree, told: VattConfig | None, name: str, theirs: str, patches: str, positions: str) -> Sense:
    """Video or a waveform: its tables of positions and its kernel tell the size of its clips."""
    axes = _AXES if name == "video" else {"width": "temporal"}
    counts = [tree.shape(f"{positions}{axis}_position_embeddings/embeddings", 2)[0] for axis in axes.values()]
    like = told.modalities.get(name) if told else None
    size = _backbone(tree, f"{theirs}tx/layers/{{}}/", "mha", like.backbone if isinstance(like, Sense) else None)
    *patch, _, _ = tree.shape(f"{patches}/kernel", 5 if name == "video" else 3)
    lengths = [n * step for n, step in zip(counts, patch, strict=True)]
    if isinstance(like, Sense) and list(like.grid)[-len(counts) :] == counts:
        spec: InputSpec = like.spec
    elif name == "video":
        frames, height, width = lengths
        spec = VideoSpec(frames=frames, stride=1, fps=10.0, size=(height, width), short_side=min(height, width))
    else:
        spec = WaveformSpec(samples=lengths[0])
    t, h, w = (1, 1, *patch) if name == "audio" else patch
    return Sense(spec=spec, patch=(t, h, w), backbone=size)


def _words_of(tree: Tree, told: VattConfig | None, theirs: str) -> Words:
    """Captions, of T5's encoder."""
    like = told.modalities.get("text") if told else None
    like = like if isinstance(like, Words) else None
    layers, attention = f"{theirs}base_lm/layers/{{}}/", "self_attention/attention"
    bias = f"{layers.format(0)}{attention}/relative_attention_bias/embeddings"
    buckets, heads = tree.shape(bias, 2)
    size = _backbone(tree, layers, attention, like.backbone if like else None, heads)
    ids, vectors = tree.shape(f"{theirs}embedding/embeddings", 2)
    return Words(
        spec=_captions(like, ids),
        backbone=size,
        vectors=vectors,
        learned=like is not None and like.learned,
        buckets=buckets,
        farthest=like.farthest if like else Words.farthest,
    )


def _agnostic(tree: Tree, told: VattConfig | None, name: str, raw: str) -> Tokens:
    """One modality of a transformer that all share."""
    positions = f"{SHARED}pos_embedding_lookup/{name}/"
    if name != "text":
        return _sense_of(tree, told, name, SHARED, raw, positions)
    like = told.modalities.get("text") if told else None
    like = like if isinstance(like, Words) else None
    size = _backbone(tree, f"{SHARED}tx/layers/{{}}/", "mha", like.backbone if like else None)
    ids, vectors = tree.shape(f"{raw}/embeddings", 2)
    words = tree.shape(f"{positions}temporal_position_embeddings/embeddings", 2)[0]
    spec = replace(_captions(like, ids), words=words)
    return Words(
        spec=spec,
        backbone=size,
        vectors=vectors,
        learned=like is not None and like.learned,
        buckets=like.buckets if like else Words.buckets,
        farthest=like.farthest if like else Words.farthest,
    )


def _captions(like: Words | None, ids: int) -> TextSpec:
    return like.spec if like and like.spec.ids == ids else TextSpec(ids=ids)


def _backbone(
    tree: Tree, layers: str, attention: str, like: TransformerConfig | None, heads: int = 0
) -> TransformerConfig:
    """The size of a stack whose layers are called ``layers``: that of ``like``, where it fits the shapes."""
    width, inner = tree.shape(f"{layers.format(0)}{attention}/q/kernel", 2)
    mlp = tree.shape(f"{layers.format(0)}feed_forward/mlp/wi/kernel", 2)[1]
    depth = tree.count(f"{layers}{attention}/q/kernel")
    if like and (like.width, like.inner, like.mlp, like.depth) == (width, inner, mlp, depth):
        return like
    heads = heads or inner // _HEAD_WIDTH
    if not heads or inner % heads or (inner // heads != _HEAD_WIDTH and attention == "mha"):
        raise WeightsError(
            f"{tree.origin}: nothing in it tells how many heads share {inner} channels; say what it is like: "
            "tubelet.load(..., like=) with the model's config"
        )
    return replace(released(width, depth, 1, mlp), heads=heads, head_width=0 if inner == width else inner // heads)


def _tasks(tree: Tree, config: VattConfig) -> tuple[dict[str, TaskCard], State]:
    """The common spaces of a pre-training, or the classifier of a fine-tuned tower."""
    if (bias := "_ops/cls/bias") in tree:
        classes = tuple(map(str, range(tree.shape(bias, 1)[0])))
        card = ClassCard(classes=classes, multilabel="audio" in config.modalities)
        return {"label": card}, {f"heads.label.{name}": x for name, x in classifier(tree).items()}
    if f"{BRIDGE}vid_to_hid/kernel" not in tree:
        return {}, {}
    space = common_space(tree, BRIDGE, [name for name in ("audio", "text") if name in config.modalities])
    audio, text = (len(space[f"video_{name}.weight"]) for name in ("audio", "text"))
    card = RetrievalCard(audio_width=audio, text_width=text, inputs=tuple(config.modalities))
    return {"common": card}, {f"heads.common.{name}": x for name, x in space.items()}


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
