"""Starting a model from pretrained weights (ViViT Sec. 3.4, PolyViT Sec. 4.3 and App. D): what goes where.

Every family says by its towers where the parts of its encoder are. A parameter on a tower starts from the one that has
its place on the tower it is paired with; what lies on no tower, from the one of the same name. Layers whose numbers
depend on the size of the input resample the values themselves.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tubelet.cards import TaskCard
from tubelet.configs.convert import name_of
from tubelet.models import Encoder, Model, ModelConfig, Tower
from tubelet.nn.blocks import TransformerConfig
from tubelet.nn.inflation import Inflation
from tubelet.nn.layer_scale import ScaledLinear
from tubelet.specs import InputSpec, TextSpec
from tubelet.weights.files import WeightsError
from tubelet.weights.folder import load_model
from tubelet.weights.formats.word_vectors import TABLE, is_word_vectors, load_word_vectors
from tubelet.weights.loaded import LoadedModel, listed

_OPTIONAL = ("representation.*", "cls", "*.cls", "*.cls.table", "gate.*")  # what one of two of a kind may have alone
_ALONE = {
    "norm",
    "positions",
    "tokenizer",
    "registers",
    "norm_tokens",
    "attention_pool",
}  # what a source may have alone
_MAY_LACK = ("positions", "registers", "attention_pool")  # what stays as it was built, where a source has none
_ORDER = ("image", "video", "audio")  # what an input starts from that has nothing of its own kind


@dataclass(frozen=True, kw_only=True)
class Init:
    """Weights to start from.

    ``source``: whatever :func:`~tubelet.weights.folder.load_model` reads: a model folder, a transformers or timm ViT, a
    checkpoint of the released code, ``hf:org/name``; what such a checkpoint does not tell of itself (where an MBT's
    modalities meet) is taken to be as in the model. ``into``: the stream of an MTV, or the modality, that they are for;
    all, if empty. ``kernel``: how a 2D patch kernel becomes a tubelet kernel (Sec. 3.4 and
    :func:`~tubelet.nn.inflation.inflate`; "repeat" is PolyViT's for probes); a tubelet kernel becomes a 2D one by
    the sum over its frames; one of another size is resized linearly, as MTV's released code does; "random" leaves the
    tokenizers as they were built. ``fresh``: patterns of encoder parameters (``encoder.positions.*``) that stay as they
    were built. What parameters start from that only one family has, its config says (``ViViTConfig.temporal_start``,
    ``MBTConfig.bottleneck_start``).

    Positions are always interpolated in (t, h, w): an image's are repeated in time and resized in space; for an image a
    video's are averaged over time. Every modality of a PolyViT or an MBT starts from the source's own of its kind, else
    from its image, video or audio, in this order; a PolyViT's adaptors from the source's first layers, the shared ones
    from the others. A stream of an MTV has a class token per time index: an image's serves for all. Of a TubeViT,
    "video" is the tubes alone: an image ViT for all and a small TubeViT into "video" are its scaling method (Sec. 3.6).
    """

    source: str
    into: str = ""
    kernel: Inflation | Literal["random"] = "central"
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

    A source may also be a text file of word vectors, for a model that takes captions. A head is loaded where the source
    has one of the same name whose classes are those in ``tasks``. Raises WeightsError, naming keys and shapes, where a
    source does not fit; the model is then as it was before that source.
    """
    return [
        _from_word_vectors(model, init)
        if is_word_vectors(init.source)
        else initialize_from(load_model(init.source, config), model, config, init, tasks)
        for init in inits
    ]


def _from_word_vectors(model: Model, init: Init) -> InitReport:
    found = load_word_vectors(model.encoder, init.source)
    return InitReport(
        source=init.source,
        into=init.into,
        loaded=(TABLE,),
        zeroed=(),
        resized=(),
        fresh=(),
        dropped=(),
        notes=(str(found),),
    )


@torch.no_grad()
def initialize_from(
    source: LoadedModel, model: Model, config: ModelConfig, init: Init, tasks: Mapping[str, TaskCard] | None = None
) -> InitReport:
    """Start ``model`` from a source that is loaded already; see :func:`initialize`."""
    given, offered, route = _prepare(source, model.encoder, config, init)
    wanted = dict(model.encoder.named_parameters())
    for name, value in offered.items():
        wanted[name].copy_(value)
    heads = _load_heads(source, model, tasks or {})
    zeroed = tuple(name for name, value in offered.items() if name not in route.origin and not value.any())
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


@torch.no_grad()
def check_start(source: LoadedModel, encoder: Encoder, config: ModelConfig, init: Init) -> None:
    """Raise WeightsError, naming keys and shapes, where ``encoder`` cannot start from a source; nothing is changed.

    The encoder's parameters need no memory: they may be on the device "meta".
    """
    _prepare(source, encoder, config, init)


def _prepare(
    source: LoadedModel, target: Encoder, config: ModelConfig, init: Init
) -> tuple[dict[str, nn.Parameter], dict[str, Tensor], ParameterMapping]:
    """The source's parameters, what they offer the target's, and the route between them. Raises WeightsError."""
    encoder = _like(source.model.encoder, target)
    given, wanted = dict(encoder.named_parameters()), dict(target.named_parameters())
    route = plan_transfer(source.config, config, given, wanted, init.source, init.into)
    offered = _offer(encoder, target, config, route, init)
    if problems := [*_other_heads(route), *_misfits(given, offered, wanted, route, init)]:
        into = " and Init.into names the stream or modality that it is for" if len(route.pairs) > 1 else ""
        raise WeightsError(
            f"{init.source} does not fit the model; Init.fresh leaves parameters out{into}: {listed(problems)}"
        )
    return given, offered, route


def _like(source: Encoder, target: Encoder) -> Encoder:
    """The source, its layer scale in the weights that it scales where the target has none."""
    if _has_layer_scale(target) or not _has_layer_scale(source):
        return source
    source = deepcopy(source)
    for module in list(source.modules()):
        for name, layer in module.named_children():
            if isinstance(layer, ScaledLinear):
                setattr(module, name, layer.plain())
    return source


def _has_layer_scale(encoder: Encoder) -> bool:
    return any(isinstance(layer, ScaledLinear) for layer in encoder.modules())


def _offer(
    source: Encoder, target: Encoder, config: ModelConfig, route: ParameterMapping, init: Init
) -> dict[str, Tensor]:
    """The source's values for the parameters of ``target``, resampled where a layer says how."""
    left_out = _left_out(init)
    kept = {name: theirs for name, theirs in route.origin.items() if not matches(name, left_out)}
    offered: dict[str, Tensor] = {name: source.get_parameter(theirs) for name, theirs in kept.items()}
    how = "central" if init.kernel == "random" else init.kernel
    for path, layer in target.named_modules():
        if isinstance(layer, ScaledLinear) and f"{path}.weight" in offered:
            offered.setdefault(f"{path}.gamma", torch.ones_like(layer.gamma))  # the source's branches are whole
        resample: Any = getattr(layer, "resample", None)
        for name, _ in layer.named_parameters() if resample else ():
            full = f"{path}.{name}"
            if full in offered:
                offered[full] = resample(name, offered[full], _owner(source, kept[full], name), how)
    completed = config.complete(offered, target, source, route.pairs)
    return offered | {name: value for name, value in completed.items() if not matches(name, left_out)}


def _owner(source: nn.Module, parameter: str, name: str) -> nn.Module:
    """The layer of the source that has ``parameter`` where the target's layer has ``name``, or its nearest module."""
    path = parameter.removesuffix(f".{name}") if parameter.endswith(f".{name}") else parameter.rpartition(".")[0]
    return source.get_submodule(path)


def _left_out(init: Init) -> tuple[str, ...]:
    return (*init.fresh, "tokenizer.*", "*.tokenizer.*", "patches.*") if init.kernel == "random" else init.fresh


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
        if source.tasks[name].same_head(tasks[name]) and _shapes(source.model.heads[name]) == _shapes(model.heads[name])
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


def _of(tower: Tower, route: ParameterMapping) -> str:
    return f" ({tower.name})" if len(route.pairs) > 1 else ""


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


# Which parameter starts from which ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class ParameterMapping:
    """``origin``: the source's parameter for each of the model's. ``pairs``: each tower of the model with the source's.

    ``fresh``: patterns of the model's parameters that this source cannot give. ``unplaced``: the source's parameters
    that should have found a place; those of towers that nothing starts from are not among them. ``others``: the model's
    parameters on towers that another source is for.
    """

    origin: dict[str, str]
    pairs: tuple[tuple[Tower, Tower], ...]
    fresh: tuple[str, ...]
    unplaced: tuple[str, ...]
    others: frozenset[str]

    @property
    def used(self) -> set[str]:
        return set(self.origin.values())


def plan_transfer(
    source: ModelConfig,
    target: ModelConfig,
    given: Collection[str],
    wanted: Collection[str],
    name: str,
    into: str = "",
) -> ParameterMapping:
    """The route between two kinds of models, by their parameters' names. ``name`` is the source's, for errors.

    Each modality of the model starts from the source's own of it, or from the nearest (:func:`best_source`); so does
    each stream. What lies on no tower, such as Model 2's temporal encoder, starts from what has the same name. ``into``
    names a single tower, beside which all stays as it is. Raises WeightsError where the one cannot start the other, or
    where what the model shares is apart in the source.
    """
    _check_can_start(source, target, name)
    fresh = target.fresh_from(source)
    theirs, ours = source.towers(), _chosen(target.towers(), into, name)
    pairs = tuple((a, b) for b in ours if _can_start(a := best_source(theirs, b.spec, b.name), b))
    if not pairs:
        raise WeightsError(f"{name} holds a {source.variant}, which has nothing for {into!r} of a {target.variant}")
    aside = _apart(ours, wanted)
    origin = {n: n for n in aside & _apart(theirs, given)} if not into else {}
    for a, b in pairs:
        places = a.places(given)
        for part, n in b.places(wanted).items():
            if part in places and origin.setdefault(n, places[part]) != places[part]:
                raise WeightsError(
                    f"{name} does not fit the model: {n} is one for all modalities, and would start from both "
                    f"{origin[n]} and {places[part]}; {target.keep_apart}"
                )
    expected = {n for a, b in pairs for n in a.places(given).values() if not _unwanted(n, a, b)}
    others = aside - _apart(target.towers(), wanted)
    if into:
        fresh = (*fresh, *aside)
    else:
        expected |= _apart(theirs, given)
    lacking = [b.modules[p] for a, b in pairs for p in _MAY_LACK if p in b.modules.keys() - a.modules]
    fresh = (*fresh, *(f"{module}{end}" for module in lacking for end in ("", ".*")))
    used = set(origin.values())
    unplaced = tuple(n for n in given if n in expected and n not in used and not matches(n, _OPTIONAL))
    return ParameterMapping(
        {n: origin[n] for n in wanted if n in origin}, pairs, (*_OPTIONAL, *fresh), unplaced, frozenset(others)
    )


def _can_start(source: Tower, target: Tower) -> bool:
    """Whether a tower has something for another. Captions start from captions alone."""
    words = [isinstance(tower.spec, TextSpec) for tower in (source, target)]
    return words[0] == words[1] and bool(source.modules.keys() & target.modules.keys())


def _chosen(of: Sequence[Tower], into: str, name: str) -> tuple[Tower, ...]:
    chosen = tuple(tower for tower in of if into in ("", tower.name))
    if not chosen:
        raise WeightsError(
            f"{name} shall start {into!r}, which Init.into names, but the model has {', '.join(a.name for a in of)}"
        )
    return chosen


def _unwanted(parameter: str, source: Tower, target: Tower) -> bool:
    """A final norm, for a stream that has none; learned positions, for a model whose positions are fixed or are others;
    a tokenizer of pixels, for waveforms; what only some image ViTs have."""
    missing = _ALONE & source.modules.keys() - target.modules.keys()
    modules = [source.modules[part] for part in missing]
    return any(parameter == module or parameter.startswith(f"{module}.") for module in modules)


def _apart(of: Sequence[Tower], names: Iterable[str]) -> set[str]:
    """The parameters that lie on no tower."""
    names = set(names)
    return names.difference(*(tower.places(names).values() for tower in of))


def _check_can_start(source: ModelConfig, target: ModelConfig, name: str) -> None:
    if target.cannot_start_from(source):
        raise WeightsError(
            f"{name} holds a {source.variant}, which cannot start a {target.variant}: an image ViT starts any model; "
            "ViT, AST, PolyViT and ViViT's Model 1 (joint) start one another, TokenLearner, MBT, TubeViT and each "
            "stream of an MTV; the others one of their own kind"
        )


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether ``name`` fits one of the patterns, in which * stands for anything."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def best_source(sources: Sequence[Tower], spec: InputSpec, name: str = "") -> Tower:
    """The tower that an input of ``spec`` starts from: one of its kind, best that of its ``name``; else the image's,
    the video's or the audio's, in this order."""

    def distance(tower: Tower) -> tuple[bool, bool, int]:
        kind = tower.spec.modality
        order = _ORDER.index(kind) if kind in _ORDER else len(_ORDER)
        return type(tower.spec) is not type(spec), tower.name != name, order

    return min(sources, key=distance)
