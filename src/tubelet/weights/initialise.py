"""Starting a model from pretrained weights (ViViT Sec. 3.4): which parameters go where, and what changes on the way."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from tubelet.models.model import Model, ModelConfig
from tubelet.models.vit import ViTConfig
from tubelet.models.vivit import ViViTConfig
from tubelet.nn.blocks import Backbone
from tubelet.nn.positions import LearnedPositions
from tubelet.nn.tokenizers import TubeletTokenizer
from tubelet.weights.errors import WeightsError
from tubelet.weights.folder import load_model
from tubelet.weights.inflate import inflate
from tubelet.weights.interpolate import resize_positions
from tubelet.weights.loaded import Loaded, TaskCard, listed


@dataclass(frozen=True, kw_only=True)
class Init:
    """Weights to start from.

    ``source``: whatever :func:`~tubelet.weights.folder.load_model` reads: a model folder, a transformers or timm ViT, a
    ViT .npz of the released code, ``hf:org/name``. ``kernel``: how a 2D patch kernel becomes a tubelet kernel (Sec. 3.4
    and :func:`~tubelet.weights.inflate.inflate`); "random" leaves the tokenizer as it was built. ``temporal``: what
    Model 3's temporal attention starts from. "residual": as it was built, its output projection zero, so that the block
    is a residual connection and can learn; "copy": the image model's attention; "zero": all of it zero, as the paper
    and the released code say (no gradient but the output bias's ever leaves zero); "fresh": as it was built. ``fresh``:
    patterns of encoder parameters (``encoder.positions.*``) that stay as they were built.

    Positions are always interpolated in (t, h, w): an image's are repeated in time and resized in space.
    """

    source: str
    kernel: Literal["central", "average", "rank", "random"] = "central"
    temporal: Literal["residual", "copy", "zero", "fresh"] = "residual"
    fresh: tuple[str, ...] = ()


@dataclass(frozen=True)
class InitReport:
    """What became of every parameter, by name; ``resized`` and ``notes`` are sentences."""

    source: str
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
        lines = [f"initialised from {self.source}: {len(self.loaded)} parameters loaded"]
        return "\n".join(lines + [f"  {kind}: {', '.join(names)}" for kind, names in groups.items() if names])


def _grouped(names: Sequence[str], others: Sequence[str] = ()) -> tuple[str, ...]:
    """Modules that are whole in ``names``, having nothing in ``others``: "encoder.temporal"; blocks taken together."""

    def whole(name: str) -> str:
        parts = name.split(".")
        modules = (".".join(parts[:depth]) for depth in range(2, len(parts)))
        return next((m for m in modules if not any(other.startswith(f"{m}.") for other in others)), name)

    return tuple(dict.fromkeys(re.sub(r"\.\d+\b", ".*", whole(name)) for name in names))


def initialise(
    model: Model, config: ModelConfig, inits: Sequence[Init], tasks: Mapping[str, TaskCard] | None = None
) -> list[InitReport]:
    """Start ``model`` from every one of ``inits`` in turn, in place.

    A head is loaded where the source has one of the same name whose classes are those in ``tasks``. Raises
    WeightsError, naming keys and shapes, where a source does not fit; the model is then as it was before that source.
    """
    return [initialise_from(load_model(init.source), model, config, init, tasks) for init in inits]


@torch.no_grad()
def initialise_from(
    source: Loaded, model: Model, config: ModelConfig, init: Init, tasks: Mapping[str, TaskCard] | None = None
) -> InitReport:
    """Start ``model`` from a source that is loaded already; see :func:`initialise`."""
    route = _route(source.config, config, init)
    given = {route.rename(name): parameter for name, parameter in source.model.encoder.named_parameters()}
    wanted = dict(model.encoder.named_parameters())
    offered = _offer(given, source.model.encoder, model.encoder, route, init)
    if problems := [*_other_heads(source.config, config), *_misfits(given, offered, wanted, route, init)]:
        raise WeightsError(
            f"{init.source} does not fit the model; Init.fresh leaves parameters out: {listed(problems)}"
        )
    for name, value in offered.items():
        wanted[name].copy_(value)
    heads = _load_heads(source, model, tasks or {})
    zeroed = tuple(name for name in offered if name not in given and init.temporal != "copy")
    return InitReport(
        source=init.source,
        loaded=(*(name for name in offered if name not in zeroed), *(f"heads.{name}" for name in heads)),
        zeroed=zeroed,
        resized=tuple(
            f"{name} {tuple(given[name].shape)} to {tuple(value.shape)}"
            for name, value in offered.items()
            if name in given and given[name].shape != value.shape
        ),
        fresh=(*(n for n in wanted if n not in offered), *(f"heads.{n}" for n in model.heads if n not in heads)),
        dropped=(
            *(name for name in given if name not in wanted),
            *(f"heads.{name}" for name in source.model.heads if name not in heads),
            *source.dropped,
        ),
        notes=_notes(source.config, config),
    )


@dataclass(frozen=True)
class _Route:
    """How the parameters of one kind of encoder find their places in another.

    ``into``: what the source's ``encoder.`` becomes. ``fresh``: patterns of the model's parameters that this source
    cannot give.
    """

    into: str = "encoder."
    fresh: tuple[str, ...] = ()

    def rename(self, name: str) -> str:
        return self.into + name.removeprefix("encoder.") if name.startswith("encoder.") else name


_OPTIONAL = ("representation.*", "*.cls")  # what one of two models of a kind may have alone
_TIME = ("*.norm_time.*", "*.attention_time.*")


def _route(source: ModelConfig, target: ModelConfig, init: Init) -> _Route:
    fresh = (*_OPTIONAL, *_left_out(init))
    if isinstance(source, ViTConfig) and isinstance(target, ViTConfig):
        return _Route(fresh=fresh)
    if isinstance(source, ViTConfig) and isinstance(target, ViViTConfig):
        if target.attends == "factorized_encoder":
            return _Route("encoder.spatial.", (*fresh, "encoder.temporal.*"))
        return _Route(fresh=(*fresh, *_TIME))
    if isinstance(source, ViViTConfig) and isinstance(target, ViViTConfig) and source.attends == target.attends:
        return _Route(fresh=fresh)
    raise WeightsError(
        f"{init.source} holds a {_kind(source)}, which cannot start a {_kind(target)}: an image ViT starts a ViT or "
        "any ViViT, a ViViT starts one of its own kind"
    )


def _kind(config: ModelConfig) -> str:
    name = type(config).__name__.removesuffix("Config")
    return f"{name} ({config.attends})" if isinstance(config, ViViTConfig) else name


def _offer(
    given: Mapping[str, Tensor], source: nn.Module, target: nn.Module, route: _Route, init: Init
) -> dict[str, Tensor]:
    """The source's values for the parameters of ``target``, changed where the two differ by design."""
    wanted = dict(target.named_parameters())
    offered = {name: value for name, value in given.items() if name in wanted}
    sources = {route.rename(name): layer for name, layer in source.named_modules()}
    for name, layer in target.named_modules():
        theirs = sources.get(name)
        if isinstance(layer, LearnedPositions) and isinstance(theirs, LearnedPositions):
            offered[f"{name}.table"] = resize_positions(theirs, layer)
        if isinstance(layer, TubeletTokenizer) and isinstance(theirs, TubeletTokenizer):
            offered |= {f"{name}.projection.weight": _inflate(theirs, layer, init)}
    offered |= _temporal_attention(offered, wanted, init)
    return {name: value for name, value in offered.items() if not _matches(name, _left_out(init))}


def _left_out(init: Init) -> tuple[str, ...]:
    return (*init.fresh, "tokenizer.*") if init.kernel == "random" else init.fresh


def _inflate(source: TubeletTokenizer, target: TubeletTokenizer, init: Init) -> Tensor:
    weight, (t, h, w) = source.projection.weight, source.tubelet
    if t > 1 or target.tubelet[0] == 1 or init.kernel == "random":
        return weight
    kernel = rearrange(weight, "D (C h w) -> D C h w", h=h, w=w)
    return rearrange(inflate(kernel, target.tubelet[0], init.kernel), "D C t h w -> D (C t h w)")


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
    given: Mapping[str, Tensor], offered: Mapping[str, Tensor], wanted: Mapping[str, Tensor], route: _Route, init: Init
) -> list[str]:
    """What does not fit: patterns without a parameter, shapes that differ, parameters on one side alone."""
    unmatched = [pattern for pattern in init.fresh if not any(fnmatchcase(name, pattern) for name in wanted)]
    shapes = {name: (tuple(value.shape), tuple(wanted[name].shape)) for name, value in offered.items()}
    missing = [name for name in wanted if name not in offered and not _matches(name, route.fresh)]
    homeless = [name for name in given if name not in wanted and not _matches(name, _OPTIONAL)]
    return [
        *(f"{pattern!r} of Init.fresh matches no parameter" for pattern in unmatched),
        *(f"{name} is {a} in the source and {b} in the model" for name, (a, b) in shapes.items() if a != b),
        *(f"{name} {tuple(wanted[name].shape)} of the model has nothing to start from" for name in missing),
        *(f"{name} {tuple(given[name].shape)} of the source has no place in the model" for name in homeless),
    ]


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _load_heads(source: Loaded, model: Model, tasks: Mapping[str, TaskCard]) -> list[str]:
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


def _other_heads(source: ModelConfig, target: ModelConfig) -> list[str]:
    theirs, ours = _backbone(source).heads, _backbone(target).heads
    return [f"the source's attention has {theirs} heads, the model's {ours}"] if theirs != ours else []


def _notes(source: ModelConfig, target: ModelConfig) -> tuple[str, ...]:
    """What the two do differently with the same weights."""
    theirs, ours = _behaviour(source), _behaviour(target)
    return tuple(
        f"the source was trained with {name} {theirs[name]}, the model has {ours[name]}"
        for name in theirs
        if theirs[name] != ours[name]
    )


def _behaviour(config: ModelConfig) -> dict[str, object]:
    (spec,) = config.inputs.values()
    backbone = _backbone(config)
    return {"gelu": backbone.gelu, "norm_eps": backbone.norm_eps, "pixel mean": spec.mean, "pixel std": spec.std}


def _backbone(config: ModelConfig) -> Backbone:
    assert isinstance(config, ViTConfig | ViViTConfig), config
    return config.backbone
