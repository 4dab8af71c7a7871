"""Starting MTV's streams and MBT's modalities from image models, and each from one of its own kind."""

from dataclasses import replace

import pytest
import torch

from tubelet.models import MBTConfig, Modality, Model, MTVConfig, PolyViTConfig, ViTConfig
from tubelet.models.mtv import BottleneckFusion, CrossViewFusion, MLPFusion, Stream
from tubelet.nn.blocks import TransformerConfig
from tubelet.specs import ImageSpec, SpectrogramSpec, VideoSpec
from tubelet.weights.files import WeightsError
from tubelet.weights.folder import save_model
from tubelet.weights.loaded import LoadedModel, build_model
from tubelet.weights.transfer import Init, initialize, initialize_from

SMALL = TransformerConfig(width=8, depth=2, heads=2, mlp=16)
LARGE = TransformerConfig(width=16, depth=3, heads=2, mlp=32)
IMAGE = ImageSpec(size=(16, 16), short_side=16)
STREAMS = MTVConfig(
    streams={
        "coarse": Stream(backbone=SMALL, tubelet=(4, 4, 4)),
        "fine": Stream(backbone=LARGE, tubelet=(2, 4, 4)),
    },
    media={"video": VideoSpec(frames=8, size=(16, 16), short_side=16)},
    global_encoder=TransformerConfig(width=24, depth=1, heads=2, mlp=16),
    fusion=CrossViewFusion(layers=(1, 2)),
)
SENSES = MBTConfig(
    backbone=SMALL,
    modalities={
        "video": Modality(spec=VideoSpec(frames=4, size=(16, 16), short_side=16), patch=(2, 4, 4)),
        "audio": Modality(spec=SpectrogramSpec(frames=24, bins=16), patch=(1, 4, 4)),
    },
    fusion_layer=1,
    bottlenecks=4,
)


def vit(size: TransformerConfig, **options) -> ViTConfig:
    return ViTConfig(**{"backbone": size, "patch": (4, 4), "image": IMAGE, **options})


def randomized(config) -> LoadedModel:
    model = build_model(config, {})
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.3)
    return LoadedModel(model, config)


def start(config, *sources: tuple[ViTConfig, dict]) -> tuple[Model, list]:
    torch.manual_seed(1)
    model = build_model(config, {})
    reports = [
        initialize_from(randomized(source), model, config, Init(source="image", **options))
        for source, options in sources
    ]
    return model, reports


@torch.no_grad()
@pytest.mark.parametrize("fusion", [None, STREAMS.fusion, MLPFusion()])
def test_a_stream_sees_of_a_still_video_what_its_image_model_sees(fusion):
    """Fusion adds nothing at first; what the coarse stream has of each frame is the image model's before its norm."""
    config = replace(STREAMS, fusion=fusion)
    model, _ = start(config, (vit(SMALL), {"into": "coarse"}), (vit(LARGE), {"into": "fine"}))
    picture = torch.randn(2, 3, 16, 16)
    video = picture[:, None].expand(-1, 8, -1, -1, -1)
    tokens = model.eval().encoder({"video": video}).parts["coarse"].tokens.unflatten(1, (2, 16))
    image = randomized(vit(SMALL)).model.eval().encoder
    expected = image({"image": picture}).tokens
    for t in range(2):
        torch.testing.assert_close(image.encoder.transformer.norm(tokens[:, t]), expected, rtol=0, atol=2e-5)


def test_each_stream_starts_from_a_source_of_its_own(tmp_path):
    for name, size in {"small": SMALL, "large": LARGE}.items():
        save_model(tmp_path / name, randomized(vit(size)).model, vit(size), {})
    model = build_model(STREAMS, {})
    inits = [Init(source=str(tmp_path / "small"), into="coarse"), Init(source=str(tmp_path / "large"), into="fine")]
    coarse, fine = initialize(model, STREAMS, inits)
    names = {name for name, _ in model.encoder.named_parameters()}
    meeting = {name for name in names if not name.startswith("streams.")}
    for name, report in {"coarse": coarse, "fine": fine}.items():
        assert set(report.loaded) == {n for n in names if n.startswith(f"streams.{name}.")}
        assert set(report.fresh) == meeting
        assert set(report.dropped) == {"encoder.transformer.norm.weight", "encoder.transformer.norm.bias"}
    assert str(fine).startswith(f"fine initialized from {tmp_path / 'large'}: ")
    assert "streams.fine.cls.table (1, 16) to (4, 1, 16)" in str(fine)
    assert "left fresh: laterals" in str(fine)
    assert torch.equal(
        model.encoder.streams["fine"].cls.table, randomized(vit(LARGE)).model.encoder.encoder.cls[None].expand(4, 1, 16)
    )


@torch.no_grad()
def test_patches_of_another_size_are_resized(tmp_path):
    config = replace(STREAMS, streams={**STREAMS.streams, "coarse": Stream(backbone=SMALL, tubelet=(4, 8, 8))})
    model, (report,) = start(config, (vit(SMALL), {"into": "coarse"}))
    ours = model.encoder.streams["coarse"].tokenizer.projection.weight.unflatten(1, (3, 4, 8, 8))
    theirs = randomized(vit(SMALL)).model.encoder.tokenizer.projection.weight.unflatten(1, (3, 4, 4))
    assert not ours[:, :, [0, 1, 3]].any(), "the central frame alone"
    torch.testing.assert_close(ours[:, :, 2, [0, 7, 7], [0, 0, 7]], theirs[:, :, [0, 3, 3], [0, 0, 3]])
    assert "streams.coarse.tokenizer.projection.weight (8, 48) to (8, 768)" in report.resized


@torch.no_grad()
@pytest.mark.parametrize("fusion", [STREAMS.fusion, BottleneckFusion(layers=(1,), tokens=3), MLPFusion()])
def test_a_longer_clip_resizes_all_that_has_a_time_index(fusion):
    """Kinetics to EPIC: class tokens, bottleneck tokens and the global encoder's positions; the rest is equal."""
    config = replace(STREAMS, fusion=fusion)
    longer = replace(config, media={"video": VideoSpec(frames=16, size=(16, 16), short_side=16)})
    model, (report,) = start(longer, (config, {}))
    given, ours = dict(randomized(config).model.named_parameters()), dict(model.named_parameters())
    resized = {name.split(" ")[0] for name in report.resized}
    bottleneck = {"bottleneck.table"} if isinstance(fusion, BottleneckFusion) else set()
    assert resized == {
        *(f"streams.{n}.cls.table" for n in STREAMS.streams),
        "global_encoder.positions.table",
        *bottleneck,
    }
    assert not report.fresh
    assert not report.dropped
    for name, value in given.items():
        if name.removeprefix("encoder.") not in resized:
            assert torch.equal(ours[name], value), name
    cls = "encoder.streams.coarse.cls.table"
    torch.testing.assert_close(ours[cls][[0, 3]], given[cls])
    torch.testing.assert_close(ours[cls][1], given[cls][0] * 2 / 3 + given[cls][1] / 3)


def test_what_fits_no_stream_is_told():
    with pytest.raises(
        WeightsError, match=r"(?s)Init.into names the stream or.*streams.fine.*\(8,\) in the source and \(16,\)"
    ):
        start(STREAMS, (vit(SMALL), {}))
    with pytest.raises(
        WeightsError, match=r"shall start 'middle', which Init.into names, but the model has coarse, fine"
    ):
        start(STREAMS, (vit(SMALL), {"into": "middle"}))
    with pytest.raises(WeightsError, match="attention has 4 heads, the model's 2"):
        start(STREAMS, (vit(replace(SMALL, heads=4)), {"into": "coarse"}))
    with pytest.raises(WeightsError, match="holds a MTV, which cannot start a ViT"):
        start(vit(SMALL), (STREAMS, {}))


@torch.no_grad()
@pytest.mark.parametrize("shared", [False, True])
def test_each_sense_starts_from_the_image_model(shared):
    """Before they meet: of a still video, or of a picture of sound, the image model's answer."""
    config = replace(SENSES, fusion_layer=2, shared=shared)
    model, (report,) = start(config, (vit(SMALL), {}))
    assert not report.fresh
    assert not report.dropped
    picture = torch.randn(2, 3, 16, 16)
    expected = randomized(vit(SMALL)).model.eval().encoder({"image": picture}).pooled
    video = picture[:, None].expand(-1, 4, -1, -1, -1)
    parts = model.eval().encoder({"video": video[:, :2], "audio": torch.randn(2, 24, 16)}, interpolate=True).parts
    torch.testing.assert_close(parts["video"].pooled, expected, rtol=0, atol=2e-5)
    sound = torch.randn(2, 16, 16)
    expected = randomized(vit(SMALL)).model.eval().encoder({"image": sound[:, None].expand(-1, 3, -1, -1)}).pooled
    small = replace(config.modalities["audio"], spec=SpectrogramSpec(frames=16, bins=16))
    model, _ = start(replace(config, modalities=config.modalities | {"audio": small}), (vit(SMALL), {}))
    torch.testing.assert_close(model.eval().encoder({"audio": sound}).pooled, expected, rtol=0, atol=2e-5)


@torch.no_grad()
def test_bottleneck_tokens_are_fresh_or_the_image_models_positions():
    model, (report,) = start(SENSES, (vit(SMALL), {}))
    assert report.fresh == ("bottleneck",)
    assert model.encoder.bottleneck.std() < 0.03
    model, (report,) = start(replace(SENSES, bottleneck_start="positions"), (vit(SMALL), {}))
    table = randomized(vit(SMALL)).model.encoder.encoder.positions.table
    corners = table[1:].unflatten(0, (4, 4))[[0, 0, 3, 3], [0, 3, 0, 3]]
    torch.testing.assert_close(model.encoder.bottleneck, torch.cat([table[:1], corners]))
    assert "bottleneck" in report.loaded
    assert not report.fresh


def test_senses_start_from_two_models_or_from_one_that_keeps_them_apart():
    model, reports = start(SENSES, (vit(SMALL), {"into": "video"}), (vit(SMALL), {"into": "audio"}))
    assert not {n for n in reports[0].fresh if n.startswith("modalities.audio")}
    apart = PolyViTConfig(backbone=SMALL, modalities=SENSES.modalities, adaptor_depth=1)
    start(SENSES, (apart, {}))
    with pytest.raises(WeightsError, match=r"shared.blocks.0.*would start from both.*shared=False"):
        start(replace(SENSES, shared=True), (apart, {}))
    model, (report,) = start(SENSES, (SENSES, {}))
    assert not report.fresh
    assert torch.equal(model.encoder.bottleneck, randomized(SENSES).model.encoder.bottleneck)
