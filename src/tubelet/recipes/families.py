"""Every family small, on Talking Digits: what each is for, learned in minutes on two cores.

``motion`` is the way in which a digit moves. The label of ``duet`` is a pair, the digit that is heard and the way in
which another one moves: one of 80, of which video alone can know one in ten, and sound alone one in eight.
"""

from __future__ import annotations

from typing import Annotated, Literal

from typing_extensions import Doc

from tubelet.data.augment import Augmentation
from tubelet.data.views import Views
from tubelet.models import ModelConfig
from tubelet.models.mbt import MBTConfig
from tubelet.models.mtv import CrossViewFusion, MTVConfig, Stream
from tubelet.models.polyvit import Modality
from tubelet.models.token_learner import TokenLearnerConfig
from tubelet.models.tubevit import Tube, TubeViTConfig
from tubelet.nn.blocks import TransformerConfig
from tubelet.specs import ImageSpec, InputSpec, SpectrogramSpec, VideoSpec
from tubelet.training.classification import Classification
from tubelet.training.experiment import AdamW, Experiment, Length, Source, Task, Training

Senses = Literal["both", "video", "audio"]
Data = Annotated[str, Doc("the folder of Talking Digits; `tubelet data digits` makes it")]
Sense = Annotated[Senses, Doc("both; or the model of one of them, to see what it cannot know")]

_DATA = "runs/talking_digits"
_VIDEO = VideoSpec(frames=16, stride=1, size=(32, 32), short_side=32)
_AUDIO = SpectrogramSpec(frames=200, bins=64, low=60.0)  # all of a video's two seconds
_SIZES = {
    width: TransformerConfig(width=width, depth=4, heads=width // 32, mlp=4 * width) for width in (32, 64, 96, 128)
}
_SENSES: dict[Senses, tuple[str, ...]] = {"both": ("video", "audio"), "video": ("video",), "audio": ("audio",)}

_STREAMS = {
    "coarse": Stream(backbone=_SIZES[32], tubelet=(8, 8, 8)),
    "middle": Stream(backbone=_SIZES[64], tubelet=(4, 8, 8)),
    "fine": Stream(backbone=_SIZES[96], tubelet=(2, 8, 8)),
    # Stretches of a sound would be attended to one by one, so it is one: a word may lie anywhere.
    "sound": Stream(backbone=_SIZES[64], tubelet=(1, 8, 16), input="audio"),
}

_PATCH = Tube(kernel=(1, 8, 8), stride=(16, 8, 8))
_TUBES = (
    Tube(kernel=(8, 8, 8), stride=(4, 8, 8)),
    Tube(kernel=(16, 4, 4), stride=(16, 8, 8), offset=(0, 2, 2)),
    Tube(kernel=(4, 12, 12), stride=(8, 10, 10)),
)


def mtv_motion(data: Data = _DATA) -> Experiment:
    """MTV on Talking Digits' motion: three streams that look at each other by cross-view attention.

    tubelet train families.mtv_motion

    Tubelets of 8, 4 and 2 frames, encoders of width 32, 64 and 96. Expect at least 98 % top-1, on writers that never
    appear in training, in a few minutes on two cores. The data: `tubelet data digits runs/talking_digits`.
    """
    return _motion(_mtv("coarse", "middle", "fine"), data)


def token_learner_motion(data: Data = _DATA) -> Experiment:
    """TokenLearner in a ViViT on Talking Digits' motion: half of the layers on 4 learned tokens.

    tubelet train families.token_learner_motion

    Each pair of frames has four tokens instead of sixteen. Expect at least 98 % top-1, on writers that never appear in
    training, in a few minutes on two cores. The data: `tubelet data digits runs/talking_digits`.
    """
    return _motion(
        TokenLearnerConfig(backbone=_SIZES[128], spec=_VIDEO, patch=(2, 8, 8), tokens=4, layer=2),
        data,
    )


def tubevit_motion(data: Data = _DATA) -> Experiment:
    """TubeViT on Talking Digits' motion: the patches of one frame and three shapes of sparse tubes.

    tubelet train families.tubevit_motion

    Expect at least 98 % top-1, on writers that never appear in training, in a few minutes on two cores. The data:
    `tubelet data digits runs/talking_digits`.
    """
    image = ImageSpec(size=_VIDEO.size, short_side=_VIDEO.short_side)
    model = TubeViTConfig(backbone=_SIZES[128], image=image, video=_VIDEO, patch=_PATCH, tubes=_TUBES)
    return _motion(model, data)


def mbt_duet(data: Data = _DATA, senses: Sense = "both") -> Experiment:
    """MBT on Talking Digits' duet: one digit is heard, another moves; the answer is what and where to.

    tubelet train families.mbt_duet

    Video and sound meet in bottleneck tokens from the third of four layers on. Expect at least 80 % top-1 of 80
    pairs, on voices and writers that never appear in training, in a few minutes on two cores; --senses video alone can
    know one pair in ten, --senses audio one in eight. The data: `tubelet data digits runs/talking_digits`.
    """
    modalities = {
        "video": Modality(spec=_VIDEO, patch=(4, 8, 8)),
        "audio": Modality(spec=_AUDIO, patch=(1, 8, 16)),
    }
    chosen = {name: modalities[name] for name in _SENSES[senses]}
    return _duet(MBTConfig(backbone=_SIZES[64], modalities=chosen, fusion_layer=2), data)


def mtv_duet(data: Data = _DATA, senses: Sense = "both") -> Experiment:
    """Multimodal MTV on Talking Digits' duet: two streams of video and one of sound.

    tubelet train families.mtv_duet

    The coarser stream of the pictures looks at the finer one, and that at the sound's, by cross-view attention. Expect
    at least 75 % top-1 of 80 pairs, on voices and writers that never appear in training, in a few minutes on two cores;
    --senses video alone can know one pair in ten, --senses audio one in eight. The data: `tubelet data digits
    runs/talking_digits`.
    """
    streams = {"both": ("coarse", "middle", "sound"), "video": ("coarse", "middle"), "audio": ("sound",)}[senses]
    return _duet(_mtv(*streams), data)


def _mtv(*names: str) -> MTVConfig:
    streams = {name: _STREAMS[name] for name in names}
    width = sum(stream.backbone.width for stream in streams.values())
    specs: dict[str, InputSpec] = {"video": _VIDEO, "audio": _AUDIO}
    return MTVConfig(
        streams=streams,
        media={name: spec for name, spec in specs.items() if any(s.input == name for s in streams.values())},
        global_encoder=TransformerConfig(width=width, depth=2, heads=width // 32, mlp=2 * width),
        fusion=CrossViewFusion(layers=(1, 3)) if len(streams) > 1 else None,
    )


def _motion(model: ModelConfig, data: str) -> Experiment:
    return _experiment("motion", model, data, inputs=("video",), steps=300, learning_rate=1e-3)


def _duet(model: ModelConfig, data: str) -> Experiment:
    return _experiment("duet", model, data, inputs=tuple(model.inputs), steps=800, learning_rate=2e-3)


def _experiment(
    task: str, model: ModelConfig, data: str, *, inputs: tuple[str, ...], steps: int, learning_rate: float
) -> Experiment:
    """As the demo trains its tasks: no augmentation, for a flip would turn left into right."""
    return Experiment(
        model=model,
        tasks={
            task: Task(
                source=Source(path=f"{data}/{task}.csv"),
                objective=Classification(head_init="lecun", smoothing=0.1),
                inputs=inputs,
                augment=Augmentation.none(),
                batch_size=32,
                length=Length(steps=steps),
                warmup=Length(steps=steps // 10),
                learning_rate=learning_rate,
                views=Views(clips=1 if inputs == ("audio",) else 2),
            )
        },
        optimizer=AdamW(),
        training=Training(checkpoint_every=500, cache_gib=0.5),
    )
