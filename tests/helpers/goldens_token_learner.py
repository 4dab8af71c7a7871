"""Goldens of TokenLearner: its modules, and ViTs and ViViTs with it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from goldens_checkpoint import check_checkpoint
from goldens_golden import Golden, close
from goldens_models import check_logits, pool
from tubelet.models import TokenLearnerConfig, ViTConfig, ViViTConfig
from tubelet.models.token_learner import ConvolutionLearner, MLPLearner, TokenFuser
from tubelet.nn.blocks import TransformerConfig
from tubelet.nn.tokenizers import uniform_frames
from tubelet.specs import ImageSpec, VideoSpec
from tubelet.weights.formats import scenic
from tubelet.weights.formats.scenic_token_learner import fuser, learner, token_learner
from tubelet.weights.formats.scenic_vivit import vivit
from tubelet.weights.loaded import load_state

FORMS = {True: "mlp", False: "conv"}


@torch.no_grad()
def check_convolutions(golden: Golden) -> None:
    x = golden.tensor("input/x")
    side = round(x.shape[1] ** 0.5)  # of a list of places, which convolutions take for a square
    x = places(x if x.ndim == 4 else x.unflatten(1, (side, side)))
    module = ConvolutionLearner(width(x), golden.config["num_tokens"], "frame")
    load_state(module, learner(golden.tree("param/"), "conv"), golden.path.name)
    count = 1 if golden.config.get("use_sum_pooling", True) else x[0, 0, :, :, 0].numel()
    close(module(x)[:, 0] / count, golden.arrays["output/out"])


@torch.no_grad()
def check_mlp(golden: Golden) -> None:
    x, c = places(golden.tensor("input/x")), golden.config
    module = MLPLearner(width(x), c["num_tokens"], "frame", c.get("bottleneck_dim", 64))
    load_state(module, learner(golden.tree("param/"), "mlp"), golden.path.name)
    close(module(x)[:, 0], golden.arrays["output/out"])


@torch.no_grad()
def check_fuser(golden: Golden) -> None:
    tokens, original = golden.tensor("input/tokens"), golden.tensor("input/original")
    normalize = golden.config.get("use_normalization", True)
    module = TokenFuser(width(tokens), tokens.shape[1], golden.config.get("bottleneck_dim", 64))
    if not normalize:  # an option of the released module that no released model takes
        module.norm_learned, module.norm_mixed = nn.Identity(), nn.Identity()
    load_state(module, fuser(golden.tree("param/"), normalize=normalize), golden.path.name)
    expected = golden.arrays["output/out"].reshape(len(original), -1, original.shape[-1])
    close(module(tokens, original.flatten(1, -2)), expected)


def places(x: Tensor) -> Tensor:
    """(B, h, w, D), or a list (B, n, D), as one frame. Where the places of a list lie makes no difference to an MLP."""
    return x[:, None] if x.ndim == 4 else x[:, None, None]


def width(x: Tensor) -> TransformerConfig:
    return TransformerConfig(width=x.shape[-1], depth=1, heads=1, mlp=1)


def check_model(golden: Golden) -> None:
    c, tree = golden.config, golden.tree("param/")
    inputs = video_or_image(golden)
    config = config_of(c, inputs)
    encoder = config.build()
    match config:
        case TokenLearnerConfig():
            state = token_learner(tree, config)
        case ViTConfig():
            state = scenic.vit(tree, config)
        case ViViTConfig():
            state = vivit(tree, config)
    load_state(encoder, state, tree.origin)
    check_checkpoint(golden.under("param/"), config, encoder.state_dict())
    check_logits(golden, tree, encoder, inputs, c["classifier"])


@torch.no_grad()
def check_representation(golden: Golden) -> None:
    """Without a head: the tokens. Of a video, every frame is cut into patches, and the frames are attended together."""
    tree, inputs = golden.tree("param/"), video_or_image(golden)
    config = config_of({**golden.config, "classifier": "gap"}, inputs)
    assert isinstance(config, TokenLearnerConfig)
    encoder = config.build().eval()
    load_state(encoder, token_learner(tree, config), tree.origin)
    check_checkpoint(golden.under("param/"), config, encoder.state_dict())
    assert tree.finish() == (), "the golden's parameters are all used"
    close(encoder(inputs).tokens, golden.arrays["output/out"])


def video_or_image(golden: Golden) -> dict[str, Tensor]:
    """The input; a video of which frames are sampled holds these alone."""
    x = golden.tensor("input/x").movedim(-1, -3)
    if x.ndim == 4:
        return {"image": x}
    encoding = golden.config["tokenizer"].get("temporal_encoding_config", {})
    if encoding.get("method") == "temporal_sampling":
        x = x[:, uniform_frames(x.shape[1], encoding["n_sampled_frames"])]
    return {"video": x}


def config_of(c: dict[str, Any], inputs: dict[str, Tensor]) -> TokenLearnerConfig | ViTConfig | ViViTConfig:
    ((name, x),) = inputs.items()
    tokenizer = c["tokenizer"]
    pixels = {"size": tuple(x.shape[-2:]), "short_side": min(x.shape[-2:])}
    channels = {"mean": (0.5,) * x.shape[-3], "std": (0.5,) * x.shape[-3]}
    spec = VideoSpec(frames=x.shape[1], **pixels, **channels) if name == "video" else ImageSpec(**pixels, **channels)
    backbone = TransformerConfig(width=c["hidden_size"], depth=c["num_layers"], heads=c["num_heads"], mlp=c["mlp_dim"])
    h, w, *t = tokenizer["patches"]["size"]
    sampled = tokenizer.get("temporal_encoding_config", {}).get("method") == "temporal_sampling"
    patch = (1 if sampled or not t else t[0], h, w)
    size = c.get("representation_size") or 0
    assert pool(c["classifier"]) == "mean"
    if tokenizer["type"] == "patch" or tokenizer["tokenlearner_loc"] >= c["num_layers"]:  # nothing is learned
        if isinstance(spec, VideoSpec):
            return ViViTConfig(backbone=backbone, tubelet=patch, video=spec, pool="mean", representation=size)
        return ViTConfig(backbone=backbone, patch=(h, w), image=spec, pool="mean", representation=size)
    return TokenLearnerConfig(
        backbone=backbone,
        spec=spec,
        patch=patch,
        tokens=tokenizer["num_tokens"],
        layer=tokenizer["tokenlearner_loc"],
        form=FORMS[tokenizer.get("use_v11", True)],
        fuse=tokenizer["use_tokenfuse"],
        representation=size,
    )
