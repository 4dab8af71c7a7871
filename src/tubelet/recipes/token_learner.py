"""TokenLearner's experiments (Ryoo et al. 2021): ViT-L on ImageNet, ViViT-L on Kinetics, the released configuration.

Models are the slides'; they print no hyper-parameters. Where the released configuration, ImageNet with a ViT-B/16, does
not say either, the Kinetics recipes have those of ViViT's, and the ImageNet recipes those of PolyViT's ImageNet task
(its Table 6), for ViViT trains on no images. Figures are the slides', of models that were pretrained on JFT, a private
dataset: from any other weights expect less. None has been repeated with this library; the slides say neither on what
hardware the models were trained nor for how long.

``init`` is an image ViT-L of 24 layers, whose patches may have another size; the 11 layers beyond start fresh. A model
of 35 layers starts them too with --init.0.fresh "".
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from typing_extensions import Doc

from tubelet.data.views import Views
from tubelet.models import SIZES, model_config
from tubelet.models.token_learner import TokenLearnerConfig
from tubelet.recipes import vivit
from tubelet.recipes.polyvit_tables import image_task
from tubelet.training.classification import Classification
from tubelet.training.experiment import AdamW, Experiment, Init, Length, Source, Task, Training

Large = Literal[
    "vit-l/16-tl16@12",
    "vit-l/16-tl16@12+11",
    "vit-l/14-tl16@18+11",
    "vit-l/10-tl16@18+11",
    "vit-l/8-tl16@18+11",
]
Data = Annotated[str, Doc("class folders with train/ and val/ above them, or a manifest (CSV, JSONL, Parquet)")]
ImageViT = Annotated[str, Doc("image ViT to start from: a model folder, hf:org/name; empty: from scratch")]


def imagenet_b16(data: Data = "data/imagenet") -> Experiment:
    """ImageNet from scratch, ViT-B/16, 16 learned tokens at 9: the released configuration.

    tubelet train token_learner.imagenet_b16 --data IMAGENET

    90 epochs in minibatches of 4,096. No figure was released, in % or otherwise. Departures: the learning rate decays
    to 0 instead of 1e-5, and the augmentation, which the configuration leaves to its dataset, is ViViT's of Kinetics
    (Table 7). Its stochastic depth of 0.1 never reaches the released model, and is left out. Data:
    data/{train,val}/CLASS/*.jpg. Hardware and time: unknown.
    """
    task = Task(
        source=Source(path=data),
        objective=Classification(loss="sigmoid", head_bias=-10.0),
        inputs=("image",),
        batch_size=4096,
        length=Length(epochs=90),
        warmup=Length(steps=10_000),
        learning_rate=5e-3,
        views=Views(1, 1),
    )
    return Experiment(
        model=model_config("vit-b/16-tl16@9"),
        tasks={"imagenet": task},
        optimizer=AdamW(betas=(0.9, 0.999), weight_decay=0.3),
        training=Training(decay="linear"),
    )


def imagenet_l(
    data: Data = "data/imagenet",
    init: ImageViT = "",
    model: Annotated[Large, Doc("a row of the slides: patches, learned tokens @ layer, + further layers")] = (
        "vit-l/14-tl16@18+11"
    ),
) -> Experiment:
    """ImageNet at 512 pixels, ViT-L with 16 learned tokens: a row of the slides.

    tubelet train token_learner.imagenet_l --data IMAGENET --init hf:google/vit-large-patch16-224-in21k

    The slides' figures, pretrained on JFT, in % top-1: 87.68 (L/16, at 12), 87.47 (L/16, 24+11, at 12), 88.37 (L/14,
    24+11, at 18), 88.5 (L/10, 24+11), 88.87 (L/8, 24+11); ViT-L/16 without: 87.35. Where the last two learn tokens is
    not said; here before layer 18. Data: data/{train,val}/CLASS/*.jpg. Hardware and time: unknown.
    """
    task = image_task(data, 0.03, 20_000, 500)
    return _started(Experiment(model=model_config(model, size=512), tasks={"imagenet": task}), init)


def kinetics400_l10x2(data: Data = "data/kinetics400", init: ImageViT = "") -> Experiment:
    """Kinetics 400, ViViT-L/10x2, Model 1, 24+11 layers, 16 learned tokens at 18.

    tubelet train token_learner.kinetics400_l10x2 --data K400 --init hf:google/vit-large-patch16-224-in21k

    The slides' figures, pretrained on JFT: 85.4 % top-1, 96.3 % top-5, 4x3 views, at 48.91 TFLOPs, which this model's
    48.3 fit; they name it TokenLearner-L/10 and say no more. Every time index has 16 tokens. Hyper-parameters are
    ViViT's. Data: data/{train,val}/CLASS/*.mp4. Hardware and time: unknown.
    """
    return _in_vivit(vivit.kinetics400_l16x2(data), init)


def kinetics600_l10x2(data: Data = "data/kinetics600", init: ImageViT = "") -> Experiment:
    """Kinetics 600, ViViT-L/10x2, Model 1, 24+11 layers, 16 learned tokens at 18.

    tubelet train token_learner.kinetics600_l10x2 --data K600 --init hf:google/vit-large-patch16-224-in21k

    The slides' figures, pretrained on JFT: 86.3 % top-1, 97.0 % top-5, 4x3 views. Hyper-parameters are ViViT's. Data:
    data/{train,val}/CLASS/*.mp4. Hardware and time: unknown.
    """
    return _in_vivit(vivit.kinetics600_l16x2(data), init)


def _in_vivit(experiment: Experiment, init: str) -> Experiment:
    model = model_config("vivit-l/10x2-tl16@18+11")
    assert isinstance(model, TokenLearnerConfig), model
    return _started(replace(experiment, model=replace(model, spec=experiment.model.inputs["video"])), init)


def _started(experiment: Experiment, init: str) -> Experiment:
    """From an image ViT-L: its 24 layers first, those beyond them fresh."""
    if not init:
        return replace(experiment, notes="From scratch: the authors start from JFT weights; expect far less.")
    model = experiment.model
    assert isinstance(model, TokenLearnerConfig), model
    beyond = range(SIZES["l"].depth - model.layer, model.backbone.depth - model.layer)
    fresh = tuple(f"after.transformer.blocks.{layer}.*" for layer in beyond)
    return replace(experiment, init=(Init(source=init, fresh=fresh),))
