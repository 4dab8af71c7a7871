"""VATT's experiments (Akbari et al. 2021): learning from video, sound and captions without labels, then fine-tuning.

Where the paper and the released code differ, the recipe follows the code, which made the checkpoints, and its docstring
names the paper's value. The paper pre-trained on 256 TPU-v3s for less than three days, and says nothing about other
hardware. Figures are the paper's: none has been repeated with this library, except for ``talking`` and ``folder``,
which are ours.

A manifest for pre-training has the columns path, split (train, val) and, where there are captions, text or several of
text.1, text.2 and so on; subtitles beside a file (.srt, .vtt) or inside it are found without columns.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from typing_extensions import Doc

from tubelet.data.augment import Augmentation
from tubelet.data.captions import subtitles_of
from tubelet.data.manifest import read_manifest
from tubelet.data.parts import read_parts
from tubelet.data.records import Records
from tubelet.data.views import Views
from tubelet.media.errors import MediaError
from tubelet.media.words import build_vocabulary, load_vocabulary
from tubelet.models import ModelConfig, model_config
from tubelet.models.vatt.config import Sense, Tokens, VattConfig, Words
from tubelet.nn.blocks import TransformerConfig
from tubelet.recipes.folder.pace import measure
from tubelet.specs import ImageSpec, InputSpec, SpectrogramSpec, TextSpec, VideoSpec, WaveformSpec
from tubelet.training.classification import Classification
from tubelet.training.contrastive import Contrastive
from tubelet.training.experiment import SGD, Adam, AdamW, Experiment, Init, Length, Source, Task, Training
from tubelet.training.objectives import Mixup
from tubelet.training.ranks import init_distributed

Size = Literal["bbs", "mbs", "lbs", "ma-medium"]
Backbone = Literal["base", "medium", "large", "ma-medium"]
Sound = Literal["128", "256", "512", "1024", "spectrogram"]
Patch = Annotated[tuple[int, int, int], Doc("frames, height and width of a patch of video")]
Frames = Annotated[int, Doc("frames of a clip")]
Pixels = Annotated[int, Doc("side of the square crop")]
Unlabeled = Annotated[str, Doc("a manifest of videos with sound, with captions where there are any")]
Data = Annotated[str, Doc("class folders with train/ and val/ above them, or a manifest (CSV, JSONL, Parquet)")]
Pretrained = Annotated[str, Doc("a pre-trained VATT to start from: a run or a model folder; empty: from scratch")]

_COMBINATION = {"base": "bbs", "medium": "mbs", "large": "lbs", "ma-medium": "ma-medium"}
_JITTER = Augmentation(scale_jitter=0.8, min_scale=0.8, max_scale=1.2, flip=0.5, color=0.8, grayscale=0.0)
_INCEPTION = Augmentation(
    scale_jitter=0.0, crop=1.0, area=(0.08, 1.0), aspect=(0.5, 2.0), flip=0.5, color=0.8, grayscale=0.0
)
_SHARE = 0.85  # of the time that is for updates
_LIGHT = Augmentation(
    scale_jitter=0.0, crop=1.0, area=(0.6, 1.0), aspect=(0.75, 1.33), flip=0.5, color=0.5, grayscale=0.0, gain=3.0
)
_SPECTROGRAM = SpectrogramSpec(  # Table 10's, by the released formula; patches of 16 frames and 5 bins
    frames=149,
    bins=80,
    rate=48_000,
    window=2048 / 48_000,
    hop=1024 / 48_000,
    taper="hann",
    fft=2048,
    power=1.0,
    low=80.0,
    high=7600.0,
    offset=1e-4,
    levels="own",
    channels=1,
)
_LOOKED_AT = 200  # files whose subtitles are looked for


def pretrain(
    data: Unlabeled = "data/howto100m.parquet",
    also: Annotated[str, Doc("a second manifest with an equal share of every minibatch; empty: none")] = (
        "data/audioset.parquet"
    ),
    vocabulary: Annotated[str, Doc("a text file of words, one a line; empty: the most frequent of the captions")] = "",
    word_vectors: Annotated[str, Doc("a text file of word vectors, as of word2vec and GloVe; empty: random")] = "",
    size: Annotated[Size, Doc("video, sound and text transformers; ma-medium: one for all")] = "mbs",
    keep: Annotated[float, Doc("the share of tokens that DropToken keeps")] = 0.5,
    patch: Patch = (4, 16, 16),
    frames: Frames = 32,
    pixels: Pixels = 224,
    sound: Annotated[Sound, Doc("samples in a patch of raw sound, or spectrograms")] = "128",
) -> Experiment:
    """Pre-training on HowTo100M and AudioSet.

    tubelet train vatt.pretrain --data HOWTO.parquet --also AUDIOSET.parquet --vocabulary howto100m_en.txt

    500,000 updates of 2,048 clips, half of each data set. Of the conflicts between paper and code: 5,000 updates of
    warm-up (paper: 10,000), half a period of the cosine (paper: a quarter), a crop with scale jitter (paper: that of
    Inception), noise on the waveform (paper: none), the mean of the two losses (paper: their sum). Word vectors are
    not learned: the paper's are word2vec's (--word-vectors), and without them they are random. The vocabulary has
    2^16 words at most.

    What the paper varies, on minibatches of 512 (--tasks.pretrain.batch-size 512), with its figures in % of linear
    evaluation on UCF101, HMDB51 and ESC-50:

      Table 5     --keep 0.25                  84.0  62.5  78.9
      DropToken   --keep 0.5                   85.5  64.8  84.1
                  --keep 0.75                  87.2  65.6  84.6
                  --keep 1                     87.6  66.4  84.9
      Table 9     --patch 4 16 16              87.8  67.7  87.0
      video       --patch 5 16 16 --pixels 200 87.2  67.1  86.3
                  --patch 5 16 16              87.7  67.6  87.0
                  --patch 5 16 16 --frames 64  86.6  63.1  86.3
                  --patch 8 16 16              86.5  65.6  84.0
                  --patch 8 32 32              82.7  60.7  87.0
      Table 10    --sound 128                  88.1  68.1  87.8
      sound       --sound 256                  87.7  66.1  83.8
                  --sound 512                  87.2  67.3  82.5
                  --sound 1024                 86.4  66.4  82.5
                  --sound spectrogram          88.3  67.5  88.0
    """
    config = _varied(model_config(f"vatt-{size}"), patch, frames, pixels, sound)
    words = load_vocabulary(vocabulary) if vocabulary else _vocabulary(data, 65_536)
    text = config.inputs["text"]
    assert isinstance(text, TextSpec)
    config = replace(config.with_inputs({**config.inputs, "text": replace(text, vocabulary=words)}), kept=keep)
    task = Task(
        source=Source(path=data, also=(also,) if also else ()),
        objective=Contrastive(),
        inputs=("video", "audio", "text"),
        augment=replace(_JITTER, peak_noise=0.01),
        batch_size=2048,
        length=Length(steps=500_000),
        warmup=Length(steps=5_000),
        learning_rate=1e-4,
        views=Views(clips=4),
        may_miss=True,
    )
    return Experiment(
        model=config,
        tasks={"pretrain": task},
        optimizer=Adam(eps=1e-7, keras=True),
        training=Training(clip_norm=0.0, decay_to=0.5, workers=8, activation_checkpointing=True),
        init=(Init(source=word_vectors),) if word_vectors else (),
    )


def kinetics(
    data: Data = "data/kinetics400",
    init: Pretrained = "",
    size: Annotated[Backbone, Doc("the video transformer")] = "medium",
    steps: Annotated[int, Doc("updates; released: 100,000, 90,000 for Medium on Kinetics 600, 150,000 for Moments")] = (
        100_000
    ),
    frames: Frames = 32,
    pixels: Pixels = 320,
    keep: Annotated[float, Doc("the share of tokens that DropToken keeps")] = 1.0,
) -> Experiment:
    """Kinetics 400, 600 and 700, and Moments in Time: fine-tuning the tower of video.

    tubelet train vatt.kinetics --data K400 --init runs/vatt.pretrain --size medium

    The paper's figures (Table 1, 4x3 views), top-1 on Kinetics 400, 600 and Moments in Time: Base 79.6, 80.5 and 38.7;
    Medium 81.1, 82.4 and 39.5; Large 82.1, 83.6 and 41.1; modality-agnostic Medium 79.9, 80.8 and 37.8; Large on
    Kinetics 700 72.7. From scratch 26.4 on Kinetics 400. Table 6, Medium on Kinetics 400: --pixels 224 79.9, with
    --frames 64 80.8; at 320 pixels --keep 0.25 79.3, 0.5 80.2, 0.75 80.7, 1 81.1. The gradient of all
    parameters is clipped together; the released code clips the backbone's alone.
    """
    spec = VideoSpec(frames=frames, stride=2, fps=25.0, size=(pixels, pixels), short_side=pixels)
    task = Task(
        source=Source(path=data),
        objective=Classification(smoothing=0.1, head_init="glorot_normal", head_dropout=0.5),
        augment=_INCEPTION,
        batch_size=64,
        length=Length(steps=steps),
        warmup=Length(steps=2_500),
        learning_rate=0.005,
        views=Views(clips=4, crops=3),
    )
    return _fine_tuned("kinetics", replace(_tower(size, {"video": spec}), kept=keep), task, init)


def audioset(
    data: Annotated[str, Doc("a manifest with the columns path, labels and split")] = "data/audioset.csv",
    init: Pretrained = "",
    size: Annotated[Literal["base", "ma-medium"], Doc("the transformer of sound")] = "base",
) -> Experiment:
    """AudioSet: fine-tuning the tower of sound on waveforms of 6.4 s at 24 kHz.

    tubelet train vatt.audioset --data AUDIOSET.csv --init runs/vatt.pretrain

    The paper's figures (Table 2): Base 39.4 % mAP, AUC 97.1 %, d' 2.895; modality-agnostic Medium 39.3, 97.0 and 2.884.
    Classes are balanced within a minibatch, and mixup has a weight for each example. The released code takes every
    second sample of 48 kHz; here the sound is resampled with a filter.
    """
    spec = WaveformSpec(samples=153_600, rate=24_000)
    objective = Classification(
        labels="several",
        loss="sigmoid",
        balanced=True,
        mixup=Mixup(5.0, per_example=True),
        head_init="glorot_uniform",
        head_bias=-6.27,  # -log(C - 1) of 527 classes, so that each begins as rare as it is among them
    )
    task = Task(
        source=Source(path=data),
        objective=objective,
        inputs=("audio",),
        augment=Augmentation.none(),
        batch_size=1024,
        length=Length(steps=50_000),
        warmup=Length(steps=5_000),
        learning_rate=0.2,
        views=Views(clips=4),
    )
    return _fine_tuned("audioset", _tower(size, {"audio": spec}), task, init)


def imagenet(data: Data = "data/imagenet", init: Pretrained = "") -> Experiment:
    """ImageNet: fine-tuning the tower of video on pictures, each repeated to fill a patch in time.

    tubelet train vatt.pretrain --data HOWTO.parquet --vocabulary howto100m_en.txt --size bbs --out runs/vatt_bbs
    tubelet train vatt.imagenet --data IMAGENET --init runs/vatt_bbs

    The paper's figures (Table 3): Base 78.7 % top-1, 93.9 % top-5; from scratch 64.7 and 83.9. The paper does not state
    a warm-up: there is none. The classifier is that of videos.
    """
    task = Task(
        source=Source(path=data),
        objective=Classification(smoothing=0.1, head_init="glorot_normal", head_dropout=0.5),
        inputs=("image",),
        augment=_INCEPTION,
        batch_size=512,
        length=Length(epochs=50),
        warmup=Length(),
        learning_rate=0.08,
        views=Views(clips=1),
    )
    return _fine_tuned("imagenet", _tower("base", {"image": ImageSpec(size=(384, 384), short_side=384)}), task, init)


def talking(
    data: Annotated[str, Doc("the folder of Talking Digits; `tubelet data digits` makes it")] = "runs/talking_digits",
    keep: Annotated[float, Doc("the share of tokens that DropToken keeps")] = 0.5,
) -> Experiment:
    """Talking Digits without labels: a small VATT on moving digits, their voices and their captions.

    tubelet train vatt.talking

    `tubelet demo vatt` makes the data and shows what was learned. Sound is a spectrogram here, as in the paper's
    ablation (its Table 10): raw waveforms take more data and time than a demo has.
    """
    captions = (record.text for record in read_manifest(Path(data, "talking.csv")).split("train"))
    specs: dict[str, InputSpec] = {
        "video": VideoSpec(frames=16, stride=1, fps=12.5, size=(32, 32), short_side=32),
        "audio": SpectrogramSpec(frames=200, bins=64, low=60.0, loudness=-25.0),
        "text": _small_text(build_vocabulary(captions, 256), captions=1, seconds=0.0),
    }
    task = Task(
        source=Source(path=f"{data}/talking.csv"),
        objective=Contrastive(),
        inputs=tuple(specs),
        augment=Augmentation.none(),
        batch_size=64,
        length=Length(steps=300),
        warmup=Length(steps=30),
        learning_rate=1e-3,
        views=Views(clips=1),
    )
    return Experiment(
        model=_small(specs, {"video": (4, 8, 8), "audio": (1, 4, 64)}, keep),
        tasks={"talking": task},
        optimizer=AdamW(),
        training=Training(workers=1, cache_gib=0.5, checkpoint_every=100),
    )


def folder(
    data: Annotated[str, Doc("a folder of videos with sound, at any depth, or a manifest; no labels are needed")],
    minutes: Annotated[float, Doc("how long it may train on this machine")] = 5.0,
    part: Annotated[float, Doc("seconds: files are cut into parts of this length; a clip is half of one")] = 2.4,
    size: Annotated[int, Doc("the side of the square picture that the model sees, pixels")] = 64,
    steps: Annotated[int, Doc("number of updates; measured and planned if 0")] = 0,
    keep: Annotated[float, Doc("the share of tokens that DropToken keeps; they are few here")] = 1.0,
    captions: Annotated[bool, Doc("learn from captions, too, where there are any")] = True,
) -> Experiment:
    """Any folder of videos with sound, without labels: what is seen, heard and said belongs together.

    tubelet train vatt.folder VIDEOS --out runs/mine

    Files are cut into parts, in which clips begin at random in training. The end of each file (or whole files, where
    there are 20 or more) is the test: how often does the sound of a clip find its picture among all others? `tubelet
    probe` then tells what the features are worth, and `tubelet.load(RUN).similarity(...)` compares files and sentences.
    The model is small, for a small machine.
    """
    manifest = read_parts(data, part, "val")
    training, said, span = manifest.split("train"), list(manifest.notes), part / 2
    specs: dict[str, InputSpec] = {
        "video": VideoSpec(frames=8, stride=1, fps=8 / span, size=(size, size), short_side=size),
        "audio": SpectrogramSpec(frames=round(100 * span), bins=64, low=60.0, loudness=-25.0),
    }
    texts = _captions(training) if captions else []
    if texts:
        specs["text"] = _small_text(build_vocabulary(texts, 8_192), captions=2, seconds=span)
        said.append(f"Captions: {len(texts):,} texts found, so that sentences find videos, too.")
    else:
        said.append("No captions found (text columns, .srt or .vtt files, subtitle tracks): video and sound alone.")
    batch = max(2, min(64, len(training) // 4))
    patches = {"video": (2, size // 4, size // 4), "audio": (1, 4, 64)}

    def experiment(updates: int) -> Experiment:
        return Experiment(
            model=_small(specs, patches, keep),
            tasks={
                "clips": Task(
                    source=Source(path=data, parts=part),
                    objective=Contrastive(empty_captions="ignored"),
                    inputs=tuple(specs),
                    augment=_LIGHT,
                    batch_size=batch,
                    length=Length(steps=updates),
                    warmup=Length(steps=max(1, updates // 10)),
                    learning_rate=5e-4,
                    views=Views(clips=1),
                    may_miss=True,
                )
            },
            optimizer=AdamW(decay="weights"),
            training=Training(workers=1, cache_gib=1.0, ema=0.99, checkpoint_every=100),
            notes="\n".join(said),
        )

    if steps:
        return experiment(steps)
    with init_distributed() as ranks:
        (pace,) = measure(experiment(1_000), ranks).values()
    updates = max(20, round(60 * minutes * _SHARE / pace.update))
    return replace(experiment(updates), chosen={"steps": updates, "seconds": round(60 * minutes, 1)})


def _small(specs: dict[str, InputSpec], patches: dict[str, tuple[int, int, int]], keep: float) -> VattConfig:
    def backbone(depth: int) -> TransformerConfig:
        return TransformerConfig(width=128, depth=depth, heads=4, mlp=512, gelu="exact")

    modalities: dict[str, Tokens] = {
        name: Words(spec=spec, backbone=backbone(2), vectors=64, learned=True)
        if isinstance(spec, TextSpec)
        else Sense(spec=spec, backbone=backbone(4), patch=patches[name])
        for name, spec in specs.items()
    }
    return VattConfig(modalities=modalities, kept=keep, position_dropout=0.0)


def _small_text(vocabulary: str, captions: int, seconds: float) -> TextSpec:
    return TextSpec(captions=captions, ids=len(vocabulary.split(" ")), vocabulary=vocabulary, seconds=seconds)


def _vocabulary(data: str, size: int) -> str:
    return build_vocabulary(_captions(read_manifest(data).split("train")), size)


def _captions(records: Records) -> list[str]:
    """The texts of the records: of their columns, or of the subtitles of the first files."""
    found: list[str] = []
    seen: set[str] = set()
    for record in records:
        if record.captions:
            found += record.captions
        elif record.path not in seen and len(seen) < _LOOKED_AT:
            seen.add(record.path)
            with suppress(MediaError):
                found += [caption.text for caption in subtitles_of(record.path)]
    return found


def _varied(config: ModelConfig, patch: tuple[int, int, int], frames: int, pixels: int, sound: Sound) -> VattConfig:
    """The model on patches and inputs of other sizes."""
    assert isinstance(config, VattConfig)
    video, audio = config.modalities["video"], config.modalities["audio"]
    assert isinstance(video, Sense)
    assert isinstance(audio, Sense)
    assert isinstance(video.spec, VideoSpec)
    seen = replace(video.spec, frames=frames, size=(pixels, pixels), short_side=pixels)
    heard = _SPECTROGRAM if sound == "spectrogram" else audio.spec
    cut = (1, 16, 5) if sound == "spectrogram" else (1, 1, int(sound))
    changed = {"video": replace(video, spec=seen, patch=patch), "audio": replace(audio, spec=heard, patch=cut)}
    return replace(config, modalities={**config.modalities, **changed})


def _tower(size: str, specs: dict[str, InputSpec]) -> VattConfig:
    """The tower of one modality alone, which keeps all tokens."""
    config = model_config(f"vatt-{_COMBINATION[size]}")
    assert isinstance(config, VattConfig)
    ((name, spec),) = specs.items()
    if isinstance(spec, ImageSpec):
        return config.for_images(spec)
    return config.with_only((name,)).with_inputs(specs)


def _fine_tuned(name: str, model: VattConfig, task: Task, init: str) -> Experiment:
    notes = "" if init else "From scratch: the paper starts from pre-training, and reaches far less without it."
    return Experiment(
        model=model,
        tasks={name: task},
        optimizer=SGD(momentum=0.9),
        training=Training(clip_norm=0.75),
        init=(Init(source=init),) if init else (),
        notes=notes,
    )
