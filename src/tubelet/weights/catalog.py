"""Checkpoints on the Hugging Face hub that people start from: what their public pages say of them.

They were not downloaded for this list. Sizes are those of the pages, or of the files named there at four bytes a
parameter; all were looked up in November 2026. Licenses are the publishers' own tags: read them where it matters.
"""

from __future__ import annotations

from dataclasses import dataclass

from tubelet.specs import Medium


@dataclass(frozen=True)
class Published:
    """A checkpoint on the hub. ``parameters``: in millions; ``good_for``: what it was trained to do."""

    medium: Medium
    name: str
    model: str
    parameters: int
    license: str
    good_for: str


CATALOG: tuple[Published, ...] = (
    Published("image", "google/vit-base-patch16-224-in21k", "ViT-B/16", 86, "Apache-2.0", "a start for any model"),
    Published("image", "google/vit-base-patch16-224", "ViT-B/16", 87, "Apache-2.0", "the 1,000 classes of ImageNet"),
    Published("image", "facebook/deit-small-patch16-224", "ViT-S/16", 22, "Apache-2.0", "the same classes, small"),
    Published("image", "facebook/dinov2-small", "ViT-S/14", 22, "Apache-2.0", "features without labels; a small start"),
    Published(
        "image",
        "facebook/dinov3-vits16-pretrain-lvd1689m",
        "ViT-S/16, rotary",
        21,
        "DINOv3 License, gated",
        "features without labels, of patches above all",
    ),
    Published(
        "image",
        "google/siglip-base-patch16-224",
        "ViT-B/16",
        203,
        "Apache-2.0",
        "features that captions taught; half of it is a text tower, which is dropped",
    ),
    Published(
        "video", "google/vivit-b-16x2-kinetics400", "ViViT-B/16x2", 89, "MIT", "the 400 actions of Kinetics; 32 frames"
    ),
    Published(
        "video",
        "MCG-NJU/videomae-base-finetuned-kinetics",
        "ViT-B/16x2, joint",
        87,
        "CC-BY-NC-4.0",
        "the 400 actions of Kinetics; 16 frames",
    ),
    Published(
        "video",
        "facebook/timesformer-base-finetuned-k400",
        "TimeSformer-B/16",
        121,
        "CC-BY-NC-4.0",
        "the 400 actions of Kinetics; 8 frames",
    ),
    Published(
        "audio",
        "MIT/ast-finetuned-audioset-10-10-0.4593",
        "AST-B/16",
        87,
        "BSD-3-Clause",
        "the 527 sounds of AudioSet; a start for sound",
    ),
)
"""By medium, the freest and smallest first."""
