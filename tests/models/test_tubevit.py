"""TubeViT: one model for images and video, the gate, the larger model that takes over a smaller one's tubes."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tubelet.configs import from_json, to_json
from tubelet.costs.cost import Cost, cost
from tubelet.models import SIZES, Model, ModelConfig, TubeViT, TubeViTConfig, model_config
from tubelet.models.tubevit import CHARADES_TUBES, PATCH, TUBES, Tube, scaled
from tubelet.nn.attention import capture_attention
from tubelet.nn.blocks import TransformerConfig
from tubelet.specs import ImageSpec, VideoSpec
from zoo import build

SMALL = TransformerConfig(width=24, depth=3, heads=2, mlp=32)
CONFIG = TubeViTConfig(
    backbone=SMALL,
    image=ImageSpec(size=(16, 16), short_side=16),
    video=VideoSpec(frames=8, size=(16, 16), short_side=16),
    patch=Tube(kernel=(1, 8, 8), stride=(8, 8, 8)),
    tubes=(
        Tube(kernel=(4, 4, 4), stride=(4, 8, 8), neighbors=(2, 1, 1)),
        Tube(kernel=(8, 2, 2), stride=(2, 8, 8), offset=(0, 2, 2), neighbors=(1, 2, 2)),
    ),
)


def image(batch: int = 2, size: int = 16) -> Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0))


def video(batch: int = 2, frames: int = 8, size: int = 16) -> Tensor:
    return torch.randn(batch, frames, 3, size, size, generator=torch.Generator().manual_seed(0))


def encoder(config: TubeViTConfig) -> TubeViT:
    made = build(config).eval().encoder
    assert isinstance(made, TubeViT)
    return made


@pytest.fixture(scope="module")
def base() -> Cost:
    """A video of the paper's extent in TubeViT-B."""
    return cost(TubeViTConfig(backbone=SIZES["b"]), 400, ("video",))


def test_the_papers_clip_has_539_tokens_and_a_class_token(base: Cost) -> None:
    assert base.tokens == 540


def test_tubes_add_two_million_numbers_to_a_vit_b(base: Cost) -> None:
    """Table 12's caption: one to three million."""
    parts = {part.name: part.parameters for part in base.parts}
    assert parts["encoder.tubes"] == 3 * (512 * 384 + 256 * 192 + 576 * 768) + 384 + 192 + 768


def test_an_image_and_a_video_of_one_frame_go_through_the_same_patches() -> None:
    model = encoder(CONFIG)
    still = image()[:, None].expand(-1, 8, -1, -1, -1)
    of_image, of_video = model.patches(still[:, :1]), model.patches(still)
    assert torch.equal(of_image, of_video)
    places = [model.sequence.positions[name](x)[0] for name, x in (("image", (1, 16, 16)), ("video", (8, 16, 16)))]
    assert torch.equal(places[0], places[1][: len(places[0])])


def test_an_image_trains_everything_but_the_tubes_and_a_video_everything() -> None:
    model = build(replace(CONFIG, gate=2))
    for x, without in (({"image": image()}, {"tubes"}), ({"video": video()}, set[str]())):
        model.zero_grad()
        model(x, "task").square().sum().backward()
        silent = {name.split(".")[1] for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
        assert silent == without


def test_images_and_videos_come_one_at_a_time() -> None:
    assert CONFIG.input_sets == (("image",), ("video",))
    for wrong in ({}, {"image": image(), "video": video()}):
        with pytest.raises(ValueError, match="images or videos at a time"):
            encoder(CONFIG)(wrong)


def test_a_gate_of_zero_is_no_gate_and_learns() -> None:
    """Eq. 8: at the start the image model is unchanged."""
    config = replace(CONFIG, gate=2)
    plain, gated = encoder(CONFIG), encoder(config)
    with torch.no_grad():
        for name, parameter in gated.named_parameters():
            parameter.copy_(plain.get_parameter(_ungated(name))) if name != "gate.alpha" else parameter.zero_()
    x = {"video": video()}
    torch.testing.assert_close(gated(x).pooled, plain(x).pooled)
    gated(x).pooled.sum().backward()
    alpha = gated.get_parameter("gate.alpha")
    assert alpha.grad is not None
    assert alpha.grad.abs() > 1e-4


def _ungated(name: str) -> str:
    """The name in a model without a gate of a parameter in one whose third layer alone comes after it."""
    return name.replace("transformer.blocks.0.", "transformer.blocks.2.").replace("before.", "transformer.")


def test_the_gate_adds_what_entered_the_first_layer() -> None:
    model = encoder(replace(CONFIG, gate=2))
    x = {"video": video()}
    entered: list[Tensor] = []
    left: list[Tensor] = []
    model.before.register_forward_hook(lambda _, args, out: (entered.append(args[0]), left.append(out), None)[-1])
    model.transformer.register_forward_pre_hook(lambda _, args: left.append(args[0]))
    with torch.no_grad():
        model.get_parameter("gate.alpha").fill_(0.3)
        model(x)
    torch.testing.assert_close(left[1], left[0] + math.tanh(0.3) * entered[0])


@settings(max_examples=20)
@given(frames=st.integers(8, 20), height=st.integers(16, 40), width=st.integers(16, 40))
def test_any_clip_that_holds_a_token_of_every_tube_is_taken(frames: int, height: int, width: int) -> None:
    model = encoder(CONFIG)
    features = model({"video": torch.randn(1, frames, 3, height, width)}, interpolate=True)
    counts = [math.prod(tube.grid((frames, height, width))) for tube in (CONFIG.patch, *CONFIG.tubes)]
    assert features.tokens.shape[1] == sum(counts)
    assert features.boxes is not None
    assert features.boxes.shape == (sum(counts), 3, 2)
    assert features.pooled.isfinite().all()
    with pytest.raises(ValueError, match="too small for one token"):
        model({"video": torch.randn(1, 4, 3, height, width)}, interpolate=True)


def test_a_class_token_or_the_mean() -> None:
    mean = replace(CONFIG, pool="mean")
    features = encoder(mean)({"image": image()})
    torch.testing.assert_close(features.pooled, features.tokens.mean(1))
    assert not [name for name, _ in encoder(mean).named_parameters() if "cls" in name]


@pytest.mark.parametrize("name", ["image", "video"])
def test_attention_maps_come_from_every_layer_by_its_number(name: str) -> None:
    model, x = encoder(replace(CONFIG, gate=2)), {"image": image(), "video": video()}[name]
    with capture_attention(model) as maps:
        model({name: x})
    blocks = ("before.blocks.0", "before.blocks.1", "transformer.blocks.0")
    assert list(maps) == [f"{block}.attention" for block in blocks]


@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        replace(CONFIG, gate=1, pool="mean"),
        replace(CONFIG, tubes=(replace(CONFIG.tubes[0], neighbors=(1, 1, 1)),), learned=((2, 2, 2),)),
    ],
)
def test_saved_and_read_back(config: TubeViTConfig) -> None:
    model = build(config).eval()
    again = build(from_json(ModelConfig, to_json(config)))
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.zero_()
    again.load_state_dict(model.state_dict())
    for x in ({"image": image()}, {"video": video()}):
        assert torch.equal(again.eval()(x, "task"), model(x, "task"))


def test_charades_enlarges_the_kernels_and_learns_no_more() -> None:
    core = TubeViTConfig(backbone=SIZES["b"], video=VideoSpec(frames=128))
    large = replace(core, tubes=CHARADES_TUBES, learned=tuple(tube.kernel for tube in TUBES))
    with torch.device("meta"):
        ours, theirs = ({n: p.shape for n, p in c.build().named_parameters()} for c in (core, large))
    assert ours == theirs


def test_a_huge_model_takes_over_the_tubes_of_a_base_one() -> None:
    """Sec. 3.6; 1280 is no multiple of 768: the first channels of the fewest neighbors that reach it."""
    base = TubeViTConfig(backbone=SIZES["b"])
    huge = TubeViTConfig(backbone=SIZES["h"], patch=replace(PATCH, kernel=(1, 14, 14), stride=(32, 14, 14)))
    made = scaled(huge, base, gate=24)
    assert (made.backbone, made.patch, made.gate) == (huge.backbone, huge.patch, 24)
    assert [tube.neighbors for tube in made.tubes] == [(2, 2, 1), (1, 4, 2), (2, 1, 1)]
    assert [tube.channels for tube in made.tubes] == [384, 192, 768]
    assert [tube.grid(huge.video.extent) for tube in made.tubes] == [(2, 7, 7), (3, 6, 7), (2, 7, 7)]
    with torch.device("meta"):
        ours, theirs = (dict(c.build().named_parameters()) for c in (made, base))
    assert {n: p.shape for n, p in ours.items() if n.startswith("tubes.")} == {
        n: p.shape for n, p in theirs.items() if n.startswith("tubes.")
    }


def test_the_tubes_of_a_small_model_give_a_large_one_its_tokens() -> None:
    large = replace(CONFIG, backbone=replace(SMALL, width=40))
    config = scaled(large, CONFIG)
    small, model = encoder(CONFIG), encoder(config)
    model.tubes.load_state_dict(small.tubes.state_dict())
    tokens = model.tubes(video())
    assert tokens.shape == (2, sum(math.prod(tube.grid((8, 16, 16))) for tube in config.tubes), 40)
    torch.testing.assert_close(tokens[:, 0, :12], small.tubes(video())[:, 0, :12])  # the same kernel, the same place
    with pytest.raises(ValueError, match="no neighbors bring the 12 channels"):
        scaled(replace(CONFIG, backbone=replace(SMALL, width=240_000)), CONFIG)


def test_tokenizing_costs_what_the_tubes_read(base: Cost) -> None:
    """Under a hundredth of the model's multiply-adds, not the price of every place."""
    parts = {part.name: part.multiply_adds for part in base.parts}
    read = 98 * 2 * 3 * 512 * 384 + 147 * 4 * 3 * 256 * 192 + 98 * 3 * 576 * 768
    assert parts["encoder.tubes"] == read
    assert parts["encoder.patches"] == 196 * 768 * 768
    assert read + parts["encoder.patches"] < 0.01 * base.multiply_adds


def test_a_name_says_the_tubes_but_not_the_clip() -> None:
    named = model_config("tubevit-b/16", frames=64)
    assert isinstance(named, TubeViTConfig)
    assert named.name == "tubevit-b/16"
    for other in (replace(named, gate=4), replace(named, tubes=TUBES[:2]), CONFIG):
        assert other.name is None


def test_impossible_configs_are_refused_with_the_value() -> None:
    with pytest.raises(ValueError, match=r"gate=3 must be a number of layers below"):
        replace(CONFIG, gate=3)
    with pytest.raises(ValueError, match="videos need tubes, or the patch"):
        replace(CONFIG, tubes=(), patch_videos=False)
    with pytest.raises(ValueError, match="share a patch embedding"):
        replace(CONFIG, image=ImageSpec(size=(16, 16), short_side=16, mean=(0.5,), std=(0.5,)))
    with pytest.raises(ValueError, match=r"\(1, 4, 16\) is too small"):
        replace(CONFIG, image=ImageSpec(size=(4, 16), short_side=16))


def test_a_model_has_a_head_per_dataset() -> None:
    made: Model = build(CONFIG, classes=7)
    assert made({"image": image()}, "task").shape == made({"video": video()}, "task").shape == (2, 7)


def test_videos_go_through_the_patch_alone_or_through_the_tubes_alone() -> None:
    """Tables 5, 7b and 14; images go through the patch in any case."""
    alone, without = encoder(replace(CONFIG, tubes=())), encoder(replace(CONFIG, patch_videos=False))
    counts = [math.prod(tube.grid((8, 16, 16))) for tube in (CONFIG.patch, *CONFIG.tubes)]
    assert alone({"video": video()}).tokens.shape[1] == counts[0]
    assert without({"video": video()}).tokens.shape[1] == sum(counts[1:])
    assert alone({"image": image()}).tokens.shape == without({"image": image()}).tokens.shape == (2, 4, 24)


def test_positions_of_table_7a() -> None:
    """With the same weights: what a token gets for its place, and what tells two tokens apart."""
    kinds = ("fixed", "fixed-no-stride", "learned", "relative", "none")
    models = {kind: encoder(replace(CONFIG, positions=kind)) for kind in kinds}
    gray = torch.ones(1, 8, 3, 16, 16)
    tokens = {kind: model.sequence(torch.zeros(1, 12, 24), "video", (8, 16, 16))[0] for kind, model in models.items()}
    patches = slice(1, 5)
    assert not tokens["none"][:, 1:].any()
    assert not tokens["relative"][:, 1:].any()
    # without strides, the patch at (0, 1, 0) of its grid is where the tube at (0, 1, 0) of its own is
    assert torch.equal(tokens["fixed-no-stride"][:, 3], tokens["fixed-no-stride"][:, 5 + 2])
    assert not torch.equal(tokens["fixed"][:, 3], tokens["fixed"][:, 5 + 2])
    shared = models["learned"].sequence(torch.zeros(1, 4, 24), "image", (1, 16, 16))[0]
    torch.testing.assert_close(shared[:, 1:], tokens["learned"][:, patches])
    assert len({tuple(row.tolist()) for row in tokens["learned"][0, 1:]}) == 12
    with torch.no_grad():
        alike = models["none"]({"video": gray}).tokens[0, :4]
        apart = models["relative"]({"video": gray}).tokens[0, :4]
    torch.testing.assert_close(alike, alike[:1].expand(4, -1))
    assert (apart - apart[:1]).abs().max() > 1e-3
    larger = models["learned"]({"video": video(1, 12, 24)}, interpolate=True)
    assert larger.tokens.isfinite().all()


def test_added_layers_attend_after_the_last_block() -> None:
    """Table 8: a layer that adds nothing leaves the model as it was."""
    plain, grown = encoder(CONFIG), encoder(replace(CONFIG, added=2))
    own = {name for name, _ in grown.named_parameters()} - {name for name, _ in plain.named_parameters()}
    assert {name.rsplit(".", 2)[0] for name in own} >= {"transformer.added.0", "transformer.added.1"}
    with torch.no_grad():
        for name, parameter in grown.named_parameters():
            if name in own:
                parameter.zero_() if ".out." in name else parameter.fill_(0.1)
            else:
                parameter.copy_(plain.get_parameter(name))
    x = {"video": video()}
    torch.testing.assert_close(grown(x).pooled, plain(x).pooled)
    with torch.no_grad():
        grown.get_parameter("transformer.added.1.attention.out.weight").normal_()
    assert not torch.allclose(grown(x).pooled, plain(x).pooled)
