"""What an experiment will do, in sentences.

They are made from the experiment itself, so that they are true whichever flags changed it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from tubelet.costs.cost import costs
from tubelet.data.augment import Augmentation
from tubelet.data.readers import reader_of
from tubelet.training.experiment import Experiment, Task
from tubelet.training.resolve import Prepared

_TIMELESS = ("notes", "seed", "training.log_every", "training.keep_checkpoints")


def describe(prepared: Prepared, changed: Collection[str]) -> list[str]:
    """The inputs, the model, the training and its time. ``changed``: fields that flags set after the planning."""
    experiment = prepared.resolved.experiment
    counted = costs(experiment.model, 10)
    tokens = " or ".join(f"{cost.tokens:,}" for cost in counted)
    lines = [
        *(f"Input {name}: {reader_of(spec).summary()} (--model)." for name, spec in experiment.model.inputs.items()),
        f"Model: {type(experiment.model).__name__.removesuffix('Config')}, {tokens} tokens, "
        f"{counted[0].parameters / 1e6:.2f} M parameters ({'--size, ' if experiment.chosen else ''}--model).",
    ]
    for name, task in experiment.tasks.items():
        lines.append(_training(prepared, name, task))
        if task.trains:
            lines.append(_changes(name, task))
    if experiment.training.probe_first:
        lines.append("First the heads are fitted to frozen features; validation keeps that, or what follows.")
    if experiment.trainable == ("heads.*",):
        lines.append("The heads alone train: no pass of fine-tuning fits (--minutes, --epochs).")
    return [*lines, *_time(experiment, changed)]


def _training(prepared: Prepared, name: str, task: Task) -> str:
    experiment, data = prepared.resolved.experiment, prepared.resolved.data[name]
    if not task.trains:
        return f"No training{_of(experiment, name)}: scored at the end, by the head that it starts with."
    length = "--epochs, --minutes" if experiment.chosen else f"--tasks.{name}.length"
    passes = data.updates * task.batch_size / data.examples
    said = (
        f"Training{_of(experiment, name)}: {passes:.3g} passes over {data.examples:,} files, {data.updates:,} updates "
        f"of {task.batch_size} ({length}) at a learning rate of {task.learning_rate:g}"
    )
    every = experiment.training.validate_every
    if every and name in prepared.validation:
        said += f"; {len(prepared.validation[name]):,} files validate every {every:,} updates and choose the weights"
    return f"{said}."


def _of(experiment: Experiment, name: str) -> str:
    return f" {name}" if len(experiment.tasks) > 1 else ""


def _changes(name: str, task: Task) -> str:
    kinds = [sound for sound in (False, True) if any(("audio" in given) == sound for given in task.inputs)]
    done = ", ".join(what for sound in kinds for what in _augmentations(task.augment, sound=sound))
    mixed = "; pairs are mixed" if task.objective.mixes else ""
    mirrored = ""
    if any(given in ("image", "video") for given in task.inputs):
        flip = f"--tasks.{name}.augment.flip"
        mirrored = f" Nothing is mirrored: {flip} 0.5 where left and right do not matter."
        if task.augment.flip:
            mirrored = f" Left and right are mirrored: {flip} 0 where that changes what a file shows."
    return f"At random in training: {done or 'nothing'}{mixed} (--tasks.{name}.augment).{mirrored}"


def _augmentations(augment: Augmentation, *, sound: bool) -> Iterator[str]:
    if sound:
        said = {
            "loudness": augment.gain,
            "noise": augment.noise or augment.peak_noise,
            "speed": augment.tempo,
            "start and end": augment.time_shift,
            "pitch": augment.frequency_warp,
            "masks over time": augment.time_masks,
            "masks over frequency": augment.frequency_masks,
        }
    else:
        said = {
            "crop": augment.crop or augment.area[1],
            "scale": augment.scale_jitter or augment.zoom,
            "place": augment.shift,
            "rotation": augment.rotate,
            "slant": augment.shear,
            "mirroring": augment.flip,
            "color": augment.color,
            "RandAugment": augment.randaugment_layers,
            "a part erased": augment.erase,
            "speed": augment.speed,
        }
    return (what for what, amount in said.items() if amount)


def _time(experiment: Experiment, changed: Collection[str]) -> list[str]:
    seconds = experiment.chosen.get("seconds")
    if seconds is None:
        return []
    if any(path not in _TIMELESS and not path.endswith(".augment.flip") for path in changed):
        return ["Time: not known, as flags changed what was planned; the line of progress will tell."]
    least = experiment.chosen.get("least_seconds", seconds)
    early = f", or {in_words(float(least))} if validation stops moving" if least != seconds else ""
    return [f"Time: about {in_words(float(seconds))} from start to report{early} (--minutes)."]


def in_words(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 90 else f"{seconds / 60:.1f} minutes"
