"""The released TokenLearner's parameters in our names."""

from __future__ import annotations

from einops import rearrange
from torch import Tensor

from tubelet.models import ModelConfig
from tubelet.models.token_learner import Form, TokenLearnerConfig
from tubelet.weights.formats.scenic import (
    BLOCK,
    Table,
    backbone_of,
    leaf,
    places_of,
    representation,
    representation_width,
    tokenizer,
)
from tubelet.weights.formats.scenic_shapes import image_spec, is_video, patch_of, untold, video_spec
from tubelet.weights.formats.tree import Tree, gather

_MASKING = {"mlp.0": ["token_masking/Dense_0"], "mlp.3": ["token_masking/Dense_1"]}
_FUSER = {
    "norm_learned": ["fuser_mix_norm1"],
    "norm_mixed": ["fuser_mix_norm2"],
    "norm_places": ["LayerNorm_0"],
    "mix": ["Dense_0"],
    **_MASKING,
}
_MODULES: dict[Form, str] = {"mlp": "TokenLearnerModuleV11", "conv": "TokenLearnerModule"}


def learner_form(tree: Tree) -> Form | None:
    """Which TokenLearner is there, if any."""
    return next((form for form, name in _MODULES.items() if f"Transformer/{name}_0/LayerNorm_0/scale" in tree), None)


def token_learner_config(tree: Tree, like: ModelConfig | None = None) -> TokenLearnerConfig:
    """The config of a TokenLearner, read off its names and shapes.

    Before which layer tokens are learned is told where they are fused back; else ``like`` must be a TokenLearner. It
    also says whether patches are of pictures or of frames.
    """
    told, form = like if isinstance(like, TokenLearnerConfig) else None, learner_form(tree) or "mlp"
    size = backbone_of(tree, "Transformer")
    first = f"Transformer/{_MODULES[form]}_0"
    tokens = (
        tree.shape(f"{first}/token_masking/Dense_1/bias", 1)[0]
        if form == "mlp"
        else tree.shape(f"{first}/Conv_3/kernel", 4)[-1]
    )
    fused = tree.count("Transformer/TokenFuser_{}/LayerNorm_0/scale")
    if not fused and told is None:
        raise untold(tree, "before which layer tokens are learned", f"vit-b/16-tl{tokens}@9")
    patch, channels = patch_of(tree)
    spec = video_spec if is_video(tree) or (told and told.input == "video") else image_spec
    return TokenLearnerConfig(
        backbone=size,
        spec=spec(tree, like, patch, places_of(tree, "Transformer", "mean"), channels),
        patch=patch,
        tokens=tokens,
        layer=size.depth - fused if fused else told.layer if told else 0,
        form=form,
        over=told.over if told else "frame",
        fuse=fused > 0,
        representation=representation_width(tree),
    )


def token_learner(tree: Tree, config: TokenLearnerConfig) -> dict[str, Tensor]:
    """The state of a :class:`~tubelet.models.token_learner.TokenLearnerViT`; a fusing layer's modules are numbered from
    the first of them."""
    state = {
        **tokenizer(tree),
        "positions.table": tree.take("Transformer/posembed_input/pos_embedding")[0],
        **gather({"norm": ["Transformer/encoder_norm"]}, leaf(tree), "after.transformer."),
        **representation(tree, config.representation),
    }
    for i in range(config.backbone.depth):
        place = i - config.layer
        ours = f"after.transformer.blocks.{place}." if place >= 0 else f"before.blocks.{i}."
        state |= gather(_under(f"Transformer/encoderblock_{i}/", BLOCK), leaf(tree), ours)
        if config.fuse and place >= 0:
            state |= learner(tree, config.form, f"Transformer/{_learner_name(config)}_{place}/", f"{ours}learner.")
            state |= fuser(tree, f"Transformer/TokenFuser_{place}/", f"{ours}fuser.")
    if not config.fuse:
        state |= learner(tree, config.form, f"Transformer/{_learner_name(config)}_0/", "after.learner.")
    return state


def learner(tree: Tree, form: str, theirs: str = "", ours: str = "") -> dict[str, Tensor]:
    """The state of a :class:`~tubelet.models.token_learner.TokenLearner` of v1.0 ("conv") or v1.1 ("mlp")."""
    state = gather(_under(theirs, {"norm": ["LayerNorm_0"]}), leaf(tree), ours)
    if form == "mlp":
        return state | gather(_under(theirs, _MASKING), leaf(tree), ours)
    kernels = {f"{ours}convolutions.{i}.weight": tree.take(f"{theirs}Conv_{i}/kernel") for i in range(4)}
    return state | {name: rearrange(kernel, "h w C D -> D C h w") for name, kernel in kernels.items()}


def fuser(tree: Tree, theirs: str = "", ours: str = "", *, normalize: bool = True) -> dict[str, Tensor]:
    """The state of a :class:`~tubelet.models.token_learner.TokenFuser`; without its norms, the released option."""
    table = {name: x for name, x in _FUSER.items() if normalize or name not in ("norm_learned", "norm_mixed")}
    return gather(_under(theirs, table), leaf(tree), ours)


def _learner_name(config: TokenLearnerConfig) -> str:
    return _MODULES[config.form]


def _under(prefix: str, table: Table) -> Table:
    return {ours: [f"{prefix}{name}" for name in theirs] for ours, theirs in table.items()}
