"""Models of one modality that look at another (PolyViT App. D): each direction against a direct computation."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from single_modality import IMAGE, PATCHES, SINGLE, SPECS, VIDEO, polyvit, randomized
from tubelet.models import Model
from tubelet.weights.crossmodal import adapt_to_modality
from tubelet.weights.files import WeightsError

GRIDS = {"image": (1, 4, 4), "video": (2, 3, 5), "audio": (1, 10, 3)}


def example(name: str) -> dict[str, torch.Tensor]:
    shape = {"image": (3, 16, 16), "video": (8, 3, 12, 20), "audio": (40, 12)}[name]
    return {name: torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))}


def kernel(model: Model, tubelet) -> np.ndarray:
    weight = model.encoder.tokenizer.projection.weight.detach().numpy()
    return weight.reshape(len(weight), 3, *tubelet)


def positions(model: Model) -> np.ndarray:
    return model.encoder.encoder.positions.table.detach().numpy()


DIRECTIONS = [(a, b) for a in SPECS for b in SPECS if a != b]


@pytest.mark.parametrize(("a", "b"), DIRECTIONS)
def test_each_direction_is_appendix_d(a, b):
    source = randomized(SINGLE[a])
    made = adapt_to_modality(source, SPECS[b])
    assert made.config == SINGLE[b]

    theirs, ours = kernel(source.model, PATCHES[a]), kernel(made.model, PATCHES[b])
    if a == "video":
        theirs = theirs.sum(2, keepdims=True)
    if b == "video":
        theirs = np.repeat(theirs, 4, axis=2)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)

    (_, h, w), (t, *size) = GRIDS[a], GRIDS[b]
    table = positions(source.model)[1:].reshape(-1, h, w, 16).mean(0)
    table = ndimage.zoom(table, (size[0] / h, size[1] / w, 1), order=1)
    table = np.concatenate([positions(source.model)[:1], *[table.reshape(-1, 16)] * t])
    np.testing.assert_allclose(positions(made.model), table, atol=1e-5)

    rest = {n: x for n, x in source.model.state_dict().items() if "weight" not in n.partition("tokenizer")[2]}
    for name in rest.keys() - {"encoder.encoder.positions.table"}:
        torch.testing.assert_close(made.model.state_dict()[name], rest[name], rtol=0, atol=0)
    assert made.model.eval().encoder(example(b)).pooled.shape == (2, 16)


def test_there_and_back_multiplies_the_kernel_by_the_frames():
    """Repeating is not divided, summing is not either: image to video to image gives t times the embedding's kernel."""
    source = randomized(SINGLE["image"])
    back = adapt_to_modality(adapt_to_modality(source, VIDEO), IMAGE)
    torch.testing.assert_close(
        back.model.encoder.tokenizer.projection.weight, 4 * source.model.encoder.tokenizer.projection.weight
    )


@torch.no_grad()
def test_of_a_still_video_an_image_model_sees_the_image():
    """Summed over its frames, a video's embedding makes of a picture the tokens that it makes of it standing still."""
    source = randomized(SINGLE["video"])
    made = adapt_to_modality(source, replace(IMAGE, size=(12, 20), short_side=12))
    picture = torch.randn(2, 3, 12, 20)
    still = picture[:, None].expand(-1, 4, -1, -1, -1)
    torch.testing.assert_close(made.model.encoder.tokenizer(picture), source.model.encoder.tokenizer(still))


@torch.no_grad()
@pytest.mark.parametrize("adaptors", [0, 2, 3])
@pytest.mark.parametrize("name", SPECS)
def test_the_same_modality_keeps_the_features(name, adaptors):
    for config in (SINGLE[name], polyvit("image", "video", "audio", adaptors=adaptors)):
        source = randomized(config)
        made = adapt_to_modality(source, SPECS[name])
        assert made.config == SINGLE[name]
        ours, theirs = (m.model.eval().encoder(example(name)) for m in (made, source))
        torch.testing.assert_close(ours.pooled, theirs.pooled)
        torch.testing.assert_close(ours.tokens, theirs.tokens)


@pytest.mark.parametrize(
    ("there", "wanted", "taken"),
    [
        (("audio", "video"), "image", "video"),
        (("video", "image"), "audio", "image"),
        (("audio", "image"), "video", "image"),
        (("audio",), "video", "audio"),
    ],
)
def test_a_polyvit_without_the_modality_gives_its_nearest_adaptors(there, wanted, taken):
    source = randomized(polyvit(*there, adaptors=2))
    made = adapt_to_modality(source, SPECS[wanted]).model.state_dict()
    theirs = source.model.state_dict()
    for i in range(2):
        name = f"blocks.{i}.mlp.0.weight"
        adaptor = theirs[f"encoder.modalities.{taken}.adaptor.{name}"]
        torch.testing.assert_close(made[f"encoder.encoder.transformer.{name}"], adaptor, rtol=0, atol=0)
    shared = theirs["encoder.transformer.blocks.0.mlp.0.weight"]
    torch.testing.assert_close(made["encoder.encoder.transformer.blocks.2.mlp.0.weight"], shared, rtol=0, atol=0)


def test_what_appendix_d_does_not_convert_is_refused():
    factorized = replace(SINGLE["video"], attention_type="factorized_encoder")
    with pytest.raises(WeightsError, match="ViViT has no single path for one modality"):
        adapt_to_modality(randomized(factorized), IMAGE)
    with pytest.raises(ValueError, match=r"is smaller than one tubelet \(4, 4, 4\)"):
        adapt_to_modality(randomized(SINGLE["image"]), replace(VIDEO, frames=3))
    assert adapt_to_modality(randomized(SINGLE["image"]), replace(VIDEO, frames=3), frames=1).config.tubelet == (
        1,
        4,
        4,
    )
    kept = adapt_to_modality(randomized(factorized), replace(VIDEO, frames=12))
    assert kept.config == replace(factorized, video=replace(VIDEO, frames=12))
