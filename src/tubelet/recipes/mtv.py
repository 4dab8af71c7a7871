"""MTV's experiments (Yan et al. 2022) on its six datasets, with every hyper-parameter of the released configurations.

Models are those that were released, B/2+S/4+Ti/8 ("MTV-B") and L/2+B/4+S/8+Ti/16 ("MTV-L"), with cross-view attention
before the layers 5 and 11, or 11 and 23; and the slides' H/2+B/4+S/8+Ti/16 ("MTV-H"). Stochastic depth keeps its
branches rescaled, as in the released code. Frames of Kinetics come 25 a second, as ViViT states; the configurations
name no rate. Figures are the slides', and those of the released code's README where they differ: none has been repeated
with this library. Neither says on what hardware the models were trained nor for how long.

``data`` is a folder of class folders with ``train`` and ``val`` above them, or a manifest. ``init``: on Kinetics an
image ViT for every stream, in the order of the model's name; on the other datasets the MTV trained on Kinetics. The
authors never train from scratch: without ``init`` expect far less than their figures.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from typing_extensions import Doc

from tubelet.configs import ConfigError
from tubelet.data.augment import Augmentation
from tubelet.data.views import Views
from tubelet.models import model_config
from tubelet.models.mtv import MTVConfig
from tubelet.specs import SpectrogramSpec, VideoSpec
from tubelet.training.classification import Classification
from tubelet.training.experiment import SGD, Experiment, Init, Length, Source, Task
from tubelet.training.objectives import Mixup

BASE, LARGE, HUGE = "mtv-b/2+s/4+ti/8", "mtv-l/2+b/4+s/8+ti/16", "mtv-h/2+b/4+s/8+ti/16"

Data = Annotated[str, Doc("class folders with train/ and val/ above them, or a manifest (CSV, JSONL, Parquet)")]
ImageViTs = Annotated[tuple[str, ...], Doc("an image ViT to start each stream from, or one MTV; empty: from scratch")]
Kinetics = Annotated[str, Doc("Kinetics run or model folder of an MTV to start from; empty: from scratch")]
Size = Annotated[Literal[224, 320], Doc("pixels of the square crop")]
Wide = Annotated[Literal[224, 280], Doc("pixels of the square crop")]
Streams = Annotated[str, Doc("an MTV by its name: mtv-b/4, mtv-b/2+ti/8, with -late, -mlp or -bottleneck")]


def kinetics400_b(data: Data = "data/kinetics400", init: ImageViTs = (), size: Size = 224) -> Experiment:
    """Kinetics 400, MTV-B (B/2+S/4+Ti/8).

    tubelet train mtv.kinetics400_b --data K400 --init VIT-B VIT-S VIT-TI

    The paper's figures: 81.8 % top-1, 95.0 % top-5; with --size 320 82.4 % and 95.2 %; 4x3 views. Data:
    data/{train,val}/CLASS/*.mp4. Hardware and time: unknown.
    """
    return _kinetics("k400", BASE, data, init, size=size)


def kinetics400_l(data: Data = "data/kinetics400", init: ImageViTs = ()) -> Experiment:
    """Kinetics 400, MTV-L (L/2+B/4+S/8+Ti/16).

    tubelet train mtv.kinetics400_l --data K400 --init VIT-L VIT-B VIT-S VIT-TI

    The slides' figures: 84.3 % top-1, 96.3 % top-5, 4x3 views, pretrained on JFT, which is private: from other weights
    expect less. No configuration was released: the hyper-parameters are those of Kinetics 600. Data:
    data/{train,val}/CLASS/*.mp4. Hardware and time: unknown.
    """
    return _kinetics("k400", LARGE, data, init)


def kinetics400_h(data: Data = "data/kinetics400", init: ImageViTs = (), size: Wide = 224) -> Experiment:
    """Kinetics 400, MTV-H (H/2+B/4+S/8+Ti/16).

    tubelet train mtv.kinetics400_h --data K400 --init VIT-H VIT-B VIT-S VIT-TI

    The slides' figures, 4x3 views: pretrained on JFT 85.8 % top-1, 96.6 % top-5; on WTS 89.1 % and 98.2 %, with --size
    280 89.9 % and 98.3 %. Both are private: from other weights expect less. No configuration was released: the
    hyper-parameters are those of MTV-L on Kinetics 600. Data: data/{train,val}/CLASS/*.mp4. Hardware and time: unknown.
    """
    return _kinetics("k400", HUGE, data, init, size=size)


def kinetics600_b(data: Data = "data/kinetics600", init: ImageViTs = (), size: Size = 224) -> Experiment:
    """Kinetics 600, MTV-B (B/2+S/4+Ti/8).

    tubelet train mtv.kinetics600_b --data K600 --init VIT-B VIT-S VIT-TI

    The paper's figures: 83.6 % top-1 (README: 83.8 %), 96.1 % top-5; with --size 320 84.0 % and 96.2 %; 4x3 views.
    Data: data/{train,val}/CLASS/*.mp4. Hardware and time: unknown.
    """
    return _kinetics("k600", BASE, data, init, learning_rate=0.2, size=size)


def kinetics600_l(data: Data = "data/kinetics600", init: ImageViTs = ()) -> Experiment:
    """Kinetics 600, MTV-L (L/2+B/4+S/8+Ti/16).

    tubelet train mtv.kinetics600_l --data K600 --init VIT-L VIT-B VIT-S VIT-TI

    The README's figure: 84.4 % top-1, 4x3 views; the slides' 85.4 % is of a model pretrained on JFT. Data:
    data/{train,val}/CLASS/*.mp4. Hardware and time: unknown.
    """
    return _kinetics("k600", LARGE, data, init)


def kinetics600_h(data: Data = "data/kinetics600", init: ImageViTs = (), size: Wide = 224) -> Experiment:
    """Kinetics 600, MTV-H (H/2+B/4+S/8+Ti/16).

    tubelet train mtv.kinetics600_h --data K600 --init VIT-H VIT-B VIT-S VIT-TI

    The slides' figures: pretrained on JFT 86.5 % top-1, 97.3 % top-5; on WTS 89.6 % and 98.3 %, with --size 280 90.3 %
    and 98.5 %. Both are private: from other weights expect less. No configuration was released: the hyper-parameters
    are those of MTV-L. Data: data/{train,val}/CLASS/*.mp4. Hardware and time: unknown.
    """
    return _kinetics("k600", HUGE, data, init, size=size)


def kinetics700_b(data: Data = "data/kinetics700", init: ImageViTs = ()) -> Experiment:
    """Kinetics 700, MTV-B (B/2+S/4+Ti/8), without stochastic depth.

    tubelet train mtv.kinetics700_b --data K700 --init VIT-B VIT-S VIT-TI

    The README's figure: 73.5 % top-1, 4x3 views. Data: data/{train,val}/CLASS/*.mp4. Hardware and time: unknown.
    """
    return _kinetics("k700", BASE, data, init, depth=0.0)


def kinetics700_l(data: Data = "data/kinetics700", init: ImageViTs = ()) -> Experiment:
    """Kinetics 700, MTV-L (L/2+B/4+S/8+Ti/16).

    tubelet train mtv.kinetics700_l --data K700 --init VIT-L VIT-B VIT-S VIT-TI

    The paper's figures: 75.2 % top-1, 91.7 % top-5, 4x3 views. Data: data/{train,val}/CLASS/*.mp4. Hardware and time:
    unknown.
    """
    return _kinetics("k700", LARGE, data, init)


def kinetics700_h(data: Data = "data/kinetics700", init: ImageViTs = (), size: Wide = 224) -> Experiment:
    """Kinetics 700, MTV-H (H/2+B/4+S/8+Ti/16).

    tubelet train mtv.kinetics700_h --data K700 --init VIT-H VIT-B VIT-S VIT-TI

    The slides' figures: pretrained on JFT 78.0 % top-1, 93.3 % top-5; on WTS 82.2 % and 95.7 %, with --size 280 83.4 %
    and 96.2 %. Both are private: from other weights expect less. No configuration was released: the hyper-parameters
    are those of MTV-L. Data: data/{train,val}/CLASS/*.mp4. Hardware and time: unknown.
    """
    return _kinetics("k700", HUGE, data, init, size=size)


def moments_in_time_h(data: Data = "data/moments_in_time", init: Kinetics = "", size: Wide = 224) -> Experiment:
    """Moments in Time, MTV-H (H/2+B/4+S/8+Ti/16), from a Kinetics model.

    tubelet train mtv.moments_in_time_h --data MIT --init runs/mtv.kinetics600_h

    The slides' figures: pretrained on JFT 44.0 % top-1, 70.2 % top-5; on WTS 45.6 % and 74.7 %, with --size 280 47.2 %
    and 75.7 %. Both are private: from other weights expect less. No configuration was released: the hyper-parameters
    are those of MTV-L. Data: as moments_in_time_l has it. Hardware and time: unknown.
    """
    return _moments(_model(HUGE, frames=32, stride=3, size=size), data, init)


def moments_in_time_l(data: Data = "data/moments_in_time", init: Kinetics = "") -> Experiment:
    """Moments in Time, MTV-L (L/2+B/4+S/8+Ti/16), from a Kinetics model.

    tubelet train mtv.moments_in_time_l --data MIT --init runs/mtv.kinetics600_l

    The paper's figures: 41.7 % top-1 (README: 42.5 %), 69.7 % top-5, 1x3 views. Data: data/{train,val}/CLASS/*.mp4; the
    dataset calls the two folders training and validation. Hardware and time: unknown.
    """
    return _moments(_model(LARGE, frames=32, stride=3), data, init)


def epic_kitchens_b(data: Data = "data/epic_kitchens.csv", init: Kinetics = "", size: Size = 224) -> Experiment:
    """Epic Kitchens 100, MTV-B (B/2+S/4+Ti/8), from a Kinetics model: verb and noun by two heads.

    tubelet train mtv.epic_kitchens_b --data EPIC.csv --init runs/mtv.kinetics400_b

    The paper's figures: 46.7 % action, 67.8 % verb, 60.5 % noun, top-1, from Kinetics 400 (README: 48.0 % action from
    Kinetics 700); with --size 320 48.6 %, 68.0 % and 63.1 %; 4x1 views. 64 frames, one apart. Data: a manifest with the
    columns path, start, end, label.verb, label.noun and split (train, val), one row per action. Hardware and time:
    unknown.
    """
    objective = Classification(label_sets=("verb", "noun"), smoothing=0.2)
    task = _task(data, objective, learning_rate=0.2, epochs=80, batch_size=128, views=Views(4, 1))
    task = replace(task, augment=_randaugment(3, 10))
    return _experiment("epic", _model(BASE, frames=64, stride=1, size=size), task, _one(init))


def ablation(model: Streams = "mtv-b/4+s/8+ti/16", data: Data = "data/kinetics400", init: ImageViTs = ()) -> Experiment:
    """The slides' comparisons on Kinetics 400: number of streams, how they are fused, encoder of each.

    tubelet train mtv.ablation --model mtv-b/4+s/8+ti/16-late --data K400 --init VIT-B VIT-S VIT-TI

    The paper's figures, in % top-1, of one stream, and of B/4+S/8+Ti/16 by each --model:

      mtv-b/4                78.3    mtv-s/8  74.1    mtv-ti/16  67.6
      ...-late               80.6    late fusion
      ...-mlp                80.6    MLP
      ...-bottleneck         81.0    bottleneck
      mtv-b/4+s/8+ti/16      81.1    CVA

    of the encoders, by CVA:

      mtv-b/8+ti/2           77.3    mtv-b/2+ti/8       81.3
      mtv-b/8+s/4+ti/2       78.5    mtv-b/2+s/4+ti/8   81.8
      mtv-b/4+b/8+b/16       81.1    mtv-b/2+b/8        81.5
      mtv-b/2+b/4+b/8        81.7

    The ensemble's 77.7 % are those of the three single streams, trained with --out runs/b4 and so on: tubelet eval
    runs/b4 --ensemble runs/s8 runs/ti16. Nothing is said of their hyper-parameters: these are kinetics400_b's. Data:
    data/{train,val}/CLASS/*.mp4. Hardware and time: unknown.
    """
    return _kinetics("k400", model, data, init)


def epic_kitchens_multimodal(
    data: Data = "data/epic_kitchens.csv", init: Annotated[tuple[str, ...], Doc("three image ViTs: B, S, Ti")] = ()
) -> Experiment:
    """Epic Kitchens 100, multimodal MTV: B/2 of the video, S/4 of its optical flow, Ti of its sound.

    tubelet train mtv.epic_kitchens_multimodal --data EPIC.csv --init VIT-B VIT-S VIT-TI

    One page of the slides, without a figure in % or a hyper-parameter: "each view is now a different modality". What is
    ours: MTV-B's streams, each with a modality, from the one with the fewest tokens (sound) to the one with the most,
    by cross-view attention; 7.68 s of sound, in as many stretches as the flow has pairs of time indices; and
    epic_kitchens_b's training, with Kinetics' augmentation in the place of RandAugment, which would falsify flow: that
    is cropped and mirrored alone, and starts from equal shares of an image ViT's colors. Data: a manifest with the
    columns path, path.flow (a video of the flow, see docs/data.md), start, end, label.verb, label.noun and split
    (train, val), one row per action. Hardware and time: unknown.
    """
    experiment = epic_kitchens_b(data)
    model = experiment.model
    assert isinstance(model, MTVConfig)
    video = model.media["video"]
    assert isinstance(video, VideoSpec)
    flow = replace(video, values="flow", column="path.flow", mean=(0.5, 0.5), std=(0.5, 0.5))
    sound, moving, seen = model.streams.values()
    streams = {
        "sound": replace(sound, input="audio", tubelet=(1, 16, 16), segments=8),
        "flow": replace(moving, input="flow"),
        "video": seen,
    }
    media = {"video": video, "flow": flow, "audio": SpectrogramSpec(frames=768)}
    task = replace(experiment.tasks["epic"], inputs=tuple(media), augment=Augmentation())
    return _experiment("epic", replace(model, streams=streams, media=media), task, init)


def ssv2_b(data: Data = "data/ssv2.csv", init: Kinetics = "", size: Size = 224) -> Experiment:
    """Something-Something v2, MTV-B (B/2+S/4+Ti/8), from a Kinetics model.

    tubelet train mtv.ssv2_b --data SSV2.csv --init runs/mtv.kinetics400_b

    The paper's figures: 67.6 % top-1, 90.1 % top-5; with --size 320 68.5 % and 90.4 %; 4x3 views. 48 frames, one apart.
    Clips are mirrored, as released, although some classes name left and right. Data: a manifest with the columns path,
    label and split (train, val). Hardware and time: unknown.
    """
    objective = Classification(smoothing=0.2, mixup=Mixup(alpha=0.3))
    task = _task(data, objective, learning_rate=0.2, epochs=60, batch_size=256, views=Views(4, 3))
    task = replace(task, augment=_randaugment(1, 15))
    return _experiment("ssv2", _model(BASE, frames=48, stride=1, size=size), task, _one(init))


def _kinetics(
    name: str,
    model: str,
    data: str,
    init: tuple[str, ...],
    *,
    learning_rate: float = 0.1,
    depth: float = 0.1,
    size: int = 224,
) -> Experiment:
    task = _task(data, Classification(), learning_rate=learning_rate, epochs=30, batch_size=64, views=Views(4, 3))
    task = replace(task, stochastic_depth=depth)
    return _experiment(name, _model(model, frames=32, stride=2, size=size, fps=25.0), task, init)


def _moments(model: MTVConfig, data: str, init: str) -> Experiment:
    objective = Classification(mixup=Mixup(alpha=0.2))
    task = _task(data, objective, learning_rate=0.2, epochs=20, batch_size=256, views=Views(1, 3))
    return _experiment("mit", model, task, _one(init))


def _model(name: str, *, frames: int, stride: int, size: int = 224, fps: float = 0.0) -> MTVConfig:
    config = model_config(name, frames=frames, size=size)
    if not isinstance(config, MTVConfig):
        raise ConfigError(f"model: {name} is no MTV; give one such as mtv-b/4 or mtv-b/2+s/4+ti/8-late")
    streams = {
        key: replace(stream, backbone=replace(stream.backbone, rescale_depth=True))
        for key, stream in config.streams.items()
    }
    video = replace(config.media["video"], stride=stride, fps=fps)
    global_encoder = replace(config.global_encoder, rescale_depth=True)
    return replace(config, streams=streams, media={"video": video}, global_encoder=global_encoder)


def _task(
    data: str, objective: Classification, *, learning_rate: float, epochs: float, batch_size: int, views: Views
) -> Task:
    return Task(
        source=Source(path=data),
        objective=objective,
        batch_size=batch_size,
        length=Length(epochs=epochs),
        warmup=Length(epochs=2.5),
        learning_rate=learning_rate,
        stochastic_depth=0.1,
        views=views,
    )


def _randaugment(layers: int, magnitude: float) -> Augmentation:
    """It takes the place of the color steps, which the configurations ask for as well and the released code skips."""
    return Augmentation(randaugment_layers=layers, randaugment_magnitude=magnitude, color=0, grayscale=0)


def _one(init: str) -> tuple[str, ...]:
    return (init,) if init else ()


def _experiment(name: str, model: MTVConfig, task: Task, init: tuple[str, ...]) -> Experiment:
    """One ``init`` starts all of the model; several the streams, from the finest on. Kernels: the central frame's."""
    names = [*reversed(model.streams)] if len(init) > 1 else [""]
    if init and len(init) != len(names):
        raise ConfigError(f"init: {len(init)} image ViTs for the {len(names)} streams {', '.join(names)}")
    notes = "" if init else "From scratch: the authors start from weights, and without them expect far less."
    start = tuple(Init(source=source, into=into) for source, into in zip(init, names, strict=False))
    return Experiment(model=model, tasks={name: task}, optimizer=SGD(momentum=0.9), init=start, notes=notes)
