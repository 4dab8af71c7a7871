"""TokenLearner beyond what the goldens and the zoo show: what its tokens are, and where it may stand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tubelet.costs.cost import cost
from tubelet.models import TokenLearnerConfig, ViTConfig, model_config
from tubelet.models.token_learner import (
    AttentionLearner,
    ConvolutionLearner,
    FusingBlock,
    MLPLearner,
    Over,
    TokenLearner,
    build_learner,
)
from tubelet.nn.attention import capture_attention
from tubelet.nn.blocks import TransformerConfig
from tubelet.specs import VideoSpec
from tubelet.weights.loaded import LoadedModel, build_model
from tubelet.weights.transfer import Init, initialize_from
from zoo import SMALL, ZOO, build, example

SIZE = TransformerConfig(width=16, depth=2, heads=4, mlp=32)
EVERY_FORM = pytest.mark.parametrize("learner", [ConvolutionLearner, MLPLearner, AttentionLearner])


@EVERY_FORM
def test_learned_from_every_frame_alone_or_from_the_clip(learner: type[TokenLearner]) -> None:
    x = torch.randn(2, 3, 4, 5, 16)
    frames = learner(SIZE, 7, "frame")
    assert frames(x).shape == (2, 3, 7, 16)
    torch.testing.assert_close(frames(x)[:, 1:2], frames(x[:, 1:2]))
    clip = learner(SIZE, 7, "clip")
    assert clip(x).shape == (2, 1, 7, 16)
    assert clip.weights(x).shape == (2, 1, 7, 60)
    assert not torch.allclose(clip(x), clip(x.flip(2)[:, :1].expand_as(x)))


@pytest.mark.parametrize("over", ["frame", "clip"])
def test_tokens_are_weighted_sums_of_the_places(over: Over) -> None:
    x = torch.randn(1, 2, 3, 4, 16)
    rows = x.flatten(2, 3) if over == "frame" else x.flatten(1, 3)[:, None]
    mlp, conv = MLPLearner(SIZE, 5, over), ConvolutionLearner(SIZE, 5, over)
    norm = F.layer_norm(x, (16,), eps=1e-6)
    hidden = F.gelu(norm @ mlp.mlp[0].weight.T + mlp.mlp[0].bias, approximate="tanh")
    scores = hidden @ mlp.mlp[3].weight.T + mlp.mlp[3].bias
    alpha = (scores.flatten(2, 3) if over == "frame" else scores.flatten(1, 3)[:, None]).softmax(2)
    torch.testing.assert_close(mlp(x), torch.einsum("bgns,bgnd->bgsd", alpha, rows))
    y = norm[0].permute(0, 3, 1, 2)
    for i, layer in enumerate(conv.convolutions):
        y = F.conv2d(F.gelu(y, approximate="tanh") if i else y, layer.get_parameter("weight"), padding=1)
    alpha = y.sigmoid().flatten(2)
    alpha = alpha[None] if over == "frame" else alpha.transpose(0, 1).flatten(1)[None, None]
    torch.testing.assert_close(conv(x), torch.einsum("bgsn,bgnd->bgsd", alpha, rows))


def test_attention_form_reads_its_places_by_learned_queries() -> None:
    learner, x = AttentionLearner(SIZE, 5, "clip"), torch.randn(2, 2, 3, 4, 16)
    shuffled = x.flatten(1, 3)[:, torch.randperm(24)].view_as(x)
    torch.testing.assert_close(learner(x), learner(shuffled))  # a set of places, no grid
    torch.testing.assert_close(learner.weights(x).sum(-1), torch.ones(2, 1, 5))


def test_a_fusing_block_is_a_residual_connection_at_first() -> None:
    x = torch.randn(2, 2, 3, 4, 16)
    block = FusingBlock(SIZE, 0.0, build_learner(SIZE, 5))
    torch.testing.assert_close(block(x), x)


def test_only_learned_tokens_go_through_the_later_layers() -> None:
    for name, tokens in {"token-learner": 3, "token-learner-video": 9, "token-learner-clip": 3}.items():
        model = build(ZOO[name]).eval()
        assert model.encoder(example(ZOO[name])).tokens.shape[1] == tokens
    fused = build(ZOO["token-learner-video-fused"]).eval()
    with capture_attention(fused.encoder) as maps:
        features = fused.encoder(example(ZOO["token-learner-video-fused"]))
    assert features.tokens.shape[1] == 3 * 2 * 3
    assert maps["after.transformer.blocks.0.attention"].shape[-2:] == (9, 9)
    assert maps["after.transformer.blocks.0.learner"].shape == (2, 3, 3, 6)


def test_learning_early_costs_less() -> None:
    def multiply_adds(name: str) -> int:
        return cost(model_config(name), 1000).multiply_adds

    early, late, never = (multiply_adds(f"vit-b/16{suffix}") for suffix in ("-tl8@6", "-tl8@9", ""))
    assert early < 0.53 * never
    assert early < late < 0.79 * never
    assert multiply_adds("vit-b/16-tlf8@6") < 1.03 * early


def test_names_say_tokens_layer_and_further_layers() -> None:
    config = model_config("vit-l/16-tl16@12+11", size=512)
    assert isinstance(config, TokenLearnerConfig)
    assert (config.tokens, config.layer, config.backbone.depth, config.fuse) == (16, 12, 35, False)
    video = model_config("vivit-b/16x2-tlf8@6", frames=16)
    assert isinstance(video, TokenLearnerConfig)
    assert (video.patch, video.spec, video.fuse) == ((2, 16, 16), VideoSpec(frames=16), True)
    assert replace(video, form="conv").name is None
    for wrong in ("vivit-b/16-tl8@6", "vit-b/16x2-tl8@6", "vivit-b/16x2-fe-tl8@6", "ast-b/16-tl8@6", "vit-b/16-tl8"):
        with pytest.raises(ValueError, match="names look like"):
            model_config(wrong)
    with pytest.raises(ValueError, match=r"layer=12"):
        model_config("vit-b/16-tl8@12")


@pytest.mark.parametrize("name", ["token-learner", "token-learner-video-fused", "token-learner-clip"])
def test_starts_from_an_image_vit(name: str) -> None:
    config = ZOO[name]
    assert isinstance(config, TokenLearnerConfig)
    vit = ViTConfig(backbone=SMALL, patch=(8, 8), image=ZOO["token-learner"].inputs["image"])
    source, model = LoadedModel(build(vit), vit), build_model(config, {})
    before = {n: p.clone() for n, p in model.named_parameters()}
    report = initialize_from(source, model, config, Init(source="a ViT"))
    theirs = dict(source.model.encoder.named_parameters())
    blocks = [*model.encoder.get_submodule("before.blocks"), *model.encoder.get_submodule("after.transformer.blocks")]
    for i, block in enumerate(blocks):
        mine = dict(block.named_parameters())
        for part in ("attention.qkv.weight", "mlp.3.bias", "norm_mlp.weight"):
            assert torch.equal(mine[part], theirs[f"encoder.transformer.blocks.{i}.{part}"])
    assert all(".learner." in n or ".fuser." in n for n in report.fresh)
    assert all(torch.equal(unchanged(model, n), before[f"encoder.{n}"]) for n in report.fresh)
    assert report.dropped == ("encoder.cls", "heads.task")


def unchanged(model: torch.nn.Module, name: str) -> Tensor:
    return model.get_parameter(f"encoder.{name}").detach()
