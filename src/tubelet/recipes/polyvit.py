"""PolyViT's experiments (Likhosherstov et al. 2021), with every hyper-parameter of its Tables 6, 7, 16 and 17.

No checkpoints were released. Where the released configuration (polyvit_all, co-training on nine tasks) differs from the
paper, the recipes follow the paper: it augments images (crops of random size and place, mirroring), the paper does not
(App. A); its warm-ups add up to 47,330 updates, those of Table 6 to 48,630. Where the paper is silent they follow the
released code: images are trained with one sigmoid per class, as AudioSet is. The paper says neither on what hardware it
trained nor for how long; the time on other hardware is unknown. Accuracies are the paper's: none has been repeated with
this library.

``data`` is a folder with a dataset in each subfolder: cifar100, cifar10, pets, resisc45, imagenet, kinetics400,
kinetics600, moments_in_time, vggsound, as {train,val}/CLASS/FILE; and mini_audioset.csv and as500k.csv, manifests with
the columns path, labels and split, since a sound of AudioSet has several labels. Sounds may be audio files or videos.
Another place: --tasks.vggsound.source.path. ``init`` is the image ViT to start from, which the paper always does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Literal

from typing_extensions import Doc

from tubelet.configs import ConfigError
from tubelet.models import SIZES, ModelConfig
from tubelet.models.ast import ASTConfig
from tubelet.models.polyvit import PolyViTConfig
from tubelet.models.vit import ViTConfig
from tubelet.models.vivit import ViViTConfig
from tubelet.recipes.polyvit_tables import (
    AUDIO,
    IMAGE,
    MODALITIES,
    PROBE_RATES,
    VIDEO,
    CoTrained,
    Probed,
    Size,
    audioset_task,
    table_6,
    table_9,
    video_task,
)
from tubelet.training.experiment import SGD, Experiment, Init, Length, Task
from tubelet.training.schedules import Weighted

Sequential = Literal["as500k", "vggsound", "kinetics400", "kinetics600", "moments_in_time"]
Data = Annotated[str, Doc("folder with a dataset in each subfolder")]
ImageViT = Annotated[str, Doc("image ViT to start from: a model folder, hf:org/name; empty: from scratch")]
TransformerConfig = Annotated[Size, Doc("Base or Large")]
Adaptors = Annotated[bool, Doc("give every modality the first half of the layers for itself (L_adapt = L/2)")]


def nine_tasks(
    data: Data = "data/polyvit", init: ImageViT = "", size: TransformerConfig = "b", adaptors: Adaptors = False
) -> Experiment:
    """One PolyViT co-trained on nine image, video and audio tasks.

    tubelet train polyvit.nine_tasks --data DIR --init hf:google/vit-base-patch16-224-in21k

    The paper's figures (Tables 2 and 8), in % top-1 and, for Mini-AudioSet, mAP:

                          Im1K  C100   C10  Pets   R45  K400   MiT  MiniAS   VGG
      Base                83.1  91.2  99.0  95.0  96.7  77.5  33.2    32.3  50.6
      Base, --adaptors    82.8  91.5  99.0  95.0  96.6  79.4  35.3    33.1  51.5
      Large               82.6  91.4  99.0  94.7  96.8  78.9  35.8    33.3  49.9
      Large, --adaptors   82.8  91.1  99.1  95.0  97.0  81.0  37.7    34.1  50.4

    --schedule Alternating (Uniform, TaskByTask, Accumulated) gives the rows of Table 1, whose figures are on validation
    examples: with --training.validate-every they are scored on the way, and choose the weights. App. B's order of
    task-by-task: --schedule TaskByTask --schedule.order
    cifar100,moments_in_time,kinetics400,mini_audioset,vggsound,pets,cifar10,imagenet,resisc45. Data: DIR/cifar100,
    DIR/kinetics400, DIR/mini_audioset.csv and so on, each with the splits train and val. Hardware and time: unknown.
    """
    return _cotraining(table_6(data, size), init, size, adaptors=adaptors)


def image_tasks(data: Data = "data/polyvit", init: ImageViT = "", size: TransformerConfig = "b") -> Experiment:
    """PolyViT on one modality: the five image tasks.

    tubelet train polyvit.image_tasks --data DIR --init hf:google/vit-base-patch16-224-in21k

    The paper's figures (Tables 2 and 8), in % top-1 on ImageNet, CIFAR 100, CIFAR 10, Pets, RESISC45: Base 84.3, 93.3,
    99.1, 95.1, 96.4; Large 85.1, 93.9, 99.4, 95.5, 96.9. Data: DIR/cifar100 and so on, {train,val}/CLASS/*.jpg.
    Hardware and time: unknown.
    """
    return _cotraining(_of("image", table_6(data, size)), init, size)


def video_tasks(data: Data = "data/polyvit", init: ImageViT = "", size: TransformerConfig = "b") -> Experiment:
    """PolyViT on one modality: Kinetics 400 and Moments in Time.

    tubelet train polyvit.video_tasks --data DIR --init hf:google/vit-base-patch16-224-in21k

    The paper's figures (Tables 2 and 8), in % top-1 on Kinetics 400 and Moments in Time: Base 80.2, 36.5; Large 80.6,
    38.8. Data: DIR/kinetics400 and DIR/moments_in_time, {train,val}/CLASS/*.mp4. Hardware and time: unknown.
    """
    return _cotraining(_of("video", table_6(data, size)), init, size)


def audio_tasks(data: Data = "data/polyvit", init: ImageViT = "", size: TransformerConfig = "b") -> Experiment:
    """PolyViT on one modality: Mini-AudioSet and VGGSound.

    tubelet train polyvit.audio_tasks --data DIR --init hf:google/vit-base-patch16-224-in21k

    The paper's figures (Tables 2 and 8), in % mAP on Mini-AudioSet and % top-1 on VGGSound: Base 36.7, 51.6; Large
    37.9, 50.7. Data: DIR/mini_audioset.csv and DIR/vggsound/{train,val}/CLASS/*. Hardware and time: unknown.
    """
    return _cotraining(_of("audio", table_6(data, size)), init, size)


def single_task(
    task: Annotated[CoTrained, Doc("which of the nine tasks")],
    data: Data = "data/polyvit",
    init: ImageViT = "",
    size: TransformerConfig = "b",
) -> Experiment:
    """One of the nine tasks alone: a ViT, a ViViT (Model 1) or an AST, the paper's baseline.

    tubelet train polyvit.single_task kinetics400 --data DIR --init hf:google/vit-base-patch16-224-in21k

    The paper's figures (Tables 2 and 8), in % top-1 and, for Mini-AudioSet, mAP:

              Im1K  C100   C10  Pets   R45  K400   MiT  MiniAS   VGG
      Base    83.1  92.0  99.0  94.5  96.7  78.7  33.8    29.3  51.7
      Large   85.1  93.3  99.2  94.8  97.3  79.6  37.1    30.0  51.8

    Data: DIR/TASK, or for Mini-AudioSet DIR/mini_audioset.csv. Hardware and time: unknown.
    """
    chosen = table_6(data, size)[task]
    return _experiment(_baseline(chosen.inputs[0], size), {task: chosen}, init)


def video_trio(data: Data = "data/polyvit", init: ImageViT = "") -> Experiment:
    """PolyViT-L/16x2 on Kinetics 400, Kinetics 600 and Moments in Time (Table 16).

    tubelet train polyvit.video_trio --data DIR --init hf:google/vit-large-patch16-224-in21k

    The paper's figures (Table 5), in % top-1 and top-5: Kinetics 400 82.4, 95.0; Kinetics 600 82.9, 95.5; Moments in
    Time 38.6, 65.5. No configuration was released. Data: DIR/kinetics400, DIR/kinetics600, DIR/moments_in_time,
    {train,val}/CLASS/*.mp4. Hardware and time: unknown.
    """
    tasks = _of("video", table_6(data, "l"))
    tasks |= {"kinetics600": video_task(f"{data}/kinetics600", learning_rate=0.1, epochs=30)}
    model = PolyViTConfig(backbone=SIZES["l"], modalities={"video": replace(MODALITIES["video"], patch=(2, 16, 16))})
    return _experiment(model, tasks, init)


def audio_pair(data: Data = "data/polyvit", init: ImageViT = "") -> Experiment:
    """PolyViT-B on AudioSet (AS-500k) and VGGSound (Table 17).

    tubelet train polyvit.audio_pair --data DIR --init hf:google/vit-base-patch16-224-in21k

    The paper's figures (Table 4): AudioSet 44.5 % mAP; VGGSound 55.1 % top-1, 80.4 % top-5. No configuration was
    released. Data: DIR/as500k.csv, DIR/vggsound/{train,val}/CLASS/*. Hardware and time: unknown.
    """
    vggsound = table_6(data)["vggsound"]
    return _cotraining({"as500k": audioset_task(f"{data}/as500k.csv", 30, 0.5), "vggsound": vggsound}, init, "b")


def sequential(
    task: Annotated[Sequential, Doc("what is trained now")],
    after: Annotated[tuple[Sequential, ...], Doc("what init has learned before, whose heads are kept and scored")] = (),
    data: Data = "data/polyvit",
    init: Annotated[str, Doc("an image ViT, or the run of the task before")] = "",
) -> Experiment:
    """One task after the other: fine-tuning that forgets (Table 4 rows 2 and 3, Table 10 row 2).

    tubelet train polyvit.sequential as500k --data DIR --init hf:google/vit-base-patch16-224-in21k \\
        --out runs/as500k
    tubelet train polyvit.sequential vggsound --after as500k --data DIR --init runs/as500k

    The paper's figures of sound, AST-B, AudioSet (AS-500k) in % mAP and VGGSound in % top-1: each alone 44.3 and 52.3;
    AS-500k then VGGSound 34.2 and 54.4; VGGSound then AS-500k 44.4 and 22.1; co-trained (audio_pair) 44.5 and 55.1.
    Of video, ViViT-L/16x2, in % top-1 on Kinetics 400, Kinetics 600 and Moments in Time: each alone 80.6, 82.5 and
    38.0; first Moments in Time, then Kinetics 600, then 400 81.3, 78.8 and 27.3; co-trained (video_trio) 82.4, 82.9
    and 38.6.

    tubelet train polyvit.sequential moments_in_time --data DIR --init hf:google/vit-large-patch16-224-in21k \\
        --out runs/mit
    tubelet train polyvit.sequential kinetics600 --after moments_in_time --data DIR --init runs/mit --out runs/k600
    tubelet train polyvit.sequential kinetics400 --after moments_in_time kinetics600 --data DIR --init runs/k600

    Each task is trained as in the co-training. Data: as audio_pair and video_trio have it. Hardware and time: unknown.
    """
    audio, video = audio_pair(data).tasks, video_trio(data)
    tasks = audio if task in audio else video.tasks
    if strangers := [name for name in after if name == task or name not in tasks]:
        raise ConfigError(f"after: {strangers[0]} cannot come before {task}; give {' or '.join(tasks.keys() - {task})}")
    chosen = {name: replace(tasks[name], length=Length(), warmup=Length()) for name in after} | {task: tasks[task]}
    if task in audio:
        return _experiment(_baseline("audio", "b"), chosen, init)
    model = ViViTConfig(backbone=SIZES["l"], tubelet=(2, 16, 16), video=VIDEO)
    return _experiment(model, chosen, init)


def linear_probe(
    task: Annotated[Probed | CoTrained, Doc("which of the eleven tasks, or of the nine")],
    data: Data = "data/polyvit",
    init: Annotated[str, Doc("the model to probe: a run, a model folder, hf:org/name")] = "",
    size: TransformerConfig = "b",
) -> Experiment:
    """A new head on a frozen encoder, for one of Table 9's tasks or of those that are co-trained.

    tubelet train polyvit.linear_probe dtd --data DIR --init runs/polyvit.nine_tasks

    The paper's figures (Table 3, Base), in % top-1 (Epic Kitchens: action), of ViT-Im21K, which was not fine-tuned, and
    of PolyViT co-trained on nine tasks with L_adapt = 0 and L/2:

                                  caltech101  sun397  dmlab   dtd  kitti  pcam
      ViT-Im21K                         88.9    75.7   41.0  72.1   46.9  80.2
      PolyViT                           91.0    78.2   45.8  71.8   52.3  81.9
      PolyViT, --adaptors               90.7    77.8   45.1  72.1   52.5  82.3

                                  epic_kitchens  ssv2  kinetics600  moments_in_time_audio  kinetics400_audio
      ViT-Im21K                            10.0  17.8         66.6                    4.9               10.8
      PolyViT                              16.8  27.9         77.8                    9.6               20.6
      PolyViT, --adaptors                  18.0  28.7         79.4                    9.9               21.1

    ViT-Im21K on the nine tasks of the co-training (Tables 2 and 8), in % top-1 and, for Mini-AudioSet, mAP:

              imagenet  cifar100  cifar10  pets  resisc45  kinetics400  moments_in_time  mini_audioset  vggsound
      Base        80.7      76.2     91.7  91.8      81.7         64.0             25.5           11.3      15.7
      Large       82.6      84.4     95.6  91.8      89.2         67.7             26.8           12.8      19.1

    tubelet train polyvit.linear_probe cifar100 --data DIR --init hf:google/vit-base-patch16-224-in21k

    These have the updates and rates of the co-training (Table 6), for the paper names no others.

    A model that never saw the task's modality is converted as App. D says. Image tasks choose their rate from 0.03, 0.1
    and 0.3 on 2 % of the training examples, as the paper does (--learning-rates 0.1,0.3; none with ''), and then train
    on all of them. Data: DIR/TASK, or DIR/epic_kitchens.csv and DIR/ssv2.csv as for ViViT's recipes; the audio tasks'
    files may be the videos. Hardware and time: unknown.
    """
    chosen = (table_6(data, size) | table_9(data))[task]
    experiment = _experiment(_baseline(chosen.inputs[0], size), {task: chosen}, init)
    start = tuple(replace(start, kernel="repeat") for start in experiment.init)
    notes = "" if init else "No init: the features of a random encoder."
    rates = PROBE_RATES if chosen.inputs == ("image",) else ()
    return replace(experiment, init=start, trainable=("heads.*",), learning_rates=rates, notes=notes)


def _of(modality: str, tasks: Mapping[str, Task]) -> dict[str, Task]:
    return {name: task for name, task in tasks.items() if task.inputs == (modality,)}


def _cotraining(tasks: dict[str, Task], init: str, size: Size, *, adaptors: bool = False) -> Experiment:
    """A PolyViT with the modalities that the tasks take."""
    backbone = SIZES[size]
    needed = {name: modality for name, modality in MODALITIES.items() if _of(name, tasks)}
    depth = backbone.depth // 2 if adaptors else 0
    return _experiment(PolyViTConfig(backbone=backbone, modalities=needed, adaptor_depth=depth), tasks, init)


def _baseline(modality: str, size: Size) -> ModelConfig:
    backbone = SIZES[size]
    match modality:
        case "image":
            return ViTConfig(backbone=backbone, patch=(16, 16), image=IMAGE)
        case "video":
            return ViViTConfig(backbone=backbone, tubelet=(4, 16, 16), video=VIDEO)
        case _:
            return ASTConfig(backbone=backbone, patch=(16, 16), audio=AUDIO)


def _experiment(model: ModelConfig, tasks: dict[str, Task], init: str) -> Experiment:
    """The weighted schedule and one momentum state; the image ViT starts tokenizers and adaptors, too (Sec. 4.3)."""
    start = (Init(source=init),) if init else ()
    notes = (
        "" if init else "From scratch: the paper starts from weights, and without them its figures are out of reach."
    )
    return Experiment(
        model=model, tasks=tasks, schedule=Weighted(), optimizer=SGD(momentum=0.9), init=start, notes=notes
    )
