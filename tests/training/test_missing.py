"""Training on files that lack one of a model's inputs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from senses import MBT_CARD, small_mbt, write_senses
from tubelet.configs import ConfigError
from tubelet.data.augment import Augmentation
from tubelet.data.dataset import Example
from tubelet.data.loader import train_batches
from tubelet.data.manifest import read_manifest
from tubelet.media.errors import NoTrackError
from tubelet.training.classification import Classification
from tubelet.training.experiment import Experiment, Length, Source, Task, Training
from tubelet.training.objectives import Mixup
from tubelet.training.resolve import resolve
from tubelet.training.run import train, train_set


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    data = write_senses(tmp_path_factory.mktemp("lacking"))
    rows = "green_high.mp4,green,train\nmute_red.mp4,red,train\nlow.wav,blue,train\nhigh.wav,green,val\n"
    (data / "duet.csv").write_text("path,label,split\n" + rows)
    task = Task(
        source=Source(path=str(data / "duet.csv")),
        objective=Classification(head_init="lecun", mixup=Mixup(0.5)),
        inputs=MBT_CARD.inputs,
        augment=Augmentation(color=0, grayscale=0),
        batch_size=3,
        length=Length(steps=2),
        warmup=Length(),
        may_miss=True,
    )
    return Experiment(model=small_mbt().config, tasks={"duet": task}, training=Training(workers=0, log_every=1))


def test_all_examples_train_and_the_masks_say_what_is_missing(experiment, tmp_path):
    records = read_manifest(experiment.tasks["duet"].source.path).split("train")
    examples = {"duet": train_set(resolve(experiment).resolved.experiment, "duet", records)}
    (batch,) = train_batches(examples, ["duet"], {"duet": 3}, seed=0)
    masks = {key: (float(v), float(a)) for key, v, a in zip(batch.keys, *_masks(batch.inputs), strict=True)}
    assert masks == {"green_high.mp4": (1, 1), "mute_red.mp4": (1, 0), "low.wav": (0, 1)}
    assert not batch.replaced
    result = train(experiment, tmp_path / "run", progress=False)
    assert (tmp_path / "run" / "model").is_dir()
    assert not (tmp_path / "run" / "quarantine.jsonl").exists()
    assert result is not None


def _masks(inputs: dict[str, torch.Tensor]) -> tuple[list[float], list[float]]:
    return inputs["video_mask"].tolist(), inputs["audio_mask"].tolist()


def test_without_being_asked_nothing_is_masked(experiment):
    strict = replace(experiment, tasks={"duet": replace(experiment.tasks["duet"], may_miss=False)})
    records = read_manifest(strict.tasks["duet"].source.path).split("train")[:2]
    data = train_set(resolve(strict).resolved.experiment, "duet", records)
    whole = data.example(0, 0)
    assert isinstance(whole, Example)
    assert list(whole.inputs) == ["video", "audio"]
    assert isinstance(data.example(1, 0), NoTrackError)
    same = train_set(resolve(experiment).resolved.experiment, "duet", records).example(0, 0)
    assert isinstance(same, Example)
    assert all(torch.equal(x, same.inputs[name]) for name, x in whole.inputs.items())


def test_a_model_that_needs_all_its_inputs_refuses(experiment):
    task = experiment.tasks["duet"]
    for changed in (
        replace(experiment, model=small_mbt(fusion="concatenate").config),
        replace(experiment, tasks={"duet": replace(task, inputs=("video",))}),
    ):
        with pytest.raises(ConfigError, match=r"tasks\.duet\.may_miss: true, but the model cannot do without"):
            resolve(changed)
