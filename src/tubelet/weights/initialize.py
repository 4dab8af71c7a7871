"""Starting a model from pretrained weights (ViViT Sec. 3.4, PolyViT Sec. 4.3 and App. D): what goes where."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from typing import Literal, cast

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from tubelet.configs.convert import name_of
from tubelet.models.model import Model, ModelConfig
from tubelet.nn.blocks import TransformerConfig
from tubelet.nn.fusion import TokensInTime, at_times
from tubelet.nn.positions import LearnedPositions
from tubelet.nn.tokenizers import TubeletTokenizer
from tubelet.nn.tubes import TubeKernel
from tubelet.specs import InputSpec
from tubelet.weights.errors import WeightsError
from tubelet.weights.folder import load_model
from tubelet.weights.inflate import flatten, inflate, resize
from tubelet.weights.interpolate import resize_positions, square_grid
from tubelet.weights.lanes import Tower
from tubelet.weights.loaded import LoadedModel, TaskCard, listed
from tubelet.weights.routes import ParameterMapping, matches, plan_transfer


@dataclass(frozen=True, kw_only=True)
class Init:
    """Weights to start from.

    ``source``: whatever :func:`~tubelet.weights.folder.load_model` reads: a model folder, a transformers or timm ViT, a
    ViT .npz of the released code, ``hf:org/name``. ``into``: the stream of an MTV, or the modality, that they are for;
    all, if empty. ``kernel``: how a 2D patch kernel becomes a tubelet kernel (Sec. 3.4 and
    :func:`~tubelet.weights.inflate.inflate`; "repeat" is PolyViT's for probes); a tubelet kernel becomes a 2D one by
    the sum over its frames; one of another size is resized linearly, as MTV's released code does; "random" leaves the
    tokenizers as they were built. ``temporal``: what Model 3's temporal attention starts from. "residual": as it was
    built, its output projection zero, so that the block is a residual connection and can learn; "copy": the image
    model's attention; "zero": all of it zero, as the paper and the released code say (no gradient but the output bias's
    ever leaves zero); "fresh": as it was built. ``bottleneck``: what MBT's bottleneck tokens start from. "fresh": as
    they were built; "positions": the source's table of positions resized to so many places, as the released code does.
    ``fresh``: patterns of encoder parameters (``encoder.positions.*``) that stay as they were built.

    Positions are always interpolated in (t, h, w): an image's are repeated in time and resized in space; for an image a
    video's are averaged over time. Every modality of a PolyViT or an MBT starts from the source's own of its kind, else
    from its image, video or audio, in this order; a PolyViT's adaptors from the source's first layers, the shared ones
    from the others. A stream of an MTV has a class token per time index: an image's serves for all. Of a TubeViT,
    "video" is the tubes alone: an image ViT for all and a small TubeViT into "video" are its scaling method (Sec. 3.6).
    """

    source: str
    into: str = ""
    kernel: Literal["central", "average", "rank", "repeat", "random"] = "central"
    temporal: Literal["residual", "copy", "zero", "fresh"] = "residual"
    bottleneck: Literal["fresh", "positions"] = "fresh"
    fresh: tuple[str, ...] = ()


@dataclass(frozen=True)
class InitReport:
    """What became of every parameter, by name; ``resized`` and ``notes`` are sentences."""

    source: str
    into: str
    loaded: tuple[str, ...]
    zeroed: tuple[str, ...]
    resized: tuple[str, ...]
    fresh: tuple[str, ...]
    dropped: tuple[str, ...]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        groups = {
            "resized": self.resized,
            "set to zero": _grouped(self.zeroed, (*self.loaded, *self.fresh)),
            "left fresh": _grouped(self.fresh, (*self.loaded, *self.zeroed)),
            "dropped": _grouped(self.dropped),
            "note": self.notes,
        }
        into = f"{self.into} initialized" if self.into else "initialized"
        lines = [f"{into} from {self.source}: {len(self.loaded)} parameters loaded"]
        return "\n".join(lines + [f"  {kind}: {', '.join(names)}" for kind, names in groups.items() if names])


def _grouped(names: Sequence[str], others: Sequence[str] = ()) -> tuple[str, ...]:
    """Modules that are whole in ``names``, having nothing in ``others``: "encoder.temporal"; blocks taken together."""

    def whole(name: str) -> str:
        parts = name.split(".")
        modules = (".".join(parts[:depth]) for depth in range(2, len(parts)))
        return next((m for m in modules if not any(other.startswith(f"{m}.") for other in others)), name)

    return tuple(dict.fromkeys(re.sub(r"\.\d+\b", ".*", whole(name)) for name in names))


def initialize(
    model: Model, config: ModelConfig, inits: Sequence[Init], tasks: Mapping[str, TaskCard] | None = None
) -> list[InitReport]:
    """Start ``model`` from every one of ``inits`` in turn, in place.

    A head is loaded where the source has one of the same name whose classes are those in ``tasks``. Raises
    WeightsError, naming keys and shapes, where a source does not fit; the model is then as it was before that source.
    """
    return [initialize_from(load_model(init.source), model, config, init, tasks) for init in inits]


@torch.no_grad()
def initialize_from(
    source: LoadedModel, model: Model, config: ModelConfig, init: Init, tasks: Mapping[str, TaskCard] | None = None
) -> InitReport:
    """Start ``model`` from a source that is loaded already; see :func:`initialize`."""
    given = dict(source.model.encoder.named_parameters())
    wanted = dict(model.encoder.named_parameters())
    route = plan_transfer(source.config, config, given, wanted, init.source, init.into)
    if init.bottleneck == "positions":
        route = _bottleneck_from_positions(route, wanted, init)
    offered = _offer(source.model.encoder, model.encoder, route, init)
    if problems := [*_other_heads(route), *_misfits(given, offered, wanted, route, init)]:
        into = " and Init.into names the stream or modality that it is for" if len(route.pairs) > 1 else ""
        raise WeightsError(
            f"{init.source} does not fit the model; Init.fresh leaves parameters out{into}: {listed(problems)}"
        )
    for name, value in offered.items():
        wanted[name].copy_(value)
    heads = _load_heads(source, model, tasks or {})
    zeroed = tuple(name for name in offered if name not in route.origin and init.temporal != "copy")
    return InitReport(
        source=init.source,
        into=init.into,
        loaded=(*(name for name in offered if name not in zeroed), *(f"heads.{name}" for name in heads)),
        zeroed=zeroed,
        resized=tuple(
            f"{name} {tuple(given[theirs].shape)} to {tuple(offered[name].shape)}"
            for name, theirs in route.origin.items()
            if name in offered and given[theirs].shape != offered[name].shape
        ),
        fresh=(
            *(n for n in wanted if n not in {*offered, *route.others}),
            *(f"heads.{n}" for n in model.heads if n not in heads),
        ),
        dropped=(
            *(name for name in given if name not in route.used),
            *(f"heads.{name}" for name in source.model.heads if name not in heads),
            *source.dropped,
        ),
        notes=_notes(route),
    )


def _bottleneck_from_positions(route: ParameterMapping, wanted: Mapping[str, Tensor], init: Init) -> ParameterMapping:
    """The route on which MBT's bottleneck tokens start from the positions of what the first modality starts from."""
    if "bottleneck" not in wanted:
        raise WeightsError(f"{init.source}: {init.bottleneck=} is of an MBT's bottleneck tokens; the model has none")
    source, _ = route.pairs[0]
    return replace(route, origin=route.origin | {"bottleneck": f"{source.modules['positions']}.table"})


def _offer(source: nn.Module, target: nn.Module, route: ParameterMapping, init: Init) -> dict[str, Tensor]:
    """The source's values for the parameters of ``target``, changed where the two differ by design."""
    offered: dict[str, Tensor] = {name: source.get_parameter(theirs) for name, theirs in route.origin.items()}
    for name, layer in target.named_modules():
        if isinstance(layer, LearnedPositions) and (table := f"{name}.table") in offered:
            theirs = source.get_submodule(route.origin[table].removesuffix(".table"))
            offered[table] = resize_positions(cast("LearnedPositions", theirs), layer)
        if isinstance(layer, TubeletTokenizer | TubeKernel) and (weight := f"{name}.projection.weight") in offered:
            theirs = source.get_submodule(route.origin[weight].removesuffix(".projection.weight"))
            if isinstance(theirs, TubeletTokenizer):
                offered[weight] = _kernel(theirs, layer, init)
        if isinstance(layer, TokensInTime) and (tokens := f"{name}.table") in offered:
            offered[tokens] = _in_time(offered[tokens], len(layer.table))
    if (table := route.origin.get("bottleneck", "")).endswith("positions.table"):
        theirs = source.get_submodule(table.removesuffix(".table"))
        offered["bottleneck"] = _in_a_square(cast("LearnedPositions", theirs), target.get_parameter("bottleneck"))
    offered |= _temporal_attention(offered, dict(target.named_parameters()), init)
    return {name: value for name, value in offered.items() if not matches(name, _left_out(init))}


def _left_out(init: Init) -> tuple[str, ...]:
    return (*init.fresh, "tokenizer.*", "*.tokenizer.*", "patches.*") if init.kernel == "random" else init.fresh


def _in_time(tokens: Float[Tensor, "T n D"] | Float[Tensor, "n D"], times: int) -> Float[Tensor, "t n D"]:
    """Tokens for each time index; an image's serve for all."""
    return tokens.expand(times, -1, -1) if tokens.ndim == 2 else at_times(tokens, times)


def _in_a_square(source: LearnedPositions, bottleneck: Float[Tensor, "n D"]) -> Float[Tensor, "n D"]:
    """The source's table resized to as many rows as there are bottleneck tokens: those of its special tokens first."""
    n, width = bottleneck.shape
    target = LearnedPositions(square_grid(n - source.special), width, source.special)
    return resize_positions(source, target)


def _kernel(source: TubeletTokenizer, target: TubeletTokenizer | TubeKernel, init: Init) -> Tensor:
    """The source's kernel: inflated for a video, summed over its frames for an image or a spectrogram, and resized for
    patches or tubelets of another size."""
    weight, (t, h, w), (frames, *sides) = source.projection.weight, source.tubelet, target.tubelet
    if source.tubelet == target.tubelet or init.kernel == "random":
        return weight
    kernel = rearrange(weight, "D (C t h w) -> D C t h w", t=t, h=h, w=w)
    size = (frames if min(t, frames) > 1 else t, sides[0], sides[1])
    if size != source.tubelet:
        kernel = resize(kernel, size)
    if size[0] > frames:
        kernel = flatten(kernel)
    elif size[0] < frames:
        kernel = inflate(kernel[:, :, 0], frames, init.kernel)
    return kernel.flatten(1)


def _temporal_attention(offered: Mapping[str, Tensor], wanted: Mapping[str, Tensor], init: Init) -> dict[str, Tensor]:
    """What Model 3's temporal attention starts from, where the source has none."""
    names = [name for name in wanted if ".attention_time." in name and name not in offered]
    match init.temporal:
        case "copy":
            spatial = {name: name.replace(".attention_time.", ".attention.") for name in names}
            return {name: offered[theirs] for name, theirs in spatial.items() if theirs in offered}
        case "zero":
            return {name: torch.zeros_like(wanted[name]) for name in names}
        case "residual":
            return {name: torch.zeros_like(wanted[name]) for name in names if ".out." in name}
        case "fresh":
            return {}


def _misfits(
    given: Mapping[str, Tensor],
    offered: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    route: ParameterMapping,
    init: Init,
) -> list[str]:
    """What does not fit: patterns without a parameter, shapes that differ, parameters on one side alone."""
    unmatched = [pattern for pattern in init.fresh if not any(fnmatchcase(name, pattern) for name in wanted)]
    shapes = {name: (tuple(value.shape), tuple(wanted[name].shape)) for name, value in offered.items()}
    may_miss = (*route.fresh, *_left_out(init))
    missing = [name for name in wanted if name not in offered and not matches(name, may_miss)]
    return [
        *(f"{pattern!r} of Init.fresh matches no parameter" for pattern in unmatched),
        *(f"{name} is {a} in the source and {b} in the model" for name, (a, b) in shapes.items() if a != b),
        *(f"{name} {tuple(wanted[name].shape)} of the model has nothing to start from" for name in missing),
        *(f"{name} {tuple(given[name].shape)} of the source has no place in the model" for name in route.unplaced),
    ]


def _load_heads(source: LoadedModel, model: Model, tasks: Mapping[str, TaskCard]) -> list[str]:
    """Load the heads that answer the same question in both models; their names."""
    known = [name for name in model.heads if name in source.tasks and name in tasks]
    same = [
        name
        for name in known
        if source.tasks[name].classes == tasks[name].classes
        and _shapes(source.model.heads[name]) == _shapes(model.heads[name])
    ]
    for name in same:
        model.heads[name].load_state_dict(source.model.heads[name].state_dict())
    return same


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in module.state_dict().items()}


def _other_heads(route: ParameterMapping) -> list[str]:
    pairs = [(theirs.backbone.heads, ours) for theirs, ours in route.pairs]
    return [
        f"the source's attention has {theirs} heads, the model's {ours.backbone.heads}{_of(ours, route)}"
        for theirs, ours in pairs
        if theirs != ours.backbone.heads and "blocks.0" in ours.modules
    ]


def _of(lane: Tower, route: ParameterMapping) -> str:
    return f" ({lane.name})" if len(route.pairs) > 1 else ""


def _notes(route: ParameterMapping) -> tuple[str, ...]:
    """What the two do differently with the same weights."""
    pairs = [(_behavior(theirs.backbone), _behavior(ours.backbone)) for theirs, ours in route.pairs]
    pairs += [(_scale(theirs.spec), _scale(ours.spec)) for theirs, ours in route.pairs]
    notes = [
        f"the source was trained with {name} {theirs[name]}, the model has {ours[name]}"
        for theirs, ours in pairs
        for name in theirs
        if name in ours and theirs[name] != ours[name]
    ]
    return tuple(dict.fromkeys(notes))


def _behavior(backbone: TransformerConfig) -> dict[str, object]:
    return {"gelu": backbone.gelu, "norm_eps": backbone.norm_eps}


def _scale(spec: InputSpec) -> dict[str, object]:
    """How numbers become inputs: comparable between pixels, and between spectrograms."""
    if spec.normalization:
        return dict(zip(("pixel mean", "pixel std"), spec.normalization, strict=True))
    skipped = ("column", "frames", "samples")
    return {f"{name_of(type(spec))} {name}": value for name, value in asdict(spec).items() if name not in skipped}
