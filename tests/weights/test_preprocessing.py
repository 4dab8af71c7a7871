"""A photograph, and a clip of it, as transformers' processors make them: what a loaded checkpoint sees is the same."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

import tubelet

transformers = pytest.importorskip("transformers")
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil  # noqa: E402
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil  # noqa: E402
from transformers.models.deit.image_processing_pil_deit import DeiTImageProcessorPil  # noqa: E402
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil  # noqa: E402
from transformers.models.videomae.image_processing_pil_videomae import VideoMAEImageProcessorPil  # noqa: E402
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil  # noqa: E402

SIZE = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2}
MLP = SIZE | {"intermediate_size": 8}
GRID = {"image_size": 224, "patch_size": 112}
CROP = {"height": 224, "width": 224}
PEERS = {  # the processor, its model, and a size of pictures that it only crops
    "vit": (ViTImageProcessorPil(), "ViTModel", MLP, (224, 224)),
    "siglip": (SiglipImageProcessorPil(), "SiglipVisionModel", MLP, (224, 224)),
    "deit": (DeiTImageProcessorPil(), "DeiTModel", MLP, (256, 256)),
    "clip": (CLIPImageProcessorPil(), "CLIPVisionModel", MLP, (336, 224)),
    "dinov2": (BitImageProcessorPil(size={"shortest_edge": 256}, crop_size=CROP), "Dinov2Model", SIZE, (384, 256)),
}


@pytest.fixture(scope="module")
def photograph():
    """427 x 640 pixels of a temple, sharp and in color."""
    return Image.fromarray(load_sample_image("china.jpg"))


def loaded(folder, processor, name, settings):
    model = getattr(transformers, name)
    model(model.config_class(**settings, **GRID)).save_pretrained(folder)
    processor.save_pretrained(folder)
    return tubelet.load(folder, device="cpu")


def levels(model, ours, theirs):
    """How far apart two normalized pictures are, in levels of 255."""
    (spec,) = model.config.inputs.values()
    return (ours - theirs).abs() * torch.tensor(spec.std)[:, None, None] * 255


@pytest.mark.parametrize("kind", PEERS)
def test_a_photograph_is_what_the_processor_makes_of_it(tmp_path, photograph, kind):
    processor, name, settings, cropped = PEERS[kind]
    model = loaded(tmp_path, processor, name, settings)

    def apart(picture):
        ours = model.preprocess(np.asarray(picture))
        return levels(model, ours, processor(picture, return_tensors="pt")["pixel_values"])

    assert apart(photograph.resize(cropped)).max() < 1e-2, "the crop and the normalization are exact"
    resampled = apart(photograph)
    if model.config.image.fit == "stretch":
        assert resampled.max() < 1.01
        assert resampled.mean() < 0.02, "the same filter, but for rounding"
    else:
        assert resampled.mean() < 9, "the crop begins at a whole pixel of the photograph, so up to one aside"


def test_the_filter_is_the_processors(tmp_path, photograph):
    processor, name, settings, _ = PEERS["siglip"]
    picture = np.asarray(photograph)
    wanted = processor(photograph, return_tensors="pt")["pixel_values"]
    model = loaded(tmp_path, processor, name, settings)
    bicubic = levels(model, model.preprocess(picture), wanted).mean()
    processor.resample = 2
    other = loaded(tmp_path, processor, name, settings)
    processor.resample = 3
    assert bicubic < 0.02
    assert levels(other, other.preprocess(picture), wanted).mean() > 1


def moving(photograph):
    """A camera that moves over the photograph; its short side is as the processors want it."""
    return [photograph.crop((8 * t, 4 * t, 384 + 8 * t, 256 + 4 * t)).resize((336, 224)) for t in range(4)]


def seen(model, clip):
    return model.preprocess(np.stack([np.asarray(frame) for frame in clip]))


@pytest.mark.parametrize("name", ["VideoMAEModel", "TimesformerModel"])
def test_a_clip_is_what_the_processor_makes_of_it(tmp_path, photograph, name):
    processor, clip = VideoMAEImageProcessorPil(), moving(photograph)
    model = loaded(tmp_path, processor, name, MLP | {"num_frames": 4})
    wanted = processor([clip], return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(seen(model, clip), wanted, rtol=0, atol=2e-5)


def test_vivits_offset_is_taken_away(tmp_path, photograph):
    """Its processor needs torchvision: the numbers are those that its file describes."""
    clip, file = moving(photograph), tmp_path / "preprocessor_config.json"
    settings = MLP | {"num_frames": 4, "tubelet_size": (2, 112, 112)}
    loaded(tmp_path, VideoMAEImageProcessorPil(), "VivitModel", settings)
    told = {"rescale_factor": 1 / 127.5, "offset": True, "do_normalize": False}
    file.write_text(json.dumps(json.loads(file.read_text()) | told))
    pixels = np.stack([np.asarray(frame) for frame in clip])[:, :, 56:280]
    wanted = torch.from_numpy(pixels / 127.5 - 1).movedim(-1, -3)[None].float()
    torch.testing.assert_close(seen(tubelet.load(tmp_path, device="cpu"), clip), wanted, rtol=0, atol=2e-5)
