"""ViViT's experiments (Arnab et al. 2021) on its five datasets, with every hyper-parameter of its Table 7.

Where the released configurations differ, the recipe follows the paper and its docstring names the released value. The
paper trained on TPU-v3s and says neither how many nor how long; the time on other hardware is unknown. Accuracies are
the paper's: none has been repeated with this library. Table 6's rows are quoted as the authors' slides print them.

Every recipe takes ``data``, a folder of class folders with ``train`` and ``val`` above them, or a manifest, and
``init``, the image ViT (or, for Epic Kitchens and Something-Something, the Kinetics model) to start from. The paper
never trains from scratch: without ``init`` expect far less than its figures.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from typing_extensions import Doc

from tubelet.configs import ConfigError
from tubelet.data.augment import Augmentation
from tubelet.data.views import Views
from tubelet.models import model_config
from tubelet.models.vivit import ViViTConfig
from tubelet.training.classification import Classification
from tubelet.training.experiment import SGD, Experiment, Init, Length, Source, Task
from tubelet.training.objectives import Mixup

Data = Annotated[str, Doc("class folders with train/ and val/ above them, or a manifest (CSV, JSONL, Parquet)")]
ImageViT = Annotated[str, Doc("image ViT to start from: a model folder, hf:org/name; empty: from scratch")]
Kinetics = Annotated[str, Doc("Kinetics run or model folder to start from; empty: from scratch")]
Encoding = Annotated[Literal["uniform", "random", "inflation", "central"], Doc("how a clip becomes tokens")]
Variant = Annotated[Literal["st", "fe", "fsa", "fdp", "average"], Doc("Models 1 to 4, and average pooling")]


def kinetics400_b16x2(data: Data = "data/kinetics400", init: ImageViT = "") -> Experiment:
    """Kinetics 400, ViViT-B/16x2, Model 1 (joint space-time attention).

    tubelet train vivit.kinetics400_b16x2 --data K400 --init hf:google/vit-base-patch16-224-in21k

    The paper's figure: 80.0 % top-1, 4 views (Table 2). The released configuration is this one; its README says 79.9 %
    at 4x3 views. Data: data/{train,val}/CLASS/*.mp4. Hardware and time: unknown (the paper: TPU-v3).
    """
    return _kinetics("k400", _model("vivit-b/16x2", fps=25.0), data, init, views=Views(4, 1))


def kinetics400_b16x2_fe(data: Data = "data/kinetics400", init: ImageViT = "") -> Experiment:
    """Kinetics 400, ViViT-B/16x2, Model 2 (factorized encoder, L_t = 4).

    tubelet train vivit.kinetics400_b16x2_fe --data K400 --init hf:google/vit-base-patch16-224-in21k

    The paper's figure: 78.8 % top-1, 4 views (Table 2). The released configuration has a learning rate of 0.05; its
    README says 78.4 % at 4x3 views. Data: data/{train,val}/CLASS/*.mp4. Hardware and time: unknown (the paper: TPU-v3).
    """
    return _kinetics("k400", _model("vivit-b/16x2-fe", fps=25.0), data, init, views=Views(4, 1))


def kinetics400_b16x2_fsa(data: Data = "data/kinetics400", init: ImageViT = "") -> Experiment:
    """Kinetics 400, ViViT-B/16x2, Model 3 (factorized self-attention).

    tubelet train vivit.kinetics400_b16x2_fsa --data K400 --init hf:google/vit-base-patch16-224-in21k

    The paper's figure: 77.4 % top-1, 4 views (Table 2). No configuration was released. The temporal attention starts as
    a residual connection that can learn (Sec. 3.4). Data: data/{train,val}/CLASS/*.mp4. Hardware and time: unknown (the
    paper: TPU-v3).
    """
    return _kinetics("k400", _model("vivit-b/16x2-fsa", fps=25.0), data, init, views=Views(4, 1))


def kinetics400_b16x2_fdp(data: Data = "data/kinetics400", init: ImageViT = "") -> Experiment:
    """Kinetics 400, ViViT-B/16x2, Model 4 (factorized dot-product attention).

    tubelet train vivit.kinetics400_b16x2_fdp --data K400 --init hf:google/vit-base-patch16-224-in21k

    The paper's figure: 76.3 % top-1, 4 views (Table 2). No configuration was released. Data:
    data/{train,val}/CLASS/*.mp4. Hardware and time: unknown (the paper: TPU-v3).
    """
    return _kinetics("k400", _model("vivit-b/16x2-fdp", fps=25.0), data, init, views=Views(4, 1))


def kinetics400_b16x2_average(data: Data = "data/kinetics400", init: ImageViT = "") -> Experiment:
    """Kinetics 400, ViViT-B/16x2, the average-pooling baseline (Model 2 without a temporal transformer).

    tubelet train vivit.kinetics400_b16x2_average --data K400 --init hf:google/vit-base-patch16-224-in21k

    The paper's figure: 75.8 % top-1, 4 views (Table 2, and Table 3 at L_t = 0). No configuration was released. Data:
    data/{train,val}/CLASS/*.mp4. Hardware and time: unknown (the paper: TPU-v3).
    """
    model = replace(_model("vivit-b/16x2-fe", fps=25.0), temporal_depth=0)
    return _kinetics("k400", model, data, init, views=Views(4, 1))


def kinetics400_b16x4_encoding(
    data: Data = "data/kinetics400", init: ImageViT = "", encoding: Encoding = "central"
) -> Experiment:
    """Table 1: how the clip becomes tokens, by ViViT-B, Model 1, on Kinetics 400.

    tubelet train vivit.kinetics400_b16x4_encoding --data K400 --init hf:google/vit-base-patch16-224-in21k \\
        --encoding uniform

    The paper's figures (Table 1): --encoding uniform (8 of the 32 frames, tubelets of one) 78.5 % top-1; tubelets of 4
    frames whose kernel starts at random 73.2 %, by inflation 77.6 %, from the central frame 79.2 %. No configuration
    was released. Data: data/{train,val}/CLASS/*.mp4. Hardware and time: unknown (the paper: TPU-v3).
    """
    model = _model("vivit-b/16x4", fps=25.0)
    if encoding == "uniform":
        model = replace(model, tubelet=(1, 16, 16), sampled_frames=8)
    experiment = _kinetics("k400", model, data, init, views=Views(4, 1))
    kernels = {"random": "random", "inflation": "average"}
    starts = (replace(start, kernel=kernels.get(encoding, "central")) for start in experiment.init)
    return replace(experiment, init=tuple(starts))


def kinetics400_b16x2_temporal(
    data: Data = "data/kinetics400",
    init: ImageViT = "",
    layers: Annotated[int, Doc("layers of the temporal transformer, L_t")] = 4,
) -> Experiment:
    """Table 3: the number of temporal layers of ViViT-B/16x2, Model 2, on Kinetics 400.

    tubelet train vivit.kinetics400_b16x2_temporal --data K400 --init hf:google/vit-base-patch16-224-in21k --layers 8

    The paper's figures (Table 3): --layers 0 75.8 % top-1, 1 78.6 %, 4 78.8 %, 8 78.8 %, 12 78.9 %; 4 views. No
    configuration was released. Data: data/{train,val}/CLASS/*.mp4. Hardware and time: unknown (the paper: TPU-v3).
    """
    model = replace(_model("vivit-b/16x2-fe", fps=25.0), temporal_depth=layers)
    return _kinetics("k400", model, data, init, views=Views(4, 1))


def ablation(
    model: Annotated[str, Doc("a ViViT by its name, such as vivit-l/16x4, vivit-b/16x8-fe")] = "vivit-b/16x4",
    frames: Annotated[int, Doc("frames of a clip, two apart")] = 32,
    data: Data = "data/kinetics400",
    init: ImageViT = "",
) -> Experiment:
    """Kinetics 400 by other backbones, sizes of tubelets and numbers of frames (Figs. 7 and 8, Sec. 4.2).

    tubelet train vivit.ablation --data K400 --model vivit-l/16x4 --init hf:google/vit-large-patch16-224-in21k

    Fig. 7 compares vivit-b and vivit-l, Fig. 8 vivit-b/16x2, 16x4 and 16x8 by each of the models (-fe, -fsa, -fdp); the
    figures' accuracies, in % top-1, are drawn and not printed. Nothing is said of hyper-parameters of their own: these
    are Kinetics 400's. Evaluated with other views, as in `tubelet eval runs/vivit.ablation --views 10x1`, a run tells
    how many clips cover a video. Data: data/{train,val}/CLASS/*.mp4. Hardware and time: unknown (the paper: TPU-v3).
    """
    return _kinetics("k400", _model(model, fps=25.0, frames=frames), data, init, views=Views(4, 1))


def kinetics400_l16x2(data: Data = "data/kinetics400", init: ImageViT = "") -> Experiment:
    """Kinetics 400, ViViT-L/16x2, Model 1.

    tubelet train vivit.kinetics400_l16x2 --data K400 --init hf:google/vit-large-patch16-224-in21k

    The paper's figures: 80.3 % top-1, 4 views (Table 5); 80.6 % top-1, 94.7 % top-5, 4x3 views (Table 6a). No
    configuration was released. Data: data/{train,val}/CLASS/*.mp4. Hardware and time: unknown (the paper: TPU-v3).
    """
    return _kinetics("k400", _model("vivit-l/16x2", fps=25.0), data, init)


def kinetics400_l16x2_288(data: Data = "data/kinetics400", init: ImageViT = "") -> Experiment:
    """Kinetics 400, ViViT-L/16x2, Model 1 at 288 pixels.

    tubelet train vivit.kinetics400_l16x2_288 --data K400 --init hf:google/vit-large-patch16-224-in21k

    The paper's figure: 80.7 % top-1, 4 views (Table 5). No configuration was released. Data:
    data/{train,val}/CLASS/*.mp4. Hardware and time: unknown (the paper: TPU-v3).
    """
    return _kinetics("k400", _model("vivit-l/16x2", fps=25.0, size=288), data, init, views=Views(4, 1))


def kinetics400_l16x2_320(data: Data = "data/kinetics400", init: ImageViT = "") -> Experiment:
    """Kinetics 400, ViViT-L/16x2, Model 1 at 320 pixels.

    tubelet train vivit.kinetics400_l16x2_320 --data K400 --init hf:google/vit-large-patch16-224-in21k

    The paper's figures: 81.0 % top-1, 4 views (Table 5); 81.3 % top-1, 94.7 % top-5, 4x3 views (Table 6a). No
    configuration was released. Data: data/{train,val}/CLASS/*.mp4. Hardware and time: unknown (the paper: TPU-v3).
    """
    return _kinetics("k400", _model("vivit-l/16x2", fps=25.0, size=320), data, init)


def kinetics400_l16x2_fe(data: Data = "data/kinetics400", init: ImageViT = "") -> Experiment:
    """Kinetics 400, ViViT-L/16x2, Model 2 (factorized encoder, L_t = 4).

    tubelet train vivit.kinetics400_l16x2_fe --data K400 --init hf:google/vit-large-patch16-224-in21k

    No figure of the paper's is of this model. The released configuration has 24 temporal layers (--model.temporal-depth
    24); its README says 80.3 % top-1 at 4x3 views. The slides' 81.7 % are those of 128 frames
    (kinetics400_l16x2_fe_128). Data: data/{train,val}/CLASS/*.mp4. Hardware and time: unknown (the paper: TPU-v3).
    """
    return _kinetics("k400", _model("vivit-l/16x2-fe", fps=25.0), data, init)


def kinetics400_l16x2_fe_128(data: Data = "data/kinetics400", init: ImageViT = "") -> Experiment:
    """Kinetics 400, ViViT-L/16x2, Model 2 on 128 frames, which span the 10 seconds of a video.

    tubelet train vivit.kinetics400_l16x2_fe_128 --data K400 --init hf:google/vit-large-patch16-224-in21k

    81.7 % top-1, 93.8 % top-5, 1x3 views, as the authors' slides on MTV quote it: their 11.94 TFLOPs over 3 views are
    those of 128 frames (ours: 11.86), not of 32. No configuration was released. Data: data/{train,val}/CLASS/*.mp4.
    Hardware and time: unknown (the paper: TPU-v3).
    """
    return _kinetics("k400", _model("vivit-l/16x2-fe", fps=25.0, frames=128), data, init, views=Views(1, 3))


def kinetics600_l16x2(data: Data = "data/kinetics600", init: ImageViT = "") -> Experiment:
    """Kinetics 600, ViViT-L/16x2, Model 1.

    tubelet train vivit.kinetics600_l16x2 --data K600 --init hf:google/vit-large-patch16-224-in21k

    The paper's figures: 82.5 % top-1, 95.6 % top-5, 4x3 views (Table 6b). No configuration was released. Data:
    data/{train,val}/CLASS/*.mp4. Hardware and time: unknown (the paper: TPU-v3).
    """
    return _kinetics("k600", _model("vivit-l/16x2", fps=25.0), data, init)


def kinetics600_l16x2_320(data: Data = "data/kinetics600", init: ImageViT = "") -> Experiment:
    """Kinetics 600, ViViT-L/16x2, Model 1 at 320 pixels.

    tubelet train vivit.kinetics600_l16x2_320 --data K600 --init hf:google/vit-large-patch16-224-in21k

    The paper's figures: 83.0 % top-1, 95.7 % top-5, 4x3 views (Table 6b). No configuration was released. Data:
    data/{train,val}/CLASS/*.mp4. Hardware and time: unknown (the paper: TPU-v3).
    """
    return _kinetics("k600", _model("vivit-l/16x2", fps=25.0, size=320), data, init)


def kinetics600_l16x2_fe(data: Data = "data/kinetics600", init: ImageViT = "") -> Experiment:
    """Kinetics 600, ViViT-L/16x2, Model 2 (factorized encoder, L_t = 4).

    tubelet train vivit.kinetics600_l16x2_fe --data K600 --init hf:google/vit-large-patch16-224-in21k

    No figure of the paper's is of this model. The released configuration has 24 temporal layers and a learning rate of
    0.05 (--model.temporal-depth 24 --tasks.k600.learning-rate 0.05); its README says 81.6 % top-1 at 4x3 views. The
    slides' 82.9 % are those of 128 frames (kinetics600_l16x2_fe_128). Data: data/{train,val}/CLASS/*.mp4. Hardware and
    time: unknown (the paper: TPU-v3).
    """
    return _kinetics("k600", _model("vivit-l/16x2-fe", fps=25.0), data, init)


def kinetics600_l16x2_fe_128(data: Data = "data/kinetics600", init: ImageViT = "") -> Experiment:
    """Kinetics 600, ViViT-L/16x2, Model 2 on 128 frames, which span the 10 seconds of a video.

    tubelet train vivit.kinetics600_l16x2_fe_128 --data K600 --init hf:google/vit-large-patch16-224-in21k

    82.9 % top-1, 94.6 % top-5, as the authors' slides on MTV quote it beside the Kinetics 400 model of 128 frames. No
    configuration was released. Data: data/{train,val}/CLASS/*.mp4. Hardware and time: unknown (the paper: TPU-v3).
    """
    return _kinetics("k600", _model("vivit-l/16x2-fe", fps=25.0, frames=128), data, init, views=Views(1, 3))


def kinetics400_h16x2(data: Data = "data/kinetics400", init: ImageViT = "") -> Experiment:
    """Kinetics 400, ViViT-H/16x2, Model 1.

    tubelet train vivit.kinetics400_h16x2 --data K400 --init VIT-H

    84.8 % top-1, 95.8 % top-5, 4x3 views, pretrained on JFT (Table 6a); the paper's text, and the slides on MTV, say
    84.9 %. JFT is private: from other weights expect less, and the paper has no such figure. Its ViT-H has patches of
    16 pixels; kernels of another size are resized. Hyper-parameters are those of the L model. Data:
    data/{train,val}/CLASS/*.mp4. Hardware and time: unknown (the paper: TPU-v3).
    """
    return _kinetics("k400", _model("vivit-h/16x2", fps=25.0), data, init)


def kinetics600_h16x2(data: Data = "data/kinetics600", init: ImageViT = "") -> Experiment:
    """Kinetics 600, ViViT-H/16x2, Model 1.

    tubelet train vivit.kinetics600_h16x2 --data K600 --init VIT-H

    85.8 % top-1, 96.5 % top-5, 4x3 views, pretrained on JFT (Table 6b), which is private: from other weights expect
    less. Hyper-parameters are those of the L model. Data: data/{train,val}/CLASS/*.mp4. Hardware and time: unknown (the
    paper: TPU-v3).
    """
    return _kinetics("k600", _model("vivit-h/16x2", fps=25.0), data, init)


def moments_in_time_l16x2(data: Data = "data/moments_in_time", init: ImageViT = "") -> Experiment:
    """Moments in Time, ViViT-L/16x2, Model 1.

    tubelet train vivit.moments_in_time_l16x2 --data MIT --init hf:google/vit-large-patch16-224-in21k

    The paper's figures: 38.0 % top-1, 64.9 % top-5, 4x3 views (Table 6c). No configuration was released. Data:
    data/{train,val}/CLASS/*.mp4; the dataset calls the two folders training and validation. Hardware and time: unknown
    (the paper: TPU-v3).
    """
    task = _task(data, learning_rate=0.25, epochs=10)
    return _experiment("mit", _model("vivit-l/16x2"), task, init)


def epic_kitchens_b16x2_fe(data: Data = "data/epic_kitchens.csv", init: Kinetics = "") -> Experiment:
    """Epic Kitchens 100, ViViT-B/16x2, Model 2, from a Kinetics 400 model: verb and noun by two heads.

    tubelet train vivit.epic_kitchens_b16x2_fe --data EPIC.csv --init runs/vivit.kinetics400_b16x2_fe

    The paper's figure: 43.7 % top-1 action, 4 views (Tables 2 and 4, last rows). No configuration of the B model was
    released; the L model's has a stride of 1 (--model.video.stride 1). Data: a manifest with the columns path, start,
    end, label.verb, label.noun and split (train, val), one row per action. Hardware and time: unknown (the paper:
    TPU-v3).
    """
    return _epic_kitchens(_model("vivit-b/16x2-fe"), data, init, views=Views(4, 1))


def epic_kitchens_b16x2(
    data: Data = "data/epic_kitchens.csv", init: Kinetics = "", model: Variant = "fe"
) -> Experiment:
    """Table 2 on Epic Kitchens 100: ViViT-B/16x2 by each of the models, from its Kinetics 400 run.

    tubelet train vivit.epic_kitchens_b16x2 --data EPIC.csv --model fsa --init runs/vivit.kinetics400_b16x2_fsa

    The paper's figures (Table 2), in % top-1 action, 4 views: --model st 43.1 %, fe 43.7 %, fsa 39.1 %, fdp 39.5 %,
    average 38.8 %. No configuration was released. Data: a manifest with the columns path, start, end, label.verb,
    label.noun and split (train, val), one row per action. Hardware and time: unknown (the paper: TPU-v3).
    """
    suffix = {"st": "", "average": "-fe"}.get(model, f"-{model}")
    chosen = _model(f"vivit-b/16x2{suffix}")
    chosen = replace(chosen, temporal_depth=0) if model == "average" else chosen
    return _epic_kitchens(chosen, data, init, views=Views(4, 1))


def epic_kitchens_b16x2_regularization(
    data: Data = "data/epic_kitchens.csv",
    init: Annotated[str, Doc("Kinetics run; with --methods 0 an image ViT; empty: from scratch")] = "",
    methods: Annotated[int, Doc("how many of Table 4's five methods there are beside crops, flips and color")] = 5,
) -> Experiment:
    """Table 4: regularization added method by method, ViViT-B/16x2, Model 2, on Epic Kitchens 100.

    tubelet train vivit.epic_kitchens_b16x2_regularization --data EPIC.csv --methods 3 \\
        --init runs/vivit.kinetics400_b16x2_fe

    The paper's figures (Table 4), in % top-1 action: --methods 0 (crops, flips, color; --init is an image ViT) 38.4 %,
    1 (Kinetics 400 initialization) 39.6 %, 2 (stochastic depth) 40.2 %, 3 (RandAugment) 41.1 %, 4 (label smoothing)
    43.1 %, 5 (mixup) 43.7 %. Their strengths are Table 7's. RandAugment takes the color's place, as in the released
    code. Data: a manifest with the columns path, start, end, label.verb, label.noun and split (train, val), one row per
    action. Hardware and time: unknown (the paper: TPU-v3).
    """
    if not 0 <= methods <= 5:
        raise ConfigError(f"methods: {methods} of Table 4's five; give 0 to 5")
    experiment = epic_kitchens_b16x2_fe(data, init)
    task = experiment.tasks["epic"]
    objective = Classification(
        label_sets=("verb", "noun"),
        smoothing=0.2 if methods >= 4 else 0.0,
        mixup=Mixup(alpha=0.1) if methods == 5 else Mixup(),
    )
    task = replace(
        task,
        objective=objective,
        stochastic_depth=task.stochastic_depth if methods >= 2 else 0.0,
        augment=task.augment if methods >= 3 else Augmentation(),
    )
    return replace(experiment, tasks={"epic": task})


def epic_kitchens_l16x2_fe(data: Data = "data/epic_kitchens.csv", init: Kinetics = "") -> Experiment:
    """Epic Kitchens 100, ViViT-L/16x2, Model 2, from a Kinetics 400 model: verb and noun by two heads.

    tubelet train vivit.epic_kitchens_l16x2_fe --data EPIC.csv --init runs/vivit.kinetics400_l16x2_fe

    The paper's figures: 44.0 % action, 66.4 % verb, 56.8 % noun, top-1 (Table 6d). The released configuration has a
    stride of 1 (--model.video.stride 1); its README says 43.6 % action at 4x1 views. Data: a manifest with the columns
    path, start, end, label.verb, label.noun and split (train, val), one row per action. Hardware and time: unknown (the
    paper: TPU-v3).
    """
    return _epic_kitchens(_model("vivit-l/16x2-fe"), data, init, views=Views(4, 1))


def ssv2_l16x2_fe(data: Data = "data/ssv2.csv", init: Kinetics = "") -> Experiment:
    """Something-Something v2, ViViT-L/16x2, Model 2, from a Kinetics 400 model.

    tubelet train vivit.ssv2_l16x2_fe --data SSV2.csv --init runs/vivit.kinetics400_l16x2_fe

    The paper's figures: 65.4 % top-1, 89.8 % top-5 (Table 6e). The released configuration has a learning rate of 0.4, a
    stride of 1 and crops of 256 pixels out of a short side of 288; it mirrors clips as this one does (Table 7),
    although some classes name left and right. Data: a manifest with the columns path, label and split (train, val).
    Hardware and time: unknown (the paper: TPU-v3).
    """
    objective = Classification(smoothing=0.3, mixup=Mixup(alpha=0.3))
    task = _task(data, learning_rate=0.5, epochs=35, augment=randaugment(20), objective=objective, depth=0.3)
    return _experiment("ssv2", _model("vivit-l/16x2-fe"), task, init)


def _model(name: str, *, size: int = 224, fps: float = 0.0, frames: int = 32) -> ViViTConfig:
    """Frames with a stride of 2 (Sec. 4.1); ``fps`` where the paper states it, so that any copy gives its clips."""
    config = model_config(name, frames=frames, size=size)
    if not isinstance(config, ViViTConfig):
        raise ConfigError(f"model: {name} is no ViViT; give one such as vivit-b/16x4 or vivit-b/16x2-fe")
    return replace(config, video=replace(config.video, stride=2, fps=fps))


def _task(
    data: str,
    *,
    learning_rate: float,
    epochs: float,
    augment: Augmentation = Augmentation(),
    objective: Classification = Classification(),
    depth: float = 0.0,
    views: Views = Views(4, 3),
) -> Task:
    """One column of Table 7; ``depth`` is its stochastic droplayer rate."""
    return Task(
        source=Source(path=data),
        objective=objective,
        augment=augment,
        batch_size=64,
        length=Length(epochs=epochs),
        warmup=Length(epochs=2.5),
        learning_rate=learning_rate,
        stochastic_depth=depth,
        views=views,
    )


def _kinetics(name: str, model: ViViTConfig, data: str, init: str, views: Views = Views(4, 3)) -> Experiment:
    task = _task(data, learning_rate=0.1, epochs=30, views=views)
    return _experiment(name, model, task, init)


def _epic_kitchens(model: ViViTConfig, data: str, init: str, views: Views) -> Experiment:
    objective = Classification(label_sets=("verb", "noun"), smoothing=0.2, mixup=Mixup(alpha=0.1))
    augment = randaugment(15)
    task = _task(data, learning_rate=0.5, epochs=50, augment=augment, objective=objective, depth=0.2, views=views)
    return _experiment("epic", model, task, init)


def randaugment(magnitude: float) -> Augmentation:
    """Two layers, which take the place of the color steps."""
    return Augmentation(randaugment_layers=2, randaugment_magnitude=magnitude, color=0, grayscale=0)


def _experiment(name: str, model: ViViTConfig, task: Task, init: str) -> Experiment:
    """Central frame (Eq. 9), positions repeated in time and resized in space (Sec. 3.4), where there is an ``init``."""
    start = (Init(source=init),) if init else ()
    notes = (
        "" if init else "From scratch: the paper starts from weights, and without them its figures are out of reach."
    )
    return Experiment(model=model, tasks={name: task}, optimizer=SGD(momentum=0.9), init=start, notes=notes)
