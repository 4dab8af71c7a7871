"""TubeViT's experiments (Piergiovanni et al. 2022), with every hyper-parameter of its Tables 10, 11 and 12.

Models are trained "from scratch or on ImageNet-1k and Kinetics" (Sec. 1; ImageNet-1k is Table 1's pretraining data):
the joint trainings start from nothing, and no weights of ImageNet-21k are anywhere in the paper. The image model of
"ImageNet then Kinetics" (Table 5) is ``imagenet``.

Neither code nor weights were released. What the paper leaves open is ours: of the 300,000 updates of a joint training
each of the two datasets has half, in random order; Adam's weight decay is decoupled from the gradient; gradients are
clipped to the norm 1; clips and pictures are cropped at random and go through RandAugment with its geometric
operations, and nothing else, for no more is listed. The paper says neither on what hardware it trained nor for how
long. Accuracies are the paper's: none has been repeated with this library.

``data`` is a folder of class folders with ``train`` and ``val`` above them, or a manifest.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from typing_extensions import Doc

from tubelet.configs import ConfigError
from tubelet.data.augment import Augmentation
from tubelet.data.views import Views
from tubelet.models import model_config
from tubelet.models.tubevit import CHARADES_TUBES, PATCH, TUBES, Places, Tube, TubeViTConfig, scaled
from tubelet.nn.tokenizers import Tubelet
from tubelet.training.classification import Classification
from tubelet.training.experiment import AdamW, Experiment, Init, Length, Source, Task
from tubelet.training.objectives import Mixup

Size = Literal["ti", "b", "l"]
Data = Annotated[str, Doc("class folders with train/ and val/ above them, or a manifest (CSV, JSONL, Parquet)")]
ImageNet = Annotated[str, Doc("ImageNet-1k, as class folders or a manifest; empty: video alone (Table 5)")]
Start = Annotated[str, Doc("run of tubevit.imagenet, or any image ViT, to start from; empty: from scratch")]
Joint = Annotated[str, Doc("run of tubevit.kinetics600 to start from; empty: from scratch")]
TransformerConfig = Annotated[Size, Doc("Tiny, Base or Large")]
Depth = Literal["table 12", "none", "x2 T", "x2 S", "x4 T", "x4 S", "x4 ST"]

_IMAGES = "data/imagenet"


def kinetics400(
    data: Data = "data/kinetics400", imagenet: ImageNet = _IMAGES, init: Start = "", size: TransformerConfig = "b"
) -> Experiment:
    """Kinetics 400 and ImageNet-1k jointly, one TubeViT with a head for each.

    tubelet train tubevit.kinetics400 --data K400 --imagenet IMAGENET

    The paper's figures, 4x3 views (Table 1): Base 88.6 % top-1, 97.6 % top-5; Large 90.2 %, 98.6 %. Data:
    K400/{train,val}/CLASS/*.mp4, IMAGENET/{train,val}/CLASS/*.jpg. Hardware and time: unknown.
    """
    return _joint("k400", data, imagenet, init, size)


def kinetics600(
    data: Data = "data/kinetics600", imagenet: ImageNet = _IMAGES, init: Start = "", size: TransformerConfig = "b"
) -> Experiment:
    """Kinetics 600 and ImageNet-1k jointly, one TubeViT with a head for each.

    tubelet train tubevit.kinetics600 --data K600 --imagenet IMAGENET

    The paper's figures, 4x3 views (Table 2): Base 90.9 % top-1, 97.3 % top-5; Large 91.5 %, 98.7 %. Base has 81.4 % on
    ImageNet. Large on Kinetics alone (--imagenet "") has 85.6 %, and 90.4 % on ImageNet first (Table 5):

    tubelet train tubevit.imagenet --data IMAGENET --size l --out runs/imagenet_l
    tubelet train tubevit.kinetics600 --data K600 --imagenet "" --size l --init runs/imagenet_l

    Large with patches of every frame and no tubes (--model.tubes [] --model.patch.stride 1,16,16) has 87.6 %, and a
    ViViT's inflated patches, on ImageNet first, 88.4 % (Table 5; vivit.kinetics600_l16x2). Data:
    K600/{train,val}/CLASS/*.mp4, IMAGENET/{train,val}/CLASS/*.jpg. Hardware and time: unknown.
    """
    return _joint("k600", data, imagenet, init, size)


def kinetics700(
    data: Data = "data/kinetics700", imagenet: ImageNet = _IMAGES, init: Start = "", size: TransformerConfig = "l"
) -> Experiment:
    """Kinetics 700 and ImageNet-1k jointly, one TubeViT with a head for each.

    tubelet train tubevit.kinetics700 --data K700 --imagenet IMAGENET

    The paper's figures, 4x3 views (Table 3): Large 83.8 % top-1, 96.6 % top-5. Data: K700/{train,val}/CLASS/*.mp4,
    IMAGENET/{train,val}/CLASS/*.jpg. Hardware and time: unknown.
    """
    return _joint("k700", data, imagenet, init, size)


def imagenet(data: Data = _IMAGES, init: Start = "", size: TransformerConfig = "b") -> Experiment:
    """ImageNet-1k alone: the image model of "ImageNet then Kinetics" (Table 5).

    tubelet train tubevit.imagenet --data IMAGENET

    The paper's figures: Base 78.1 % top-1, 81.4 % when trained jointly (Sec. 4.1). Data:
    IMAGENET/{train,val}/CLASS/*.jpg. Hardware and time: unknown.
    """
    return _experiment(_model(size, frames=64, fps=15.0), {"imagenet": _task(data, "image", _RATES[size])}, init, size)


def ssv2(data: Data = "data/ssv2.csv", init: Joint = "", size: TransformerConfig = "l") -> Experiment:
    """Something-Something v2, from a TubeViT trained on Kinetics 600 and ImageNet.

    tubelet train tubevit.kinetics600 --data K600 --imagenet IMAGENET --size l --out runs/joint_l
    tubelet train tubevit.ssv2 --data SSV2.csv --init runs/joint_l

    The paper's figures, 4x3 views (Table 4): Large 76.1 % top-1, 95.2 % top-5. Data: a manifest with the columns path,
    label and split (train, val). Hardware and time: unknown.
    """
    objective = Classification(smoothing=0.3, mixup=Mixup(alpha=0.3))
    task = replace(_task(data, "video", 2e-5), objective=objective)
    return _started(_experiment(_model(size, frames=32, fps=24.0, dropout=0.3), {"ssv2": task}, init, size))


def charades(
    data: Data = "data/charades.csv",
    init: Joint = "",
    size: TransformerConfig = "l",
    interpolated: Annotated[bool, Doc("enlarge the learned kernels (App. B)")] = True,
) -> Experiment:
    """Charades, many actions in a clip, from a TubeViT trained on Kinetics 600 and ImageNet.

    tubelet train tubevit.kinetics600 --data K600 --imagenet IMAGENET --size l --out runs/joint_l
    tubelet train tubevit.charades --data CHARADES.csv --init runs/joint_l

    The paper's figures (Table 13): Large 66.2 % mAP, and 61.8 % with --no-interpolated. Clips of 128 frames, 6 a
    second. Data: a manifest with the columns path, labels and split (train, val). Hardware and time: unknown.
    """
    objective = Classification(labels="several", loss="sigmoid", smoothing=0.1)
    task = replace(_task(data, "video", 1e-3), objective=objective, batch_size=64)
    model = _model(size, frames=128, fps=6.0, dropout=0.2)
    if interpolated:
        model = replace(model, tubes=CHARADES_TUBES, learned=tuple(tube.kernel for tube in TUBES))
    return _started(_experiment(model, {"charades": task}, init, size))


def scaling(
    data: Data = "data/kinetics600",
    init: Annotated[str, Doc("image ViT of the size, trained on ImageNet; empty: from scratch")] = "",
    tubes: Annotated[str, Doc("run of the smaller TubeViT whose tubes are taken; empty: from scratch")] = "",
    size: Annotated[Literal["h", "b"], Doc("Huge with the tubes of Base (Table 6), or Base with those of Tiny")] = "h",
    trained: Annotated[int, Doc("how many of the last layers are trained; all of them: full fine-tuning")] = 8,
    gated: Annotated[bool, Doc("add the tubes' tokens again before these layers (Eq. 8)")] = False,
) -> Experiment:
    """Kinetics 600 by a large image ViT, mostly frozen, with the tubes of a small TubeViT (Sec. 3.6).

    tubelet train tubevit.kinetics600 --data K600 --imagenet IMAGENET --out runs/joint_b
    tubelet train tubevit.scaling --data K600 --init VIT-H --tubes runs/joint_b --gated
    tubelet train tubevit.kinetics600 --data K600 --imagenet IMAGENET --size ti --out runs/joint_ti
    tubelet train tubevit.scaling --data K600 --size b --trained 4 --init VIT-B --tubes runs/joint_ti

    The paper's figures in % top-1. Huge (Table 6): 89.7 with the gate before the last 8 layers, and without a gate
    86.8 with these, 86.3 with --trained 4, 85.6 with --trained 0, the head alone; all 32 layers 91.8. Base with the
    tubes of Tiny, 50,000 updates, no gate (Table 9): --size b --trained 0 79.6, 1 80.8, 4 81.1, 12 81.4. Data:
    K600/{train,val}/CLASS/*.mp4. Hardware and time: unknown.
    """
    large, small = (("tubevit-h/14", "tubevit-b/16"), ("tubevit-b/16", "tubevit-ti/16"))[size == "b"]
    depth = _config(large).backbone.depth
    if not 0 <= trained <= depth:
        raise ValueError(f"{trained=} must be between 0 and the {depth} layers of {large}")
    gate = depth - trained if gated and 0 < trained < depth else 0
    model = scaled(_config(large), _config(small), gate)
    task = _task(data, "video", _RATES[size])
    if size == "b":
        task = replace(task, length=Length(steps=50_000))
    experiment = _experiment(model, {"k600": task}, init, size)
    start = (*experiment.init, *((Init(source=tubes, into="video"),) if tubes else ()))
    return _started(replace(experiment, init=start, trainable=last_layers(model, trained)))


def ablation(
    data: Data = "data/kinetics600",
    init: Annotated[str, Doc("image ViT to start from, as in Table 8; empty: from scratch")] = "",
    positions: Annotated[Places, Doc("position embeddings (Table 7a)")] = "fixed",
    tubes: Annotated[
        Literal[1, 2, 4], Doc("the patch alone, with the tube of 8x8x8, or with all three (Table 7b)")
    ] = 4,
    space_to_depth: Annotated[Depth, Doc("factor, in time (T) and space (S), of all tubes (Table 7c)")] = "table 12",
    interpolated: Annotated[bool, Doc("one kernel of 8x8x8 for all tubes (Table 7e)")] = False,
    added: Annotated[int, Doc("attention layers that are added to the image model (Table 8)")] = 0,
) -> Experiment:
    """Kinetics 600 by TubeViT-B, as Tables 7 and 8 vary it.

    tubelet train tubevit.ablation --data K600 --positions learned

    The paper's figures in % top-1. (a) --positions none 78.6, learned 79.2, relative 77.5, fixed-no-stride 77.7, fixed
    84.5. (b) --space-to-depth none --tubes 1 78.4, 2 81.5, 4 83.4; which eight have 85.4 is not said. (c)
    --space-to-depth none 83.4, "x2 T" 84.7, "x2 S" 84.5, "x4 T" 85.1, "x4 S" 85.4, "x4 ST" 85.3. (e) --interpolated
    83.8, beside 84.5. Table 8, 70,000 updates from an image ViT: --init VIT-B --added 0 84.2, 1 80.2, 2 78.9, 4 75.2, 8
    73.0. The same run, evaluated otherwise, gives (d), more tokens, as in

    tubelet eval runs/tubevit.ablation --model.tubes.0.stride 8,32,32

    and (f), --views 1x1 82.8, 4x1 83.3, 1x3 83.6, 4x3 84.5, 10x10 84.7. Kinetics alone: whether ImageNet was beside it
    is not said. Data: K600/{train,val}/CLASS/*.mp4. Hardware and time: unknown.
    """
    cut: tuple[Tube, ...] = {1: (), 2: (_CORE,), 4: TUBES}[tubes]
    if space_to_depth != "table 12":
        cut = tuple(replace(tube, neighbors=_NEIGHBORS[space_to_depth]) for tube in cut)
    learned = (_CORE.kernel,) if interpolated and len(cut) > 1 else ()
    model = replace(_model("b", frames=64, fps=15.0), tubes=cut, learned=learned, positions=positions, added=added)
    task = _task(data, "video", _RATES["b"])
    if init:
        task = replace(task, length=Length(steps=70_000))
    return _experiment(model, {"k600": task}, init, "b")


def tube_shapes(
    data: Data = "data/kinetics600",
    imagenet: ImageNet = _IMAGES,
    shapes: Annotated[str, Doc("the letter of a shape and the numeral of its strides, as Table 14 has them")] = (
        "a+iv d+v e+iv f+v"
    ),
) -> Experiment:
    """Kinetics 600 and ImageNet-1k by TubeViT-B with other tubes, 50,000 updates (App. C, Table 14).

    tubelet train tubevit.tube_shapes --data K600 --imagenet IMAGENET --shapes "a+iv b+v f+iv"

    The paper's figures in % top-1: "a+iv b+v f+iv" 87.9, "c+iv e+v g+iv" 87.5, "a+iv e+v g+iv" 87.8, "b+iv e+v g+iv"
    87.7, "a+iv d+v e+iv h+v" 88.6, "a+iv b+v c+iv h+v" 87.9, "a+iv d+v e+iv f+v" 88.9. Without (a), videos do not go
    through the patch. That ImageNet is beside it is our guess, from the height of the figures. Data:
    K600/{train,val}/CLASS/*.mp4, IMAGENET/{train,val}/CLASS/*.jpg. Hardware and time: unknown.
    """
    cut = [_shaped(name) for name in shapes.split()]
    patch, tubes = [t for t in cut if t.kernel[0] == 1], [t for t in cut if t.kernel[0] > 1]
    experiment = _joint("k600", data, imagenet, "", "b")
    model = replace(
        _model("b", frames=64, fps=15.0),
        patch=patch[0] if patch else PATCH,
        patch_videos=bool(patch),
        tubes=tuple(tubes),
    )
    share = len(experiment.tasks)
    tasks = {n: replace(task, length=Length(steps=50_000 // share)) for n, task in experiment.tasks.items()}
    return replace(experiment, model=model, tasks=tasks)


# Table 14's shapes and strides, by the paper's letters and numerals
_SHAPES: dict[str, Tubelet] = {
    "a": (1, 16, 16),
    "b": (4, 32, 32),
    "c": (4, 4, 4),
    "d": (4, 12, 12),
    "e": (8, 8, 8),
    "f": (16, 4, 4),
    "g": (16, 16, 16),
    "h": (32, 8, 8),
}
_STRIDES: dict[str, Tubelet] = {
    "i": (4, 16, 16),
    "ii": (8, 8, 8),
    "iii": (8, 32, 32),
    "iv": (16, 16, 16),
    "v": (32, 32, 32),
}

# Sec. 3.4's core approach: beside the patch, a tube of 8x8x8 every 16 frames and pixels.
_CORE = Tube(kernel=(8, 8, 8), stride=(16, 16, 16))

# Table 7c. Of two in space, the paper does not say along which axis: here one above the other.
_NEIGHBORS: dict[str, Tubelet] = {
    "none": (1, 1, 1),
    "x2 T": (2, 1, 1),
    "x2 S": (1, 2, 1),
    "x4 T": (4, 1, 1),
    "x4 S": (1, 2, 2),
    "x4 ST": (2, 2, 1),
}


def _shaped(name: str) -> Tube:
    """The tube that "a+iv" says."""
    shape, _, stride = name.partition("+")
    if shape not in _SHAPES or stride not in _STRIDES:
        raise ConfigError(f"shapes: {name!r} is no shape (a to h) and strides (i to v), as in a+iv")
    return Tube(kernel=_SHAPES[shape], stride=_STRIDES[stride])


def last_layers(model: TubeViTConfig, count: int) -> tuple[str, ...]:
    """What ``Experiment.trainable`` says for heads, gate and the last ``count`` layers; everything for all of them."""
    depth, gate = model.backbone.depth, model.gate
    if count == depth:
        return ("*",)
    stacks = (f"transformer.blocks.{i - gate}" if i >= gate else f"before.blocks.{i}" for i in range(depth))
    layers = [*stacks][depth - count :] + ["transformer.norm"] * (count > 0) + ["gate"] * (gate > 0)
    return ("heads.*", *(f"encoder.{name}.*" for name in layers))


# Table 10: what differs between the sizes. It has no Tiny (Table 9), which gets what Base has.
_RATES = {"ti": 5e-5, "b": 5e-5, "l": 1e-5, "h": 1e-5}
_DECAYS = {"ti": 1e-3, "b": 1e-3, "l": 1e-5, "h": 1e-5}


def _joint(name: str, data: str, imagenet: str, init: str, size: Size) -> Experiment:
    """Images and videos in turn (Sec. 3.5), or videos alone."""
    tasks = {name: _task(data, "video", _RATES[size])}
    if imagenet:
        tasks |= {"imagenet": _task(imagenet, "image", _RATES[size])}
        half, warmup = Length(steps=150_000), Length(steps=5_000)
        tasks = {name: replace(task, length=half, warmup=warmup) for name, task in tasks.items()}
    return _experiment(_model(size, frames=64, fps=15.0), tasks, init, size)


def _task(data: str, modality: str, learning_rate: float) -> Task:
    """A column of Table 10."""
    return Task(
        source=Source(path=data),
        inputs=(modality,),
        augment=Augmentation(
            scale_jitter=0,
            flip=0,
            color=0,
            grayscale=0,
            randaugment_layers=2,
            randaugment_magnitude=10,
            randaugment_geometric=True,
        ),
        batch_size=256,
        length=Length(steps=300_000),
        warmup=Length(steps=10_000),
        learning_rate=learning_rate,
        views=Views(4, 3) if modality == "video" else Views(1, 1),
    )


def _config(name: str, frames: int = 64, fps: float = 15.0) -> TubeViTConfig:
    config = model_config(name, frames=frames)
    assert isinstance(config, TubeViTConfig), name
    return replace(config, video=replace(config.video, stride=1, fps=fps))


def _model(size: Size, *, frames: int, fps: float, dropout: float = 0.0) -> TubeViTConfig:
    config = _config(f"tubevit-{size}/16", frames, fps)
    return replace(config, backbone=replace(config.backbone, dropout=dropout))


def _experiment(model: TubeViTConfig, tasks: dict[str, Task], init: str, size: str) -> Experiment:
    start = (Init(source=init),) if init else ()
    return Experiment(model=model, tasks=tasks, optimizer=AdamW(weight_decay=_DECAYS[size]), init=start)


def _started(experiment: Experiment) -> Experiment:
    """One that the paper starts from weights, and that says so where it has none."""
    notes = "" if experiment.init else "From scratch: the paper starts this training from weights."
    return replace(experiment, notes=notes)
