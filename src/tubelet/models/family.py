"""What every model family says about itself: how it is built, called, started from weights, and explained."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from jaxtyping import Float
from torch import Tensor

from tubelet.nn.blocks import TransformerConfig
from tubelet.nn.encoding import Pool
from tubelet.nn.tokenizers import Tubelet
from tubelet.specs import InputSpec

if TYPE_CHECKING:
    from tubelet.models.model import Encoder

T = TypeVar("T")

SIZES = {
    "ti": TransformerConfig(width=192, depth=12, heads=3, mlp=768),
    "s": TransformerConfig(width=384, depth=12, heads=6, mlp=1536),
    "b": TransformerConfig(width=768, depth=12, heads=12, mlp=3072),
    "l": TransformerConfig(width=1024, depth=24, heads=16, mlp=4096),
    "h": TransformerConfig(width=1280, depth=32, heads=16, mlp=5120),
}
"""The papers' transformers, by the letters that names have for them."""


@dataclass(frozen=True)
class Tower:
    """One path through an encoder, from an input's tokenizer to the pooled features, or to where it meets the others.

    ``spec`` and ``patch`` (t, h, w): what the tokenizer cuts, and into what. ``modules``: by the name of a part
    (tokenizer, cls, positions, blocks.0 to blocks.L-1, norm), the module or the parameter that it is in this encoder.
    ``pool``: whether a class token or the mean is the result, where the tower leads to one. Towers may share modules.
    Starting from other weights, probes, freezing by depth and layer-wise learning rates all find their way by these
    names.
    """

    name: str
    spec: InputSpec
    patch: Tubelet
    backbone: TransformerConfig
    modules: Mapping[str, str]
    stream_of: str = ""
    pool: Pool = "token"

    @property
    def input(self) -> str:
        """The name of the input: the tower's own, unless it is one of several streams of one input."""
        return self.stream_of or self.name

    def places(self, parameters: Iterable[str]) -> dict[str, str]:
        """Those of ``parameters`` that lie on the tower, by a name that is the same in every encoder."""
        found: dict[str, str] = {}
        for name in parameters:
            for part, module in self.modules.items():
                if name == module or name.startswith(f"{module}."):
                    found[part + name.removeprefix(module)] = name
        return found


def block_modules(prefix: str, depth: int, first: int = 0) -> dict[str, str]:
    """The ``modules`` of a tower's blocks ``first`` to ``depth``, which are ``prefix.0``, ``prefix.1`` and so on."""
    return {f"blocks.{i}": f"{prefix}.{i - first}" for i in range(first, depth)}


@dataclass(frozen=True, kw_only=True)
class ModelConfig(ABC):
    """A model as a value: it says everything needed to build the encoder, and nothing about tasks.

    ``build`` and ``inputs`` are all that a family must have. What the others say decides what works with it: names
    (``parse``, ``spelled``, ``examples``), starting from other weights, probes and layer-wise rates (``towers``), other
    inputs (``with_inputs``), explanations (``rollout``). Register a family by
    ``tubelet.configs.register(ModelConfig, "name", TheConfig)``.
    """

    examples: ClassVar[tuple[str, ...]] = ()
    """Names of models of the family: for errors and lists."""

    own: ClassVar[tuple[str, ...]] = ()
    """Patterns of the encoder's parameters that weights of a plain model cannot give, such as ``bottleneck``."""

    keep_apart: ClassVar[str] = "start it from one modality by Init.into"
    """What to do where the weights have for each modality what this model shares."""

    @abstractmethod
    def build(self) -> Encoder:
        """The encoder, freshly initialized."""

    @property
    @abstractmethod
    def inputs(self) -> Mapping[str, InputSpec]:
        """The specs of the inputs, by name, without building anything."""

    @property
    def input_sets(self) -> tuple[tuple[str, ...], ...]:
        """The inputs that a forward pass takes together; several sets where it takes one modality or another."""
        return (tuple(self.inputs),)

    @property
    def may_miss(self) -> bool:
        """Whether some examples of a minibatch may lack some of the inputs; a (B,) input such as "audio_mask" is zero
        for those that lack "audio"."""
        return False

    @property
    def kind(self) -> str:
        """What the model is called in sentences: "ViViT", "MTV"."""
        return type(self).__name__.removesuffix("Config")

    @property
    def variant(self) -> str:
        """The kind, and which one of it where weights of one do not fit another: "ViViT (factorized_encoder)"."""
        return self.kind

    # Names -----------------------------------------------------------------------------------------------------------

    @classmethod
    def parse(cls, name: str, *, frames: int = 0, size: int = 0) -> ModelConfig | None:
        """The config that ``name`` (lower case) stands for, or None where it is no name of this family.

        ``frames`` and ``size`` (pixels, square) replace the papers'. Raises ValueError where the family has neither.
        """
        return None

    def spelled(self) -> str | None:
        """The name that the config would have, if it had one; :attr:`name` checks that the name means this config."""
        return None

    @property
    def name(self) -> str | None:
        """The name whose config this is, up to the inputs' size and the regularizers; None where no name says it."""
        spelled = self.spelled()
        named = type(self).parse(spelled) if spelled else None
        if named is None or _kinds(self) != _kinds(named):
            return None
        plain = self.without_regularizers().with_inputs(named.inputs)
        return spelled if plain == named.without_regularizers() else None

    # Variations ------------------------------------------------------------------------------------------------------

    def with_inputs(self, specs: Mapping[str, InputSpec]) -> ModelConfig:
        """The same model for other inputs: a spec for each name in ``inputs``."""
        raise TypeError(f"{self.kind} does not say how it takes other inputs: its config has no with_inputs()")

    def with_only(self, inputs: Iterable[str]) -> ModelConfig:
        """The same model without the inputs that are not among ``inputs``, where it can do without them."""
        return self

    def without_regularizers(self) -> ModelConfig:
        """The same model with dropout and stochastic depth 0 in all of its transformers."""
        return map_transformers(self, _plain)

    # Starting from weights -------------------------------------------------------------------------------------------

    def towers(self) -> tuple[Tower, ...]:
        """One tower, or one per modality or stream."""
        return ()

    @property
    def is_plain(self) -> bool:
        """Whether all tokens attend to all others in one stack of plain blocks, as in a ViT: such a model starts every
        model that has towers."""
        return False

    def cannot_start_from(self, source: ModelConfig) -> bool:
        """Whether weights of ``source`` fit nothing here."""
        return not (self.towers() and (type(source) is type(self) or source.is_plain))

    def fresh_from(self, source: ModelConfig) -> tuple[str, ...]:
        """Patterns of the parameters that weights of ``source`` cannot give, and that may stay as they were built."""
        return () if type(source) is type(self) else self.own

    def complete(
        self, offered: Mapping[str, Tensor], encoder: Encoder, source: Encoder, towers: tuple[tuple[Tower, Tower], ...]
    ) -> dict[str, Tensor]:
        """Values for parameters of ``encoder`` that the weights lack, made of those ``offered``, by name.

        ``towers``: each tower of ``source`` with the one of this model that starts from it.
        """
        return {}

    # Explanations ----------------------------------------------------------------------------------------------------

    def rollout(self, maps: Mapping[str, Tensor], input: str, given: tuple[str, ...] = ()) -> Float[Tensor, "B t h w"]:
        """Attention rollout: the share of every token of ``input``'s (t, h, w) grid in the result.

        ``maps``: what :func:`~tubelet.nn.attention.capture_attention` saw of the encoder, in one forward pass on the
        inputs ``given`` (``input`` alone, if empty). Class tokens are left out. The shares of all inputs sum to 1. A
        spectrogram's grid is (1, time, frequency). Raises TypeError for a model whose rollout is not written.
        """
        raise TypeError(f"attention rollout is not written for {self.kind}: its config has no rollout()")


def all_subsets(inputs: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """The ``input_sets`` of a model whose inputs may be missing: all of them, then all smaller sets.

    Raises ValueError for more than eight inputs, of which there would be hundreds of sets.
    """
    names = tuple(inputs)
    if len(names) > 8:
        raise ValueError(f"{len(names)} inputs of which any may be missing are too many: at most 8")
    return tuple(chosen for count in range(len(names), 0, -1) for chosen in combinations(names, count))


def map_transformers(value: T, change: Callable[[TransformerConfig], TransformerConfig]) -> T:
    """``value``, a config, with every :class:`TransformerConfig` inside it changed."""
    if isinstance(value, TransformerConfig):
        return change(value)  # pyright: ignore[reportReturnType]
    if is_dataclass(value) and not isinstance(value, type):
        changed: dict[str, Any] = {f.name: map_transformers(getattr(value, f.name), change) for f in fields(value)}
        return replace(value, **changed)
    if isinstance(value, dict):
        return {key: map_transformers(item, change) for key, item in value.items()}  # pyright: ignore
    if isinstance(value, tuple):
        return tuple(map_transformers(item, change) for item in value)  # pyright: ignore
    return value


def _plain(backbone: TransformerConfig) -> TransformerConfig:
    return replace(backbone, dropout=0.0, attention_dropout=0.0, stochastic_depth=0.0, rescale_depth=False)


def _kinds(config: ModelConfig) -> dict[str, type[InputSpec]]:
    return {name: type(spec) for name, spec in config.inputs.items()}


def size_letters(backbone: TransformerConfig) -> str | None:
    """The letters whose transformer this is, whatever its depth and regularizers."""
    plain = _plain(backbone)
    return next((size for size, named in SIZES.items() if replace(named, depth=plain.depth) == plain), None)


PATCH_NAME = r"(?P<size>ti|s|b|l|h)/(?P<patch>\d+)"
"""How names begin after the family: a size and the side of the patches, as in ``b/16``."""


def matched(pattern: str, name: str) -> re.Match[str] | None:
    return re.fullmatch(pattern, name)


def refuse(name: str, kind: str, **given: int) -> None:
    """Raise ValueError where a size or a number of frames is given to a model that has none."""
    if asked := [option for option, value in given.items() if value]:
        raise ValueError(f"{name!r} is {kind}: it has no {' or '.join(asked)} of a video to set")
