"""Whole contrastive runs: exact resume with the batch norms' statistics, and two ranks against one."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch
from torch import Tensor

from training_runs import assert_close, assert_same, losses, run, weights
from tubelet.data.augment import Augmentation
from tubelet.data.manifest import Record, write_manifest
from tubelet.data.views import Views
from tubelet.media.write import write_video
from tubelet.models.vatt.config import Sense, VattConfig, Words
from tubelet.nn.blocks import TransformerConfig
from tubelet.specs import TextSpec, VideoSpec, WaveformSpec
from tubelet.training.contrastive import Contrastive
from tubelet.training.experiment import Adam, Experiment, Length, Source, Task, Training
from tubelet.training.run import train

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen videos with sound; the first of every four has no caption, so that ranks have unequal numbers."""
    folder = tmp_path_factory.mktemp("clips")
    draw = torch.Generator().manual_seed(0)
    records: list[Record] = []
    for i in range(16):
        frames = torch.randint(0, 256, (8, 3, 4, 4), dtype=torch.uint8, generator=draw)
        sound = torch.rand(8000, generator=draw) - 0.5
        write_video(folder / f"{i}.mp4", frames.repeat_interleave(4, 2).repeat_interleave(4, 3), 8.0, sound, 8000)
        text = "" if i % 4 == 0 else f"{'abcdefgh'[i % 8]} moves {'abc'[i % 3]}"
        records.append(Record(path=str(folder / f"{i}.mp4"), split="train", text=text))
    write_manifest(folder / "all.csv", records)
    return folder / "all.csv"


def experiment(manifest: Path, *, random_layers: bool) -> Experiment:
    drop = 0.1 if random_layers else 0.0
    small = TransformerConfig(width=16, depth=1, heads=2, mlp=32, dropout=drop, gelu="exact")
    video = VideoSpec(frames=4, stride=1, size=(16, 16), short_side=16)
    text = TextSpec(captions=1, words=4, ids=11, vocabulary="<pad> <unk> moves a b c d e f g h", seconds=0.0)
    model = VattConfig(
        modalities={
            "video": Sense(spec=video, backbone=small, patch=(2, 8, 8)),
            "audio": Sense(spec=WaveformSpec(samples=3200, rate=8000), backbone=small, patch=(1, 1, 128)),
            "text": Words(spec=text, backbone=small, vectors=8, learned=True),
        },
        kept=0.5 if random_layers else 1.0,
        position_dropout=drop,
    )
    task = Task(
        source=Source(path=str(manifest)),
        objective=Contrastive(audio_width=16, text_width=8),
        inputs=("video", "audio", "text"),
        augment=Augmentation.none(),
        batch_size=8,
        length=Length(steps=8 if random_layers else 4),  # batch norms of noise make every rounding larger
        warmup=Length(steps=2),
        learning_rate=1e-4,
        views=Views(clips=1),
        may_miss=True,
    )
    training = Training(workers=0, log_every=1, checkpoint_every=3, keep_checkpoints=99, ema=0.5)
    return Experiment(model=model, tasks={"clips": task}, optimizer=Adam(eps=1e-7, keras=True), training=training)


def statistics(out: Path) -> dict[str, Tensor]:
    return {name: x for name, x in weights(out).items() if name.endswith((".mean", ".variance"))}


def test_kill_and_resume_is_bit_for_bit_with_the_batch_norms_statistics(manifest: Path, tmp_path: Path) -> None:
    made = experiment(manifest, random_layers=True)
    whole, killed = ({"experiment": made, "out": tmp_path / name} for name in ("whole", "killed"))
    status, said = run([whole, {**killed, "kill_at": 5}])
    assert status == -signal.SIGKILL, said
    assert len(losses(tmp_path / "killed")) == 5
    train(made, tmp_path / "killed", progress=False)
    assert_same(tmp_path / "killed", tmp_path / "whole")
    assert len(statistics(tmp_path / "whole")) == 6
    assert all(not torch.equal(x, torch.zeros_like(x)) for x in statistics(tmp_path / "whole").values())


def test_two_ranks_learn_as_one_though_their_captions_differ_in_number(manifest: Path, tmp_path: Path) -> None:
    made = experiment(manifest, random_layers=False)
    train(made, tmp_path / "one", progress=False)
    status, said = run([{"experiment": made, "out": tmp_path / "two"}], ranks=2)
    assert status == 0, said
    assert_close(tmp_path / "two", tmp_path / "one")
