"""Any folder of class folders, or several: a model chosen for the data, which this machine trains in minutes."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil
from statistics import median
from typing import Annotated, Literal

import torch
from typing_extensions import Doc

from tubelet.configs import ConfigError, nearest, registered
from tubelet.data.augment import Augmentation
from tubelet.data.kinds import Kind
from tubelet.data.manifest import LABEL
from tubelet.data.readers import reader_of
from tubelet.data.views import Views
from tubelet.hardware import computes_bfloat16
from tubelet.models import ModelConfig
from tubelet.recipes.folder.data import DatasetSummary, inspect, task_names
from tubelet.recipes.folder.model import LONGEST, Start, choose_model, sizes_of
from tubelet.recipes.folder.named import named_model, task_inputs
from tubelet.recipes.folder.pace import VALIDATIONS, Plan, Wanted, plan_lengths
from tubelet.training.classification import Classification
from tubelet.training.experiment import AdamW, Experiment, Length, Source, Task, Training
from tubelet.training.objectives import Mixup, Objective
from tubelet.training.regression import Regression
from tubelet.weights.transfer import Init

_MOST_CLIPS = 4  # test views of a long video or sound
_PATIENCE = 15  # of 20 validations, so that a training takes at least four fifths of the announced time
_WARMUP = 0.05  # of the updates
_RATE, _STARTED_RATE = 1e-3, 1e-4  # of learning: at a width of 128, less for a wider one; from weights to start from
_STEADY = 200  # updates from which on weights to start from learn at the whole rate; in fewer, proportionally slower
_LAYER_DECAY, _STOCHASTIC_DEPTH = 0.75, 0.1  # of a training that starts from weights
_BRIEF = 10  # passes from weights below which nothing is mixed, erased or dropped
_PASSES, _MOST_PASSES = 40, 800  # over the training files: at least where time allows, and at most
_STARTED_PASSES = 3  # of fine-tuning that larger pictures leave time for
_FEWEST_PASSES = 0.02  # passes of the heads alone, if not even one pass fits: the probe is what counts then
_PROBED = 20_000  # training examples up to which the heads start from a probe
_FEW = 2_000  # training files below which pretrained weights are suggested
_HUB = "hf:google/vit-base-patch16-224-in21k"
_AVERAGED = 50  # the moving average covers one such part of the updates

# The models from scratch, and how many training files each can learn from.
_SIZES = {"128x4": 0, "192x6": 2_000, "256x8": 20_000, "384x12": 100_000}

# What a file may look or sound like and still be of its class: measured in docs/log.md, "Your own folder".
_AUGMENT: dict[Kind, Augmentation] = {
    "image": replace(
        Augmentation.none(), rotate=10.0, shift=0.1, zoom=0.15, shear=8.0, color=0.5, color_strength=0.3, erase=0.2
    ),
    "video": replace(Augmentation.none(), rotate=5.0, shift=0.08, zoom=0.1, color=0.5, color_strength=0.3, speed=0.1),
    "audio": replace(
        Augmentation.none(),
        gain=3.0,
        noise=0.3,
        tempo=0.08,
        time_shift=0.1,
        frequency_warp=0.1,
        frequency_masks=1,
        frequency_mask_bins=10,
        time_masks=2,
        time_mask_share=0.12,
    ),
}
_MIXUP = 0.2
_ENOUGH: dict[Kind, int] = {"image": 300_000, "video": 60_000, "audio": 80_000}  # examples, over all passes


def folder(
    data: Annotated[tuple[str, ...] | str, Doc("folders of class folders, or manifests (CSV, JSONL, Parquet)")],
    init: Annotated[str, Doc("fine-tune these weights: a run, a model folder, an image ViT such as hf:org/name")] = "",
    minutes: Annotated[float, Doc("time from start to report; the training is planned to fit it")] = 10.0,
    epochs: Annotated[float, Doc("passes over the data, whatever time they take; planned if 0")] = 0.0,
    model: Annotated[
        str, Doc("a model by name, such as mtv-s/2+ti/4 or tubevit-s/16; chosen by the data if empty")
    ] = "",
    size: Annotated[
        str,
        Doc("WIDTHxDEPTH of a model from scratch, such as 192x6; short side in pixels with --init; planned if empty"),
    ] = "",
    mirror: Annotated[
        Literal["measure", "yes", "no"], Doc("whether training mirrors pictures left for right, as it may for photos")
    ] = "measure",
    objective: Annotated[
        str, Doc("classification; or regression, where labels are numbers such as scores or counts")
    ] = "classification",
    baseline: Annotated[
        bool, Doc("leave out the simple classifiers that are fitted on the same files to compare with")
    ] = True,
) -> Experiment:
    """Train on a folder of class folders (DIR/CLASS/clip.mp4), or a manifest; on several together.

    tubelet train folder DIR --out runs/mine

    tubelet train folder PICTURES CLIPS SOUNDS --out runs/together

    tubelet train folder VIDEOS_WITH_SOUND --model mbt-s/16x2 --out runs/both

    Subfolders train and test (and val) above the class folders are respected; without them a fifth of the files is kept
    for testing: whole groups where a manifest's column `group` or the names of the files show speakers, scenes or
    sources, else by a hash of their content. A tenth of the training files validates: it chooses the weights and ends a
    training that no longer moves. The test files are looked at once, at the end.

    --objective regression learns numbers instead of classes: the labels of a manifest (its column `label`, or several
    columns `label.NAME`), or class folders named by numbers.

    With --init, linear heads are first fitted to the frozen features (up to 20,000 files), then everything is
    fine-tuned, the lower layers at lower rates; validation keeps what is better. Where --minutes has no room for a pass
    of fine-tuning, or --epochs is below 1, heads alone train.

    The recipe looks at the data, measures how fast this machine trains, plans what fits into --minutes, says all of it,
    and compares the result with simple classifiers on the same files. Pictures train an image ViT, videos a ViViT,
    sounds an AST; several folders co-train one PolyViT with a head for each, whose task has the folder's name. --model
    names another family. --print-config shows every choice, and each is a flag. Pictures are mirrored where that was
    measured to keep their classes, as it would not for letters; clips are not: --tasks.folder.augment.flip 0.5.
    Expected metric and hardware: unknown, for they depend on the data.
    """
    began = time.monotonic()
    paths = (data,) if isinstance(data, str) else data
    if not paths:
        raise ConfigError("no data: name a folder of class folders first, as in `tubelet train folder DIR`")
    if minutes <= 0:
        raise ConfigError(f"minutes: {minutes:g} must be above 0")
    if objective not in (known := registered(Objective)):
        raise ConfigError(f"objective: no {objective!r}{nearest(objective, known)}")
    asked = {"by_class": known[objective].by_class, "numbers": objective == "regression"}
    found = {name: inspect(path, **asked) for name, path in zip(task_names(paths), paths, strict=True)}
    summaries = {name: seen for name, (seen, _) in found.items()}
    said = [
        sentence if len(summaries) == 1 else f"{name}: {sentence}"
        for name, (seen, warnings) in found.items()
        for sentence in (str(seen), *warnings)
    ]
    pictures = [seen for seen in summaries.values() if seen.kind == "image"]
    if pictures and mirror == "measure":
        mirror = "yes" if all(map(_mirrors, pictures)) else "no"
    draft = _Draft(
        summaries=summaries,
        objective=objective,
        start=Start.read(init) if init else None,
        model=model,
        mirrors=mirror == "yes",
        baseline=baseline,
    )
    plan = plan_lengths(
        draft.experiment,
        {name: len(seen.train) for name, seen in summaries.items()},
        {name: (len(seen.validating), len(seen.testing)) for name, seen in summaries.items()},
        wanted=draft.wanted(size),
        epochs=epochs,
        seconds=60 * minutes,
        began=began,
        fits_baseline=baseline,
    )
    made = draft.experiment(plan)
    said += [] if init or model else _hub_weights(summaries)
    chosen = {**plan.chosen, "mirror": mirror} if pictures else plan.chosen
    return replace(made, notes="\n".join([*said, *([made.notes] if made.notes else [])]), chosen=chosen)


def _mirrors(seen: DatasetSummary) -> bool:
    """Whether mirrored pictures were measured to keep their classes."""
    if seen.several or not seen.classes or seen.label_sets != (LABEL,):
        return False
    from tubelet.evaluation.baselines import mirror_keeps_classes  # a second of scikit-learn

    return mirror_keeps_classes(seen.train, seen.validating)


@dataclass(frozen=True, kw_only=True)
class _Draft:
    """The experiment, except for what is planned."""

    summaries: Mapping[str, DatasetSummary]
    objective: str
    start: Start | None
    model: str
    mirrors: bool
    baseline: bool

    def wanted(self, size: str) -> Wanted:
        """What the plan chooses from; ``size``: the only one, if not empty."""
        seen = list(self.summaries.values())
        files = sum(len(data.train) for data in seen) / len(seen)
        passes = min(_MOST_PASSES, max(_PASSES, max(_ENOUGH[data.kind] for data in seen) / files))
        if size or self.model:
            sizes = {size: 0}
        elif self.start:
            sizes = dict.fromkeys(sizes_of(self.start.config, seen) or [""], 0)
        else:
            sizes = _SIZES
        if self.start:
            return Wanted(sizes=sizes, passes=_STARTED_PASSES, most=_PASSES, fewest=_FEWEST_PASSES)
        return Wanted(sizes=sizes, passes=passes, most=passes)

    def experiment(self, plan: Plan) -> Experiment:
        seen = list(self.summaries.values())
        if self.model:
            chosen, said = named_model(self.model, seen, self.start)
        else:
            chosen, said = choose_model(seen, self.start, plan.size)
        source = self.start.source if self.start else ""
        inputs = {name: task_inputs(chosen, data, self.model or source) for name, data in self.summaries.items()}
        with torch.device("meta"):
            width = chosen.build().width
        tasks = {n: self._task(n, data, chosen, inputs[n], plan, width) for n, data in self.summaries.items()}
        updates = max(1, sum(plan.updates.values()))
        validates = any(data.validating for data in seen)
        heads_alone = bool(self.start) and plan.passes < 1
        return Experiment(
            model=chosen,
            tasks=tasks,
            optimizer=AdamW(decay="weights", layer_decay=_LAYER_DECAY if self.start and chosen.towers() else 1.0),
            training=Training(
                ema=round(min(0.999, max(0.9, 1 - _AVERAGED / updates)), 4),
                workers=max(1, min(8, (os.cpu_count() or 2) // 2)),
                precision="bfloat16" if self.start and computes_bfloat16() else "float32",
                checkpoint_every=max(100, min(1_000, updates // 8)),
                cache_gib=1.0,
                probe_first=self._probed,
                validate_every=ceil(updates / (1 if heads_alone else VALIDATIONS)) if validates else 0,
                patience=_PATIENCE if validates else 0,
            ),
            init=(Init(source=source),) if source else (),
            trainable=("heads.*",) if heads_alone else ("*",),
            baseline=self.baseline,
            chosen=plan.chosen,
            notes="\n".join(said),
        )

    @property
    def _probed(self) -> bool:
        """Whether heads start from a probe: with few examples, and one label each in at least one folder."""
        few = sum(len(data.train) for data in self.summaries.values()) <= _PROBED
        return bool(self.start) and few and any(not data.several for data in self.summaries.values())

    def _rate(self, updates: int, width: int) -> float:
        if not self.start:
            return round(_RATE * 128 / width, 5)
        return float(f"{_STARTED_RATE * min(1.0, updates / _STEADY):.2g}")

    def _task(
        self, name: str, seen: DatasetSummary, model: ModelConfig, inputs: tuple[str, ...], plan: Plan, width: int
    ) -> Task:
        specs = [model.inputs[name] for name in inputs]
        span = reader_of(specs[0]).grid(0.0).seconds if specs[0].modality == "audio" else LONGEST
        updates, brief = plan.updates[name], self.start is not None and plan.passes < _BRIEF
        usual = _AUGMENT[seen.kind]
        augment = replace(
            usual,
            flip=0.5 if seen.kind == "image" and self.mirrors else 0.0,
            erase=0.0 if brief else usual.erase,
            color=0.0 if seen.gray else usual.color,
        )
        return Task(
            source=Source(
                path=seen.path,
                train="train",
                test=seen.test,
                validation=seen.validation,
                held_out=seen.held_out,
            ),
            objective=_objective(self.objective, seen, Mixup(0.0 if brief else _MIXUP)),
            inputs=inputs,
            augment=augment,
            batch_size=batch_size(len(seen.train)),
            length=Length(steps=updates),
            warmup=Length(steps=ceil(_WARMUP * updates)),
            stochastic_depth=_STOCHASTIC_DEPTH if self.start and not brief else 0.0,
            learning_rate=self._rate(updates, width),
            views=Views(clips=min(_MOST_CLIPS, max(1, ceil(median(seen.seconds) / span))) if seen.seconds else 1),
        )


def batch_size(examples: int) -> int:
    """The size of a minibatch: small for few examples, so that a pass has several updates."""
    return 64 if examples >= 10_000 else max(2, min(32, examples // 8))


def _hub_weights(summaries: Mapping[str, DatasetSummary]) -> list[str]:
    """A suggestion to start from pretrained weights, if there are few files."""
    if sum(len(data.train) for data in summaries.values()) >= _FEW:
        return []
    kinds = {data.kind for data in summaries.values()}
    becomes = {"video": "as a ViViT", "audio": "as AST and MBT do"}
    how = [becomes[kind] for kind in ("video", "audio") if kind in kinds and len(kinds) == 1]
    paths = " ".join(shlex.quote(data.path) for data in summaries.values())
    return [
        f"These are few files to learn from scratch. `tubelet train folder {paths} --init {_HUB}` starts from an image "
        f"ViT trained on the 14 million pictures of ImageNet-21k{''.join(f', {words}' for words in how)}; it has 86 M "
        "parameters, so give it a GPU or more --minutes."
    ]


def _objective(name: str, seen: DatasetSummary, mixup: Mixup) -> Objective:
    if name == "regression":
        return Regression(numbers=seen.label_sets, mixup=mixup, head_init="lecun")
    if name != "classification":
        return registered(Objective)[name]()
    if seen.several:
        return Classification(label_sets=seen.label_sets, labels="several", loss="sigmoid", head_init="lecun")
    return Classification(label_sets=seen.label_sets, smoothing=0.1, mixup=mixup, head_init="lecun")
