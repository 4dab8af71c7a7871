"""The released MTV's parameters in our names."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from tubelet.models import ModelConfig
from tubelet.models.family import size_letters
from tubelet.models.mtv import BottleneckFusion, CrossViewFusion, Fusion, MTVConfig, Stream
from tubelet.nn.blocks import TransformerConfig
from tubelet.nn.encoding import Pool
from tubelet.weights.formats.scenic import BLOCK, backbone_of, leaf, places_of, pool_of, token_encoder, tokenizer
from tubelet.weights.formats.scenic_shapes import backbone, frames_spec, patch_of, untold
from tubelet.weights.formats.tree import Tree, gather

_ENCODER = "MultiviewEncoder"


def mtv_config(tree: Tree, like: ModelConfig | None = None) -> MTVConfig:
    """The config of an MTV, read off its names and shapes. Streams have the names that a model's name gives them
    ("ti8"), or those of ``like``, which also says whether places are kept, and where streams of one width meet."""
    told = like if isinstance(like, MTVConfig) else None
    streams = [_stream_of(tree, i) for i in range(tree.count("embedding_view{}/kernel"))]
    pool = pool_of(tree, "cls_global")
    patch, channels = patch_of(tree, "embedding_view0")
    merge: Literal["channel", "time"] = "time" if "global_encoder_linear_view0/kernel" in tree else "channel"
    places = tree.shape(f"{_ENCODER}/posembed_input_view0/pos_embedding", 3)[1] - (pool == "token")
    video = frames_spec(tree, like, patch, _frames(tree, streams, merge, pool), places, channels)
    return MTVConfig(
        streams=dict(zip(_stream_names(streams, told), streams, strict=True)),
        media={"video": video},
        global_encoder=backbone_of(tree, "global_encoder"),
        fusion=_fusion(tree, streams, told),
        merge=merge,
        pool=pool,
        keep_space=told is not None and told.keep_space and pool == "mean",
    )


def _stream_of(tree: Tree, i: int) -> Stream:
    depth = 0
    while _plain(depth, i) in tree or _crossing(depth, i, "msa_ln") in tree:
        depth += 1
    if _crossing(0, i, "msa_ln") in tree:
        first, attention, mlp = f"{_ENCODER}/cross_view_encoderblock_0", f"msa_view{i}", f"mlp_view{i}"
    else:
        first, attention, mlp = f"{_ENCODER}/encoderblock_0_view{i}", "MultiHeadDotProductAttention_0", "MlpBlock_0"
    size = backbone(tree, depth, f"{first}/{attention}", f"{first}/{mlp}/Dense_0")
    return Stream(backbone=size, tubelet=patch_of(tree, f"embedding_view{i}")[0])


def _plain(layer: int, view: int) -> str:
    return f"{_ENCODER}/encoderblock_{layer}_view{view}/LayerNorm_0/scale"


def _crossing(layer: int, view: int, norm: str) -> str:
    return f"{_ENCODER}/cross_view_encoderblock_{layer}/{norm}_view{view}/scale"


def _stream_names(streams: list[Stream], told: MTVConfig | None) -> list[str]:
    if told and list(told.streams.values()) == streams:
        return list(told.streams)
    names = [f"{size_letters(s.backbone) or f'view{i}_'}{s.tubelet[0]}" for i, s in enumerate(streams)]
    return names if len(set(names)) == len(names) else [f"view{i}" for i in range(len(streams))]


def _frames(tree: Tree, streams: list[Stream], merge: str, pool: Pool) -> int:
    """The frames of a clip, from the time indices that the global encoder has positions for: the most that a stream
    has, or the sum of all."""
    times = places_of(tree, "global_encoder", pool)
    shortest = min(stream.tubelet[0] for stream in streams)
    if merge == "channel":
        return times * shortest
    longest = max(stream.tubelet[0] for stream in streams)
    return round(times * longest / sum(longest / stream.tubelet[0] for stream in streams))


def _fusion(tree: Tree, streams: list[Stream], told: MTVConfig | None) -> Fusion | None:
    depth = max(stream.backbone.depth for stream in streams)
    if crossing := tuple(i for i in range(depth) if _crossing(i, 0, "cross_attention_ln") in tree):
        return _cross_view_fusion(tree, streams, crossing)
    if "bottleneck" not in tree:
        return None
    *_, tokens, width = tree.shape("bottleneck", 4)
    first, last = streams[0].backbone.width, streams[-1].backbone.width
    meeting = told.fusion if told and isinstance(told.fusion, BottleneckFusion) else None
    linear = f"{_ENCODER}/bottleneck_linear_{{}}_view{{}}/kernel"
    layers = tuple(i for i in range(depth) if any(linear.format(i, j) in tree for j in range(len(streams))))
    if meeting is None and (first == last or not layers):
        raise untold(tree, "in which layers and which order its streams meet", "mtv-b/2+b/4-bottleneck")
    towards = meeting.towards if meeting and first == last else "coarse" if width == last else "fine"
    return BottleneckFusion(layers=layers or (meeting.layers if meeting else ()), tokens=tokens, towards=towards)


def _cross_view_fusion(tree: Tree, streams: list[Stream], layers: tuple[int, ...]) -> CrossViewFusion:
    attention = f"{_ENCODER}/cross_view_encoderblock_{layers[0]}/cross_attention_view{{}}_{{}}/query/bias"
    coarse = attention.format(0, 1) in tree
    query, source = (0, 1) if coarse else (1, 0)
    heads, width = tree.shape(attention.format(query, source), 2)
    same = (heads, heads * width) == _heads_and_width(streams[query].backbone)
    return CrossViewFusion(layers=layers, width="query" if same else "source", towards="coarse" if coarse else "fine")


def _heads_and_width(size: TransformerConfig) -> tuple[int, int]:
    return size.heads, size.width


def mtv(tree: Tree, config: MTVConfig) -> dict[str, Tensor]:
    """The state of an :class:`~tubelet.models.mtv.MTV`; released streams are numbered in the order of ``config``."""
    state = token_encoder(tree, "global_encoder", "cls_global", config.global_encoder.depth, "global_encoder.")
    numbers = {name: f"view{i}" for i, name in enumerate(config.streams)}
    for name, view in numbers.items():
        state |= _stream(tree, config, name, view)
        if config.merge == "time":
            state |= gather({f"project.{name}": [f"global_encoder_linear_{view}"]}, leaf(tree))
    match config.fusion:
        case CrossViewFusion():
            state |= _cross_views(tree, config, numbers)
        case BottleneckFusion():
            state["bottleneck.table"] = tree.take("bottleneck")[0]
            state |= _projections(tree, config, numbers)
        case _:
            pass
    return state


def _stream(tree: Tree, config: MTVConfig, name: str, view: str) -> dict[str, Tensor]:
    ours = f"streams.{name}."
    state = tokenizer(tree, f"embedding_{view}", f"{ours}tokenizer.")
    state[f"{ours}positions.table"] = tree.take(f"MultiviewEncoder/posembed_input_{view}/pos_embedding")[0]
    if config.pool == "token":
        state[f"{ours}cls.table"] = tree.take(f"cls_{view}")[0]
    crossing = config.fusion_layers if isinstance(config.fusion, CrossViewFusion) else ()
    for layer in range(config.streams[name].backbone.depth):
        if layer in crossing:
            table = _renamed(f"MultiviewEncoder/cross_view_encoderblock_{layer}", view)
        else:
            theirs = f"MultiviewEncoder/encoderblock_{layer}_{view}"
            table = {part: [f"{theirs}/{x}" for x in names] for part, names in BLOCK.items()}
        state |= gather(table, leaf(tree), f"{ours}stack.blocks.{layer}.")
    return state


def _renamed(layer: str, view: str) -> dict[str, list[str]]:
    """The parts of a block where streams cross: one module holds those of all streams."""
    names = {
        "LayerNorm_0": f"msa_ln_{view}",
        "MultiHeadDotProductAttention_0": f"msa_{view}",
        "LayerNorm_1": f"mlp_ln_{view}",
        "MlpBlock_0": f"mlp_{view}",
    }
    table: dict[str, list[str]] = {}
    for part, theirs in BLOCK.items():
        split = [name.partition("/") for name in theirs]
        table[part] = [f"{layer}/{names[module]}{slash}{rest}" for module, slash, rest in split]
    return table


def _cross_views(tree: Tree, config: MTVConfig, numbers: dict[str, str]) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for layer in config.fusion_layers:
        theirs = f"MultiviewEncoder/cross_view_encoderblock_{layer}"
        norms = {f"norms.{name}": [f"{theirs}/cross_attention_ln_{view}"] for name, view in numbers.items()}
        state |= gather(norms, leaf(tree), f"laterals.{layer}.")
        for query, source in config.reads.items():
            attention = f"{theirs}/cross_attention_{numbers[query]}_{numbers[source].removeprefix('view')}"
            table = {"q": [f"{attention}/query"], "kv": [f"{attention}/key", f"{attention}/value"]}
            table["out"] = [f"{attention}/out"]
            state |= gather(table, leaf(tree), f"laterals.{layer}.cross.{query}.attention.")
    return state


def _projections(tree: Tree, config: MTVConfig, numbers: dict[str, str]) -> dict[str, Tensor]:
    """Those of the bottleneck, where its width changes."""
    state: dict[str, Tensor] = {}
    for layer in config.fusion_layers:
        for name, view in numbers.items():
            theirs = f"MultiviewEncoder/bottleneck_linear_{layer}_{view}"
            if f"{theirs}/kernel" in tree:
                state |= gather({f"laterals.{layer}.project.{name}": [theirs]}, leaf(tree))
    return state
