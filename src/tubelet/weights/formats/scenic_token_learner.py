"""The released TokenLearner's parameters in our names."""

from __future__ import annotations

from einops import rearrange
from torch import Tensor

from tubelet.models.token_learner import TokenLearnerConfig
from tubelet.weights.formats.scenic import BLOCK, Table, leaf, representation, tokenizer
from tubelet.weights.formats.tree import Tree, gather

_MASKING = {"mlp.0": ["token_masking/Dense_0"], "mlp.3": ["token_masking/Dense_1"]}
_FUSER = {
    "norm_learned": ["fuser_mix_norm1"],
    "norm_mixed": ["fuser_mix_norm2"],
    "norm_places": ["LayerNorm_0"],
    "mix": ["Dense_0"],
    **_MASKING,
}


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
    return "TokenLearnerModule" if config.form == "conv" else "TokenLearnerModuleV11"


def _under(prefix: str, table: Table) -> Table:
    return {ours: [f"{prefix}{name}" for name in theirs] for ours, theirs in table.items()}
