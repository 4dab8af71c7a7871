"""A model in Python: made by name or loaded, called like any module, and asked about files in a line each."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, overload
from warnings import warn

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from tubelet.cards import Answer, Answers, ClassCard, TaskCard
from tubelet.data.dataset import VideoViews, ViewSet
from tubelet.data.manifest import Record
from tubelet.data.readers import reader_of
from tubelet.data.views import Views
from tubelet.data.windows import plan_windows
from tubelet.inference.answers import Prediction, Result, Segment
from tubelet.inference.arrays import Array, is_batch, view_of
from tubelet.inference.explanation import Explanation
from tubelet.inference.kinds import fitting_views, gives, misfit, only_sound
from tubelet.inference.scoring import Precision, ViewLogits, evaluation_mode, view_logits, views_in
from tubelet.inference.sentences import PROMPT, comparing, sentence_vectors, text_spec, unclear, zero_shot
from tubelet.media.errors import MediaError
from tubelet.media.info import MediaInfo, probe
from tubelet.models import Model, ModelConfig, model_config
from tubelet.nn.attention import capture_attention
from tubelet.nn.features import Features
from tubelet.specs import InputSpec
from tubelet.weights.card import Publication
from tubelet.weights.files import HUB
from tubelet.weights.folder import load_model, save_model
from tubelet.weights.formats import Layout
from tubelet.weights.layouts import publish, save_layout
from tubelet.weights.loaded import LoadedModel
from tubelet.weights.transfer import Init, InitReport, initialize

Path_ = str | Path
_Group = tuple[str, tuple[str, ...]]  # a task, and those of its inputs that the file gives


def load(
    source: Path_, *, like: str | ModelConfig | None = None, device: str = "", precision: Precision = "float32"
) -> Predictor:
    """A model to use: from a run, a model folder or ``hf:org/name``, on ``device`` (an accelerator if there is one).

    ``like``: the name or the config of the model, for what a checkpoint of the released JAX code does not tell.
    It is in evaluation mode: call ``.train()`` to go on training it. Raises WeightsError, naming the file and what is
    wrong with it.
    """
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    like = model_config(like) if isinstance(like, str) else like
    return Predictor(load_model(source, like), torch.device(device or accelerator or "cpu"), precision).eval()


def create_model(
    name: str | ModelConfig,
    *,
    num_classes: int | Sequence[str] = 0,
    weights: Path_ = "",
    frames: int = 0,
    size: int = 0,
    device: str = "cpu",
) -> Predictor:
    """A model by its name, such as "vivit-b/16x2-fe" (:func:`tubelet.list_models`), or by its config.

    ``num_classes``: of a fresh linear head (all zeros, so that training starts from even odds), or their names; 0: no
    head, and the model returns pooled features. ``weights``: where the encoder starts, as
    :class:`~tubelet.weights.transfer.Init` says; the report of what went where is ``started_from``. ``frames`` and
    ``size`` (pixels) replace the papers' 32 and 224. In training mode, as PyTorch makes modules. Raises ValueError for
    an unknown name and WeightsError for weights that do not fit.
    """
    config = model_config(name, frames=frames, size=size) if isinstance(name, str) else name
    model = Predictor(LoadedModel(Model(config.build(), {}), config), torch.device(device))
    if weights:
        model.started_from = initialize(model, config, [Init(source=str(weights))])[0]
    model.reset_classifier(num_classes)
    return model


class Predictor(Model):
    """A model with its class names and the way it wants its input cut: a module, and what is asked of files.

    Called, it takes normalized tensors and returns logits, as any :class:`~tubelet.models.Model`; :meth:`preprocess`
    makes these tensors. Everything that it says of a file comes from views cut as in evaluation. Methods raise
    :class:`MediaError` for a file that cannot be read, or is of a kind that the model does not take, and ValueError for
    a task it does not have. Where no ``task`` is named, the one answers whose inputs the file gives: a video task and a
    sound task both fit a video with a sound track. A file that lacks an input which the model can do without (an MBT's
    sound, or pictures) is answered by the others, and a warning says so. ``views_per_forward`` bounds the memory of a
    forward. ``started_from``: what became of the weights that it was created with.
    """

    started_from: InitReport | None = None

    def __init__(
        self, loaded: LoadedModel, device: torch.device, precision: Precision = "float32", views_per_forward: int = 12
    ) -> None:
        super().__init__(loaded.model.encoder, dict(loaded.model.heads.items()))
        self.to(device)
        self.tasks, self.provenance = dict(loaded.tasks), dict(loaded.provenance)
        self.views_per_forward = views_per_forward
        self.precision: Precision = precision

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def save(self, folder: Path_, *, layout: Literal["tubelet"] | Layout = "tubelet", task: str = "") -> None:
        """Write a model folder, which :func:`tubelet.load` reads; one that exists is replaced.

        ``layout``: "transformers" and "timm" write what these libraries load, into a new folder, where they have a
        place for the model; ``task`` is then the one whose head becomes the classifier, if there are several. Raises
        WeightsError where ``folder`` holds something else than a model, and for a setting that a layout cannot hold.
        """
        if layout == "tubelet":
            save_model(folder, self, self.config, self.tasks, self.provenance)
        else:
            save_layout(folder, self._loaded(), layout, task)

    def push_to_hub(
        self,
        repository: str,
        *,
        layout: Literal["tubelet"] | Layout = "tubelet",
        task: str = "",
        private: bool = False,
        license: str = "",
        datasets: Sequence[str] = (),
    ) -> str:
        """Upload the model to the Hugging Face hub, as ``org/name``, and return the address of the commit.

        ``layout`` and ``task``: see :meth:`save`. ``license`` (such as "apache-2.0") and ``datasets``, by their names
        on the hub, stand on the model card, beside each metric with its views and its coverage. Raises WeightsError as
        :meth:`save` does, and where the hub cannot be reached; ``hf auth login`` says who you are.
        """
        return publish(
            self._loaded(),
            Publication(name=repository.removeprefix(HUB), license=license, datasets=tuple(datasets)),
            layout,
            task,
            private=private,
        )

    def _loaded(self) -> LoadedModel:
        return LoadedModel(self, self.config, self.tasks, self.provenance)

    def reset_classifier(self, num_classes: int | Sequence[str], task: str = "label") -> None:
        """A fresh linear head for so many classes, or for classes of these names, in the place of all heads; none, if
        0."""
        names = tuple(map(str, range(num_classes))) if isinstance(num_classes, int) else tuple(num_classes)
        super().reset_classifier(len(names), task)
        self.tasks = {task: ClassCard(classes=names)} if names else {}

    def preprocess(
        self, inputs: Mapping[str, Tensor] | Path_ | Array, *, input: str = "", fps: float = 0.0, rate: int = 0
    ) -> Any:
        """Whatever is to be looked at, as the normalized tensor (B, ...) that the model takes: its middle view.

        A path: of a file; where it gives several inputs that the model takes together, they come by name. A uint8 array
        or tensor, or floats of sound: see :func:`~tubelet.inference.arrays.view_of`, which also tells about ``fps`` and
        ``rate``. ``input``: which of the model's inputs it is, where there are several. A mapping of minibatches as the
        loader gives them: the same with its pixels normalized.
        """
        if isinstance(inputs, Mapping):
            return super().preprocess(inputs)
        if isinstance(inputs, str | Path):
            info = probe(inputs)
            names = self._input_set(info, input or ())
            seen, _ = self._look(info, names, "1x1")
            made = self._on_device(seen.inputs)
            return made if len(made) > 1 else next(iter(made.values()))
        name = self._named(input)
        return self._on_device({name: view_of(inputs, self.encoder.inputs[name], fps=fps, rate=rate)})[name]

    def _named(self, input: str) -> str:
        if not input and len(self.encoder.inputs) > 1:
            raise ValueError(f"say which input it is, input=...: this model has {', '.join(self.encoder.inputs)}")
        if input and input not in self.encoder.inputs:
            raise ValueError(f"{input=} is none of the model's inputs: {', '.join(self.encoder.inputs)}")
        return input or next(iter(self.encoder.inputs))

    @overload
    def predict(self, media: Path_, *, top: int = ..., views: Views | str = ..., task: str = ...) -> Prediction: ...

    @overload
    def predict(
        self, media: Array, *, top: int = ..., task: str = ..., input: str = ..., fps: float = ..., rate: int = ...
    ) -> Prediction | list[Prediction]: ...

    @overload
    def predict(
        self, media: Sequence[Path_], *, top: int = ..., views: Views | str = ..., task: str = ...
    ) -> list[Prediction]: ...

    def predict(
        self,
        media: Path_ | Array | Sequence[Path_],
        *,
        top: int = 5,
        views: Views | str = "",
        task: str = "",
        input: str = "",
        fps: float = 0.0,
        rate: int = 0,
    ) -> Prediction | list[Prediction]:
        """The ``top`` most probable classes: a :class:`Prediction` of one file, a list of them for several.

        ``media``: a path, or a sequence of paths, which share forwards; or a uint8 array or tensor, or floats of sound
        (see :meth:`preprocess`), of which one view is taken, and a batch gives a list. ``views``: clips x crops, such
        as "4x3"; empty: those that the model was tested with. Raises ValueError where no ``task`` is named and several
        fit the file, and the first file's MediaError; :meth:`predict_many` gives errors as values.
        """
        if isinstance(media, str | Path):
            info = probe(media)
            (prediction,) = self._predict([self._cut(info, *self._only(info, task), views)], top)
            return prediction
        if isinstance(media, np.ndarray | Tensor):
            return self._predict_array(media, self._named(input), top, task, fps, rate)
        found: list[Prediction] = []
        for result in self.predict_many(media, top=top, views=views, task=task):
            if isinstance(result, MediaError):
                raise result
            found.append(result)
        return found

    def _predict_array(
        self, x: Array, input: str, top: int, task: str, fps: float, rate: int
    ) -> Prediction | list[Prediction]:
        fitting = [name for name in self._asked(task) if tuple(self._specs(self.tasks[name].inputs)) == (input,)]
        if len(fitting) != 1:
            which = f"the tasks {', '.join(fitting)} fit" if fitting else "no task takes it alone"
            raise ValueError(f"an array of {input!r}: {which}; say which task, task=..., or call the model itself")
        seen = view_of(x, self.encoder.inputs[input], fps=fps, rate=rate)
        cuts = [
            _TaskViews("(array)", (fitting[0], (input,)), VideoViews({input: view[None]}, None, "(array)"), "1x1")
            for view in seen
        ]
        predictions = self._predict(cuts, top)
        return predictions if is_batch(x, self.encoder.inputs[input]) else predictions[0]

    def predict_many(
        self, paths: Iterable[Path_], *, top: int = 5, views: Views | str = "", task: str = ""
    ) -> Iterator[Result]:
        """The answer of every task that fits (or of ``task``) to every file, in order.

        A file that cannot be read, or that no task fits, gives its MediaError, and the rest go on. Files are read ahead
        until one task has views for a whole forward, which they share.
        """
        self._asked(task)
        waiting: list[_TaskViews | MediaError] = []
        for path in paths:
            waiting += self._views_of(path, views, task)
            counts = Counter[_Group]()
            for cut in _readable(waiting):
                counts[cut.group] += views_in(cut.seen.inputs)
            if max(counts.values(), default=0) >= self.views_per_forward:
                yield from self._answered(waiting, top)
                waiting = []
        yield from self._answered(waiting, top)

    def segments(self, path: Path_, *, window: float = 0.0, stride: float = 0.0, task: str = "") -> Iterator[Segment]:
        """What a long video or sound holds over time, window by window as it is read; see :meth:`timeline`."""
        info = probe(path)
        name, _ = self._only(info, task)
        (key, spec), *others = self._specs(self.tasks[name].inputs).items()
        if others:
            raise ValueError(f"timelines are of one input, but task {name!r} takes several together; use predict()")
        reader = reader_of(spec)
        if not reader.timed:
            raise MediaError(info.path, None, f"is {reader.one}, which has no timeline; use predict()")
        try:
            plan = plan_windows(reader.grid(info.fps), info.duration, window, stride)
        except ValueError as error:  # too short for the frame rate of this file
            raise MediaError(info.path, None, str(error)) from error
        record = Record(path=info.path, duration=info.duration, fps=info.fps)
        silent, broken = deque[bool](), list[MediaError]()

        def inputs() -> Iterator[dict[str, Tensor]]:
            try:
                for clips, silence in reader.windows(record, plan):
                    silent.append(silence)
                    yield {key: clips}
            except MediaError as error:  # raised again once the windows before it are answered
                broken.append(error)

        with self._running():
            logits = view_logits(self, name, inputs(), views_per_forward=self.views_per_forward)
            for part, said in zip(plan.windows, logits, strict=False):
                answers = _answers(said, self.tasks[name], 1)
                (best,) = answers.labels or (Answer("", 1.0),)
                yield Segment(
                    start=part.start, end=part.end, label=best.label, probability=best.probability,
                    numbers=answers.numbers, silent=silent.popleft(),
                )  # fmt: skip
        if broken:
            raise broken[0]

    def timeline(self, path: Path_, *, window: float = 0.0, stride: float = 0.0, task: str = "") -> list[Segment]:
        """The best class of every window of a long video or sound, which is read in bounded memory.

        ``window`` and ``stride`` are seconds: 0 means the span of the model's clip, and windows that follow each other.
        A window longer than a clip is covered by several clips at the model's own frame rate.
        """
        return list(self.segments(path, window=window, stride=stride, task=task))

    def embed(
        self, path: Path_, *, views: Views | str = "", inputs: str | Sequence[str] = (), beside: str = ""
    ) -> Float[Tensor, " D"]:
        """The pooled features, averaged over views: float32, on the CPU.

        ``inputs``: which of the model's inputs to encode ("audio": a video's sound, where the model takes both);
        by default those that the file is of. ``views``: empty: those that a task of these inputs was tested with.
        ``beside``: instead of features, the vector of length 1 in the space where a model such as VATT compares video
        with "text" or "audio"; ``inputs`` is then "video", the default, or "audio". Raises ValueError for a model that
        does not.
        """
        if beside:
            return self._compared(path, inputs or "video", beside, views)
        info = probe(path)
        names = self._input_set(info, inputs)
        tested = (card.views for card in self.tasks.values() if set(self._specs(card.inputs)) >= set(names))
        seen, _ = self._look(info, names, views or next(tested, ""))
        return self._mean(seen, lambda features: features.pooled)

    def embed_text(self, sentence: str) -> Float[Tensor, " C"]:
        """The vector of a sentence in the space of video and captions, of length 1: float32, on the CPU.

        Raises ValueError for a model that does not compare video with captions.
        """
        return sentence_vectors(self, self.tasks, [sentence], self.precision)[0]

    def zero_shot(self, classes: Sequence[str], prompt: str = PROMPT) -> Predictor:
        """The same encoder, whose only task is to tell ``classes`` apart by the sentences of their names.

        :func:`~tubelet.inference.sentences.zero_shot` says how; raises ValueError as that does, and warns of names that
        the model's vocabulary does not tell apart.
        """
        made = zero_shot(self._loaded(), classes, prompt)
        for doubt in unclear(text_spec(self), classes, prompt):
            warn(doubt, stacklevel=2)
        return Predictor(made, self.device, self.precision, self.views_per_forward).eval()

    def _compared(
        self, path: Path_, inputs: str | Sequence[str], beside: str, views: Views | str
    ) -> Float[Tensor, " C"]:
        (input,) = [inputs] if isinstance(inputs, str) else inputs
        other = beside if input == "video" else input
        task, card = comparing(self, self.tasks, other)
        seen, _ = self._look(probe(path), (input,), views or card.views)
        name = f"video_{other}" if input == "video" else f"{input}_video"
        return F.normalize(self._mean(seen, lambda features: self.heads[task](features)[name]), dim=0)

    def _mean(self, seen: VideoViews, made_of: Callable[[Features], Tensor]) -> Float[Tensor, " D"]:
        """What is ``made_of`` the features of each view (V, D), averaged: float32, on the CPU."""
        parts = torch.arange(views_in(seen.inputs)).split(self.views_per_forward)
        with self._running():
            made = [made_of(self._encode({name: x[rows] for name, x in seen.inputs.items()})) for rows in parts]
        return torch.cat(made).float().cpu().mean(0)

    def similarity(self, path: Path_, other: Path_ = "", *, text: str = "") -> float:
        """The cosine of what a file shows with a sentence (``text``), or with what ``other`` sounds like.

        ``other`` may be the same file, whose picture and sound are then compared. Raises as :meth:`embed` does.
        """
        if bool(other) == bool(text):
            raise ValueError("give either a second file, whose sound is compared, or text=...")
        said = self.embed_text(text) if text else self.embed(other, inputs="audio", beside="video")
        return float(self.embed(path, beside="text" if text else "audio") @ said)

    def explain(self, path: Path_, *, inputs: str | Sequence[str] = (), show: str = "") -> Explanation:
        """Where the model looks in the middle clip: attention rollout, as its factorization computes attention.

        ``inputs``: as for :meth:`embed`. ``show``: which of them, where it looks at several together; the first, if
        empty. Raises TypeError for a model whose rollout is not written. All attention maps are in memory at once:
        12 heads x 12 layers x 3,137^2 numbers for ViViT-B/16x2's joint attention, 6 GB; the factorized models take far
        less.
        """
        info = probe(path)
        names = self._input_set(info, inputs)
        if show and show not in names:
            raise ValueError(f"{show=} is none of the inputs that are encoded: {', '.join(names)}")
        name = show or names[0]
        seen, _ = self._look(info, names, "1x1")
        with self._running(), capture_attention(self.encoder) as maps:
            self._encode(seen.inputs)
        shares = self.config.rollout({key: a.float() for key, a in maps.items()}, name, tuple(names))[0].cpu()
        part = float(shares.sum())
        made = partial(Explanation, path=str(path), shares=shares / part, part=part)
        reader, (x,) = reader_of(self.encoder.inputs[name]), seen.inputs[name]
        return made(frames=reader.picture(x), rate=reader.rate(info.fps), sound=reader.spec.modality == "audio")

    def _asked(self, task: str) -> tuple[str, ...]:
        """The tasks that may answer."""
        if not self.tasks:
            raise ValueError("this model has no head, so it predicts nothing; embed() gives its features")
        if task and task not in self.tasks:
            raise ValueError(f"this model has no task {task!r}; it has {', '.join(self.tasks)}")
        asked = [name for name in ([task] if task else self.tasks) if self.tasks[name].predicts]
        if not asked:
            raise ValueError("this model compares and predicts nothing; similarity() and embed() are for it")
        return tuple(asked)

    def _fitting(self, info: MediaInfo, task: str) -> dict[str, tuple[str, ...]]:
        """Those that the file gives all inputs of, or else some that suffice, and these inputs: one task at least, or
        MediaError."""
        wanted = {name: self._sufficient(name) for name in self._asked(task)}
        found = {n: next((s for s in sets if gives(info, self._specs(s))), ()) for n, sets in wanted.items()}
        whole = {name: inputs for name, inputs in found.items() if inputs == wanted[name][0]}
        fitting = whole or {name: inputs for name, inputs in found.items() if inputs}
        if not fitting:
            sets = [self._specs(inputs) for sets in wanted.values() for inputs in sets]
            raise misfit(info, f"task {task!r}" if task else "this model", sets)
        return fitting

    def _sufficient(self, task: str) -> list[tuple[str, ...]]:
        """The inputs of a task, then the smaller sets of them that its model can do with."""
        inputs = tuple(self._specs(self.tasks[task].inputs))
        sets = self.config.input_sets if any(set(s) == set(inputs) for s in self.config.input_sets) else ()
        return [inputs, *(s for s in sets if set(s) < set(inputs))]

    def _only(self, info: MediaInfo, task: str) -> tuple[str, tuple[str, ...]]:
        first, *others = self._fitting(info, task).items()
        if others:
            names = ", ".join(name for name, _ in [first, *others])
            raise ValueError(f"{info.path} fits the tasks {names}: say which (--task)")
        return first

    def _specs(self, inputs: Sequence[str]) -> dict[str, InputSpec]:
        """The specs of a task's inputs; of all that the model has if empty."""
        specs = self.encoder.inputs
        return {name: specs[name] for name in inputs or specs}

    def _input_set(self, info: MediaInfo, inputs: str | Sequence[str]) -> tuple[str, ...]:
        """The inputs to encode: those named, or the first set that the file gives, pictures before their sound."""
        named = {inputs} if isinstance(inputs, str) else set(inputs)
        asked = [names for names in self.config.input_sets if not named or named == set(names)]
        if not asked:
            has = ", or ".join(" with ".join(names) for names in self.config.input_sets)
            raise ValueError(f"inputs={' with '.join(sorted(named))}: this model takes {has}")
        fitting = [names for names in asked if gives(info, self._specs(names))]
        if not fitting:
            raise misfit(info, f"input {' with '.join(named)!r}" if named else "this model", map(self._specs, asked))
        return min(fitting, key=lambda names: only_sound(self._specs(names)))

    def _views_of(self, path: Path_, views: Views | str, task: str) -> Iterator[_TaskViews | MediaError]:
        try:
            info = probe(path)
            fitting = self._fitting(info, task)
        except MediaError as error:
            yield error
            return
        for name, inputs in fitting.items():
            try:
                yield self._cut(info, name, inputs, views)
            except MediaError as error:
                yield error

    def _cut(self, info: MediaInfo, task: str, inputs: tuple[str, ...], views: Views | str) -> _TaskViews:
        seen, chosen = self._look(info, inputs, views or self.tasks[task].views)
        return _TaskViews(info.path, (task, inputs), seen, str(chosen))

    def _answered(self, waiting: Sequence[_TaskViews | MediaError], top: int) -> Iterator[Result]:
        """The predictions and the errors, in the order of what waits."""
        predictions = iter(self._predict(_readable(waiting), top))
        for one in waiting:
            yield one if isinstance(one, MediaError) else next(predictions)

    def _predict(self, cuts: Sequence[_TaskViews], top: int) -> list[Prediction]:
        """Those of a task, with the same inputs, share forwards."""
        found: dict[int, Prediction] = {}
        for group in dict.fromkeys(cut.group for cut in cuts):
            places = [i for i, cut in enumerate(cuts) if cut.group == group]
            inputs = (cuts[i].seen.inputs for i in places)
            with self._running():
                logits = list(view_logits(self, group[0], inputs, views_per_forward=self.views_per_forward))
            found |= {i: self._prediction(cuts[i], one, top) for i, one in zip(places, logits, strict=True)}
        return [found[i] for i in range(len(cuts))]

    def _prediction(self, cut: _TaskViews, logits: ViewLogits, top: int) -> Prediction:
        task, inputs = cut.group
        card = self.tasks[task]
        said = _answers(logits, card, top)
        missing = [key for key in self._specs(card.inputs) if key not in inputs]
        warnings = (
            *(f"{key}: not in this file, so the answer is of {' and '.join(inputs)} alone" for key in missing),
            *(f"{key}: the sound is digital silence, so the answer {_without(key, inputs)}" for key in cut.seen.silent),
        )
        sets = said.sets if len(said.sets) > 1 else {}
        return Prediction(
            path=cut.path, task=task, views=cut.views, labels=said.labels, sets=sets, numbers=said.numbers,
            warnings=warnings,
        )  # fmt: skip

    def _look(self, info: MediaInfo, inputs: Sequence[str], views: Views | str) -> tuple[VideoViews, Views]:
        """The views of one file, and how many of what."""
        specs = self._specs(inputs)
        chosen = fitting_views(views, specs)
        record = Record(path=info.path, duration=info.duration, fps=info.fps)
        try:
            found = ViewSet([record], None, specs, chosen).example(0)
        except ValueError as error:  # a file whose name says another kind than its contents
            raise MediaError(info.path, None, str(error)) from error
        if isinstance(found, MediaError):
            raise found
        return found, chosen

    def _encode(self, inputs: Mapping[str, Tensor]) -> Features:
        return self.encoder(self._on_device(inputs))

    def _on_device(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return super().preprocess({name: x.to(self.device) for name, x in inputs.items()})

    def _running(self) -> AbstractContextManager[None]:
        return evaluation_mode(self, self.precision)


@dataclass(frozen=True)
class _TaskViews:
    """The views of a file for a task, by those of its inputs that the file gives. ``views``: how many of what."""

    path: str
    group: _Group
    seen: VideoViews
    views: str


def _readable(waiting: Iterable[_TaskViews | MediaError]) -> list[_TaskViews]:
    return [one for one in waiting if isinstance(one, _TaskViews)]


def _without(silent: str, inputs: Sequence[str]) -> str:
    others = [name for name in inputs if name != silent]
    return f"is of {' and '.join(others)} alone" if others else "says nothing"


def _answers(logits: ViewLogits, card: TaskCard, top: int) -> Answers:
    """What a task says; outputs are averaged over views."""
    return card.answers({name: x.mean(0).numpy() for name, x in card.named(logits).items()}, top)
