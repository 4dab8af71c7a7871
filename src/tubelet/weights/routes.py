"""From which parameter of one encoder each parameter of another starts."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from tubelet.models.ast import ASTConfig
from tubelet.models.mbt import MBTConfig
from tubelet.models.model import ModelConfig
from tubelet.models.mtv import MTVConfig
from tubelet.models.polyvit import PolyViTConfig
from tubelet.models.token_learner import TokenLearnerConfig
from tubelet.models.tubevit import TubeViTConfig
from tubelet.models.vit import ViTConfig
from tubelet.models.vivit import ViViTConfig
from tubelet.weights.files import WeightsError
from tubelet.weights.lanes import Tower, best_source, lanes

_OPTIONAL = ("representation.*", "cls", "*.cls", "*.cls.table", "gate.*")  # what one of two of a kind may have alone
_LEARNED = ("*.learner.*", "*.fuser.*")
_TIME = ("*.norm_time.*", "*.attention_time.*")
_MEETING = ("global_encoder.*", "project.*", "laterals.*", "bottleneck.*")  # where an MTV's streams meet


@dataclass(frozen=True)
class ParameterMapping:
    """``origin``: the source's parameter for each of the model's. ``pairs``: each lane of the model with the source's.

    ``fresh``: patterns of the model's parameters that this source cannot give. ``unplaced``: the source's parameters
    that should have found a place; those of lanes that nothing starts from are not among them. ``others``: the model's
    parameters on lanes that another source is for.
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
    each stream. What lies on no lane, such as Model 2's temporal encoder, starts from what has the same name. ``into``
    names a single lane, beside which all stays as it is. Raises WeightsError where the one cannot start the other, or
    where what the model shares is apart in the source.
    """
    fresh = _cannot_give(source, target, name)
    theirs, ours = lanes(source), _chosen(lanes(target), into, name)
    pairs = tuple((a, b) for b in ours if (a := best_source(theirs, b.spec, b.name)).modules.keys() & b.modules.keys())
    if not pairs:
        raise WeightsError(f"{name} holds a {_kind(source)}, which has nothing for {into!r} of a {_kind(target)}")
    aside = _apart(ours, wanted)
    origin = {n: n for n in aside & _apart(theirs, given)} if not into else {}
    for a, b in pairs:
        places = a.places(given)
        for part, n in b.places(wanted).items():
            if part in places and origin.setdefault(n, places[part]) != places[part]:
                raise WeightsError(
                    f"{name} does not fit the model: {n} is one for all modalities, and would start from both "
                    f"{origin[n]} and {places[part]}; {_way_out(target)}"
                )
    expected = {n for a, b in pairs for n in a.places(given).values() if not _unwanted(n, a, b)}
    others = aside - _apart(lanes(target), wanted)
    if into:
        fresh = (*fresh, *aside)
    else:
        expected |= _apart(theirs, given)
    used = set(origin.values())
    unplaced = tuple(n for n in given if n in expected and n not in used and not matches(n, _OPTIONAL))
    return ParameterMapping(
        {n: origin[n] for n in wanted if n in origin}, pairs, (*_OPTIONAL, *fresh), unplaced, frozenset(others)
    )


def _chosen(of: Sequence[Tower], into: str, name: str) -> tuple[Tower, ...]:
    chosen = tuple(lane for lane in of if into in ("", lane.name))
    if not chosen:
        raise WeightsError(
            f"{name} shall start {into!r}, which Init.into names, but the model has {', '.join(a.name for a in of)}"
        )
    return chosen


def _unwanted(parameter: str, source: Tower, target: Tower) -> bool:
    """A final norm, for a stream that has none; learned positions, for a model whose positions are fixed."""
    missing = {"norm", "positions"} & source.modules.keys() - target.modules.keys()
    return any(parameter.startswith(f"{source.modules[part]}.") for part in missing)


def _way_out(target: ModelConfig) -> str:
    if isinstance(target, PolyViTConfig):
        return "the model's adaptor_depth must be at least the source's"
    return "build the model with shared=False, or start it from one modality by Init.into"


def _apart(of: Sequence[Tower], names: Iterable[str]) -> set[str]:
    """The parameters that lie on no lane."""
    names = set(names)
    return names.difference(*(lane.places(names).values() for lane in of))


def _cannot_give(source: ModelConfig, target: ModelConfig, name: str) -> tuple[str, ...]:
    """Patterns of what the source's kind has not and the target's kind has."""
    if _is_joint(source) and _is_joint(target):
        return ()
    of_its_own: dict[type[ModelConfig], tuple[str, ...]] = {
        TokenLearnerConfig: _LEARNED,
        MBTConfig: ("bottleneck",),
        MTVConfig: _MEETING,
        TubeViTConfig: ("tubes.*",),
    }
    if type(target) in of_its_own:
        if type(source) is type(target):
            return ()
        if _is_joint(source):
            return of_its_own[type(target)]
    if isinstance(source, ViTConfig) and isinstance(target, ViViTConfig):
        return ("encoder.temporal.*",) if target.attention_type == "factorized_encoder" else _TIME
    if (
        isinstance(source, ViViTConfig)
        and isinstance(target, ViViTConfig)
        and source.attention_type == target.attention_type
    ):
        return ()
    raise WeightsError(
        f"{name} holds a {_kind(source)}, which cannot start a {_kind(target)}: an image ViT starts any model; ViT, "
        "AST, PolyViT and ViViT's Model 1 (joint) start one another, TokenLearner, MBT, TubeViT and each stream of an "
        "MTV; the others one of their own kind"
    )


def _is_joint(config: ModelConfig) -> bool:
    """Whether all tokens attend to all others in one stack of plain blocks."""
    return isinstance(config, ViTConfig | ASTConfig | PolyViTConfig) or (
        isinstance(config, ViViTConfig) and config.attention_type == "joint"
    )


def _kind(config: ModelConfig) -> str:
    name = type(config).__name__.removesuffix("Config")
    return f"{name} ({config.attention_type})" if isinstance(config, ViViTConfig) else name


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether ``name`` fits one of the patterns, in which * stands for anything."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)
