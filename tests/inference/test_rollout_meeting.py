"""Attention rollout where tokens are learned, and where modalities or streams meet: against the product of matrices."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from senses import small_mbt, write_senses
from tubelet.inference.predictor import Predictor
from tubelet.models import MBTConfig, Model, ModelConfig, MTVConfig, TokenLearnerConfig
from tubelet.models.mtv import BottleneckFusion, CrossViewFusion
from tubelet.nn.attention import capture_attention
from tubelet.weights.loaded import LoadedModel
from zoo import ZOO, build, example

GRIDS = {"video": (3, 2, 3), "audio": (1, 3, 2), "image": (1, 2, 3)}
OWN = "modalities.{}.stack.blocks.{}.attention"
KINDS = MBTConfig | MTVConfig | TokenLearnerConfig
MEETING = {name: config for name, config in ZOO.items() if isinstance(config, KINDS)}


def maps_of(config: ModelConfig) -> dict[str, Tensor]:
    model = build(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
        with capture_attention(model.encoder) as maps:
            model.encoder(example(config))
        return maps


def grid(config: ModelConfig, name: str) -> tuple[int, int, int]:
    if isinstance(config, MTVConfig):
        return (1, 6, 2) if name == "audio" else (6, 2, 3)
    return GRIDS[name]


@pytest.mark.parametrize("name", MEETING)
def test_shares_cover_the_grids_of_all_inputs_and_sum_to_one(name: str) -> None:
    config = MEETING[name]
    maps, inputs = maps_of(config), example(config)
    if isinstance(config, TokenLearnerConfig) and config.fuse:
        with pytest.raises(TypeError, match="fuse=True"):
            config.rollout(maps, next(iter(inputs)))
        return
    shares = {key: config.rollout(maps, key, tuple(inputs)) for key in inputs}
    for key, x in shares.items():
        assert x.shape == (2, *grid(config, key))
        assert (x >= 0).all()
    total = torch.stack([x.flatten(1).sum(1) for x in shares.values()]).sum(0)
    torch.testing.assert_close(total, torch.ones(2))


def mixed(weights: Tensor) -> Tensor:
    """Half the residual connection, half the mean attention, of the first example."""
    mean = weights[0].mean(-3)
    return (torch.eye(mean.shape[-1]) + mean) / 2


def test_a_bottlenecks_rollout_is_the_product_of_its_layers() -> None:
    """One matrix per layer among the 19 tokens of video, the 7 of sound and the 3 of the bottleneck."""
    config = ZOO["mbt"]
    maps, N, M, K = maps_of(config), 19, 7, 3
    result = torch.zeros(N + M + K)
    result[[0, N]] = 0.5
    apart, met = torch.eye(N + M + K), torch.zeros(N + M + K, N + M + K)
    apart[:N, :N], apart[N : N + M, N : N + M] = (
        mixed(maps[OWN.format("video", 0)]),
        mixed(maps[OWN.format("audio", 0)]),
    )
    for name, own in {"video": torch.arange(N), "audio": torch.arange(N, N + M)}.items():
        places, weights = torch.cat([own, torch.arange(N + M, N + M + K)]), mixed(maps[OWN.format(name, 1)])
        met[own[:, None], places] = weights[: len(own)]
        met[torch.arange(N + M, N + M + K)[:, None], places] += weights[len(own) :] / 2
    expected = result @ met @ apart
    tokens = torch.cat([expected[1:N], expected[N + 1 : N + M]])
    tokens = tokens / tokens.sum()
    shares = torch.cat([config.rollout(maps, name, ("video", "audio"))[0].flatten() for name in ("video", "audio")])
    torch.testing.assert_close(shares, tokens, atol=1e-6, rtol=1e-5)


def one_stream_apart(config: MTVConfig) -> tuple[dict[str, Tensor], Tensor]:
    """Maps, and the share of each of six frames in the global encoder's answer."""
    maps = maps_of(config)
    answer = torch.zeros(7)
    answer[0] = 1
    frames = (answer @ mixed(maps["global_encoder.transformer.blocks.0.attention"]))[1:]
    return maps, frames / frames.sum()


def test_cross_views_rollout_is_the_product_of_its_layers() -> None:
    """Two streams of one and six frames of 1 + 6 tokens, in one step: 7 + 42 tokens."""
    config = replace(ZOO["mtv-mlp"], fusion=CrossViewFusion(layers=(1,)))
    maps, frames = one_stream_apart(config)
    result = torch.zeros(7 + 42)
    result[0] = frames.sum() / 2
    result[7::7] = frames / 2
    blocks = [
        [mixed(maps[f"streams.{name}.stack.blocks.{i}.attention"]) for name in ("coarse", "fine")] for i in range(2)
    ]
    own = [torch.block_diag(*pair) for pair in blocks]
    crossing = torch.eye(49)
    crossing[:7, :7] /= 2
    crossing[:7, 7:] = maps["laterals.1.cross.coarse.attention"][0].mean(0) / 2
    expected = result @ own[1] @ crossing @ own[0]
    coarse, fine = expected[1:7], expected[7:].unflatten(0, (6, 7))[:, 1:]
    shares = (coarse[None] / 6 + fine) / (coarse.sum() + fine.sum())
    torch.testing.assert_close(config.rollout(maps, "video")[0].flatten(1), shares, atol=1e-6, rtol=1e-5)


def test_bottleneck_turns_are_taken_back_one_by_one() -> None:
    """The fine stream writes before the coarse one reads."""
    config = replace(ZOO["mtv-mlp"], fusion=BottleneckFusion(layers=(0,), tokens=2))
    maps, frames = one_stream_apart(config)
    size = 7 + 42 + 2
    result = torch.zeros(size)
    result[0] = 0.5
    result[7:49:7] = frames / 2
    places = {"coarse": [*range(7), 49, 50], "fine": [*range(7, 51)]}

    def layer(name: str, i: int) -> Tensor:
        matrix, weights = torch.eye(size), mixed(maps[f"streams.{name}.stack.blocks.{i}.attention"])
        at = torch.tensor(places[name][: len(weights)])
        matrix[at[:, None], at] = weights
        return matrix

    expected = result @ layer("coarse", 1) @ layer("fine", 1) @ layer("coarse", 0) @ layer("fine", 0)
    coarse, fine = expected[1:7], expected[7:49].unflatten(0, (6, 7))[:, 1:]
    shares = (coarse[None] / 6 + fine) / (coarse.sum() + fine.sum())
    torch.testing.assert_close(config.rollout(maps, "video")[0].flatten(1), shares, atol=1e-6, rtol=1e-5)


def test_learned_tokens_lead_back_to_their_places() -> None:
    config = ZOO["token-learner-video"]
    maps = maps_of(config)
    learned = torch.block_diag(*maps["after.learner"][0])
    expected = (
        torch.full((9,), 1 / 9)
        @ mixed(maps["after.transformer.blocks.0.attention"])
        @ learned
        @ mixed(maps["before.blocks.0.attention"])
    )
    torch.testing.assert_close(config.rollout(maps, "video")[0].flatten(), expected, atol=1e-6, rtol=1e-5)


def test_an_explanation_of_video_and_sound_shows_either_and_how_much_it_has(tmp_path) -> None:
    files, predictor = write_senses(tmp_path), Predictor(small_mbt(), torch.device("cpu"))
    seen = predictor.explain(files / "green_high.mp4")
    heard = predictor.explain(files / "green_high.mp4", show="audio")
    assert (seen.shares.shape, heard.shares.shape) == ((2, 2, 2), (1, 3, 4))
    assert seen.part + heard.part == pytest.approx(1, abs=1e-5)
    assert heard.sound
    for explanation in (seen, heard, predictor.explain(files / "mute_red.mp4"), predictor.explain(files / "low.wav")):
        assert explanation.shares.sum() == pytest.approx(1, abs=1e-5)
    assert predictor.explain(files / "low.wav").part == pytest.approx(1, abs=1e-5)
    with pytest.raises(ValueError, match="show='audio' is none of the inputs that are encoded: video"):
        predictor.explain(files / "mute_red.mp4", show="audio")


def test_a_model_of_streams_explains_a_video(tmp_path) -> None:
    config = ZOO["mtv"]
    explanation = Predictor(LoadedModel(Model(config.build(), {}), config), torch.device("cpu")).explain(
        write_senses(tmp_path) / "mute_red.mp4"
    )
    assert explanation.shares.shape == (6, 2, 3)
    assert explanation.overlay().shape[0] == 6
