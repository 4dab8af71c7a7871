"""Tasks whose model takes several inputs of a file at once: sound beside pictures, or one video in two ways."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from media_files import encode
from training_tiny import CLASSES, MODALITIES, VIDEO
from tubelet.data.augment import Augmentation
from tubelet.data.batch import Batch
from tubelet.data.dataset import Example, TrainSet, VideoViews, ViewSet
from tubelet.data.manifest import Record
from tubelet.data.views import Views
from tubelet.models import Model
from tubelet.models.mbt import MBTConfig
from tubelet.models.mtv import CrossViewFusion, MTVConfig, Stream
from tubelet.nn.blocks import TransformerConfig
from tubelet.specs import VideoSpec
from tubelet.training.classification import Classification, one_hot, sigmoid_cross_entropy
from tubelet.training.objectives import Mixup, mixup
from tubelet.training.ranks import Ranks

BOTH = {name: MODALITIES[name] for name in ("video", "audio")}
SMALL = TransformerConfig(width=16, depth=2, heads=2, mlp=32)
MBT = MBTConfig(backbone=SMALL, modalities=BOTH, fusion_layer=1)
MTV = MTVConfig(
    streams={
        "seen": Stream(backbone=SMALL, tubelet=(2, 8, 8)),
        "heard": Stream(backbone=SMALL, tubelet=(1, 4, 8), input="audio", segments=2),
    },
    media={name: modality.spec for name, modality in BOTH.items()},
    global_encoder=TransformerConfig(width=32, depth=1, heads=2, mlp=32),
    fusion=CrossViewFusion(layers=(1,)),
)
SEVERAL = Classification(classes=CLASSES, labels="several", loss="sigmoid", head_init="lecun", smoothing=0.3)


def batch() -> Batch:
    draw = torch.Generator().manual_seed(0)
    video = torch.randint(0, 256, (6, 4, 3, 16, 16), dtype=torch.uint8, generator=draw)
    audio = torch.randn(6, 24, 16, generator=draw)
    targets = torch.randint(0, 2, (6, 3), generator=draw).float()
    return Batch("scene", {"video": video, "audio": audio}, targets, [str(i) for i in range(6)], seed=4)


def scene_model(config: MBTConfig | MTVConfig, objective: Classification) -> Model:
    torch.manual_seed(0)
    encoder = config.build()
    return Model(encoder, {"scene": objective.head(encoder)})


@pytest.mark.parametrize("config", [MBT, MTV], ids=["mbt", "mtv"])
def test_mixup_mixes_pictures_and_sound_with_one_weight(config: MBTConfig | MTVConfig) -> None:
    objective = replace(SEVERAL, mixup=Mixup(0.5))
    model, given = scene_model(config, objective), batch()
    seen: dict[str, Tensor] = {}

    def look(_: object, args: tuple[Mapping[str, Tensor]]) -> None:
        seen.update(args[0])

    model.encoder.register_forward_pre_hook(look)
    objective(model, given, Ranks(torch.device("cpu")))
    weight = objective.mixup.weight(given.seed)
    assert 0.01 < weight < 0.99
    for name, x in model.preprocess(given.inputs).items():
        torch.testing.assert_close(seen[name], mixup(x, weight))


def test_each_modality_of_an_mbt_learns_several_labels_for_itself() -> None:
    model, given = scene_model(MBT, SEVERAL).train(), batch()
    loss, _ = SEVERAL(model, given, Ranks(torch.device("cpu")))
    loss.backward()
    logits = model(model.preprocess(given.inputs), "scene")
    assert logits.shape == (2, 6, 3)
    assert isinstance(given.targets, Tensor)
    apart = [sigmoid_cross_entropy(each, one_hot(given.targets, 3), smoothing=0.3) for each in logits]
    torch.testing.assert_close(loss, torch.stack(apart).mean())
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(model(model.preprocess(given.inputs), "scene"), logits.mean(0), rtol=0, atol=1e-5)


@pytest.mark.parametrize("config", [MBT, MTV], ids=["mbt", "mtv"])
def test_what_is_heard_and_what_is_seen_are_learned_together(config: MBTConfig | MTVConfig) -> None:
    """Every pair of a bright or dark video and a loud or soft sound has its own label."""
    objective = Classification(classes=("a", "b", "c", "d"), head_init="lecun")
    model = scene_model(config, objective).train()
    kinds = torch.arange(16) % 4
    noise = torch.Generator().manual_seed(1)
    video = (kinds // 2).view(-1, 1, 1, 1, 1).expand(-1, 4, 3, 16, 16) * 150 + 50
    audio = (kinds % 2).view(-1, 1, 1).float() * 2 - 1 + 0.1 * torch.randn(16, 24, 16, generator=noise)
    given = Batch("scene", {"video": video.to(torch.uint8), "audio": audio}, kinds, [str(i) for i in range(16)])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        loss, _ = objective(model, given, Ranks(torch.device("cpu")))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        answers = model.eval()(model.preprocess(given.inputs), "scene").argmax(-1)
    assert answers.tolist() == kinds.tolist()


@pytest.fixture(scope="module")
def film(media: Path) -> Record:
    return Record(str(encode(media / "two_ways.mp4", 120)), key="film")


def test_one_video_in_two_ways_is_cut_alike(film: Record) -> None:
    """A second input of frames over the same span, fewer and smaller: the same moments, crop and mirroring."""
    fine = VideoSpec(frames=8, stride=2, size=(64, 64), short_side=64)
    coarse = VideoSpec(frames=3, stride=7, size=(32, 32), short_side=32)
    specs = {"video": fine, "slow": coarse}
    data = TrainSet([film], None, specs, Augmentation(color=0, grayscale=0, min_scale=1.0), seed=1)
    for pass_ in range(6):
        example = data.example(0, pass_)
        assert isinstance(example, Example)
        inputs = example.inputs
        assert inputs["slow"].shape == (3, 3, 32, 32)
        times = [data.times(0, pass_, name) for name in specs]
        assert times[0][::7] == pytest.approx(times[1][::2])
        smaller = torch.nn.functional.avg_pool2d(inputs["video"][:1].float(), 2)
        assert (smaller - inputs["slow"][:1].float()).abs().mean() < 20, "not mirrored, and cut at the same place"
    views = ViewSet([film], None, specs, Views(2, 3)).example(0)
    assert isinstance(views, VideoViews)
    assert {name: x.shape[:2] for name, x in views.inputs.items()} == {"video": (6, 8), "slow": (6, 3)}


def test_a_stream_may_look_at_a_second_input_of_frames() -> None:
    slow = VideoSpec(frames=2, stride=2, size=(16, 16), short_side=16)
    config = replace(
        MTV,
        streams={
            "slow": Stream(backbone=SMALL, tubelet=(1, 8, 8), input="slow"),
            "fast": Stream(backbone=SMALL, tubelet=(2, 4, 4)),
        },
        media={"video": VIDEO, "slow": slow},
    )
    assert config.input_sets == (("video", "slow"),)
    x = torch.rand(1, 4, 3, 16, 16)
    encoder = config.build().eval()
    with torch.no_grad():
        one = encoder({"video": x, "slow": x[:, ::2]}).pooled
        other = encoder({"video": x, "slow": torch.zeros(1, 2, 3, 16, 16)}).pooled
    assert not torch.allclose(one, other)


def test_flow_of_two_channels_is_no_file_yet(film: Record) -> None:
    flow = VideoSpec(frames=2, size=(64, 96), short_side=64, mean=(0.5, 0.5), std=(0.5, 0.5))
    with pytest.raises(ValueError, match="input 'flow' wants 2 channels; media files give 3"):
        TrainSet([film], None, {"video": VIDEO, "flow": flow})
