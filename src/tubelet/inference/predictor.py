"""A trained model and media files: predictions, embeddings, timelines and explanations in a line each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from tubelet.data.dataset import ViewSet
from tubelet.data.manifest import Record
from tubelet.data.views import Views
from tubelet.inference.answers import Answer, Prediction, Result, Segment
from tubelet.inference.explanation import Explanation
from tubelet.inference.probabilities import by_label_set, label_sets, probabilities, top_answers, top_combinations
from tubelet.inference.rollout import rollout
from tubelet.inference.scoring import Precision, ViewLogits, evaluation_mode, view_logits
from tubelet.inference.timeline import plan_windows, window_clips
from tubelet.media.errors import MediaError
from tubelet.media.info import probe
from tubelet.media.video import open_video
from tubelet.specs import ImageSpec, VideoSpec
from tubelet.weights.folder import load_model
from tubelet.weights.loaded import Loaded, TaskCard

Path_ = str | Path


def load(source: Path_, *, device: str = "", precision: Precision = "float32") -> Predictor:
    """A model to use: from a run, a model folder or ``hf:org/name``, on ``device`` (an accelerator if there is one).

    Raises WeightsError, naming the file and what is wrong with it.
    """
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return Predictor(load_model(source), torch.device(device or accelerator or "cpu"), precision)


class Predictor:
    """A model with its weights, its class names and the way it wants its input cut.

    Everything it says of a file comes from views cut as in evaluation. Methods raise :class:`MediaError` for a file
    that cannot be read, or is of a kind that the model does not look at, and ValueError for a task it does not have.
    ``views_per_forward`` bounds the memory of a forward.
    """

    def __init__(
        self, loaded: Loaded, device: torch.device, precision: Precision = "float32", views_per_forward: int = 12
    ) -> None:
        self.model = loaded.model.to(device)
        self.config, self.tasks, self.provenance = loaded.config, loaded.tasks, loaded.provenance
        self.device, self.views_per_forward = device, views_per_forward
        self.precision: Precision = precision

    def predict(self, path: Path_, *, top: int = 5, views: Views | str = "", task: str = "") -> Prediction:
        """The ``top`` most probable classes of a video or an image.

        ``views``: clips x crops, such as "4x3"; empty: those that the model was tested with. ``task``: which head
        answers, where the model has several.
        """
        name, card = self._task(task)
        chosen = self._views(views or card.views)
        inputs = self._look(path, chosen)
        with self._running():
            (logits,) = view_logits(self.model, name, [inputs], views_per_forward=self.views_per_forward)
        labels, sets = _answers(logits, card, top)
        return Prediction(path=str(path), task=name, views=str(chosen), labels=labels, sets=sets)

    def predict_many(
        self, paths: Iterable[Path_], *, top: int = 5, views: Views | str = "", task: str = ""
    ) -> Iterator[Result]:
        """A prediction per file, in order; a file that cannot be read gives its MediaError, and the rest go on."""
        self._task(task)
        for path in paths:
            try:
                yield self.predict(path, top=top, views=views, task=task)
            except MediaError as error:
                yield error

    def segments(self, path: Path_, *, window: float = 0.0, stride: float = 0.0, task: str = "") -> Iterator[Segment]:
        """What a long video shows over time, window by window as it is read; see :meth:`timeline`."""
        name, card = self._task(task)
        key, spec = self._video_input(path)
        with open_video(path) as video, self._running():
            info = video.probe()
            plan = plan_windows(spec, info.fps, info.duration, window, stride)
            clips = ({key: clips} for clips in window_clips(video.frames_at, spec, plan))
            logits = view_logits(self.model, name, clips, views_per_forward=self.views_per_forward)
            for part, said in zip(plan.windows, logits, strict=True):
                best, _ = _answers(said, card, 1)
                yield Segment(start=part.start, end=part.end, label=best[0].label, probability=best[0].probability)

    def timeline(self, path: Path_, *, window: float = 0.0, stride: float = 0.0, task: str = "") -> list[Segment]:
        """The best class of every window of a long video, which is decoded once and in bounded memory.

        ``window`` and ``stride`` are seconds: 0 means the span of the model's clip, and windows that follow each other.
        A window longer than a clip is covered by several clips at the model's own frame rate.
        """
        return list(self.segments(path, window=window, stride=stride, task=task))

    def embed(self, path: Path_, *, views: Views | str = "") -> Float[Tensor, " D"]:
        """The pooled features, averaged over views: float32, on the CPU."""
        inputs = self._look(path, self._views(views or next((card.views for card in self.tasks.values()), "")))
        pooled: list[Tensor] = []
        with self._running():
            for rows in torch.arange(len(next(iter(inputs.values())))).split(self.views_per_forward):
                part = self.model.preprocess({name: x[rows].to(self.device) for name, x in inputs.items()})
                pooled.append(self.model.encoder(part).pooled.float().cpu())
        return torch.cat(pooled).mean(0)

    def explain(self, path: Path_) -> Explanation:
        """Where the model looks in the middle clip: attention rollout, as its factorisation computes attention.

        Raises TypeError for a model whose rollout is not written. All attention maps are in memory at once: 12 heads x
        12 layers x 3,137^2 numbers for ViViT-B/16x2's joint attention, 6 GB; the factorised models take far less.
        """
        inputs = self._look(path, Views())
        with self._running():
            x = self.model.preprocess({name: x.to(self.device) for name, x in inputs.items()})
            maps = self.model.encoder(x, attention=True).attention
            shares = rollout(self.config, {name: a.float() for name, a in maps.items()})[0].cpu()
        raster = next(iter(inputs.values()))[0]
        frames = raster if raster.ndim == 4 else raster[None]
        return Explanation(path=str(path), shares=shares, frames=frames, rate=self._rate(path))

    def _task(self, task: str) -> tuple[str, TaskCard]:
        if not self.tasks:
            raise ValueError("this model has no head, so it predicts nothing; embed() gives its features")
        if not task and len(self.tasks) > 1:
            raise ValueError(f"this model has the tasks {', '.join(self.tasks)}: say which, task=...")
        if task and task not in self.tasks:
            raise ValueError(f"this model has no task {task!r}; it has {', '.join(self.tasks)}")
        name = task or next(iter(self.tasks))
        return name, self.tasks[name]

    @property
    def _stills(self) -> bool:
        return all(isinstance(spec, ImageSpec) for spec in self.model.encoder.inputs.values())

    def _views(self, views: Views | str) -> Views:
        """``views``, with a single clip where the model looks at images; 4x1, or 1x1 for images, if empty."""
        if isinstance(views, str):
            views = Views.parse(views or ("1x1" if self._stills else "4x1"))
        return Views(crops=views.crops) if self._stills else views

    def _look(self, path: Path_, views: Views) -> dict[str, Tensor]:
        """The views (V, ...) of one file, uint8."""
        info = probe(path)
        wanted = "image" if self._stills else "video"
        if info.kind != wanted:
            raise MediaError(str(path), None, _wrong_kind(info.kind, wanted))
        record = Record(path=str(path), duration=info.duration, fps=info.fps)
        try:
            found = ViewSet([record], (), self.model.encoder.inputs, views).example(0)
        except ValueError as error:  # a file whose name says another kind than its contents
            raise MediaError(str(path), None, str(error)) from error
        if isinstance(found, MediaError):
            raise found
        return found.inputs

    def _video_input(self, path: Path_) -> tuple[str, VideoSpec]:
        for name, spec in self.model.encoder.inputs.items():
            if isinstance(spec, VideoSpec):
                return name, spec
        raise MediaError(str(path), None, "this model looks at images, which have no timeline; use predict()")

    def _rate(self, path: Path_) -> float:
        """Frames per second at which the model sees the file; 0 for an image."""
        if self._stills:
            return 0.0
        _, spec = self._video_input(path)
        return 1 / spec.step(probe(path).fps)

    def _running(self) -> AbstractContextManager[None]:
        return evaluation_mode(self.model, self.precision)


def _answers(logits: ViewLogits, card: TaskCard, top: int) -> tuple[tuple[Answer, ...], dict[str, tuple[Answer, ...]]]:
    """The best answers of a task, and of each of its label sets where there are several; logits averaged over views."""
    if top < 1:
        raise ValueError(f"{top=} must be at least 1")
    names = label_sets(card)
    mean = {name: x.mean(0).numpy() for name, x in by_label_set(logits, card).items()}
    sets = {
        name: tuple(Answer(*answer) for answer in top_answers(probabilities(x, card), names[name], top))
        for name, x in mean.items()
    }
    if len(sets) == 1:
        return next(iter(sets.values())), {}
    return tuple(Answer(*answer) for answer in top_combinations(mean, card, top)), sets


def _wrong_kind(kind: str, wanted: str) -> str:
    article = {"image": "an image", "video": "a video", "audio": "sound alone"}
    return f"is {article[kind]}, but this model looks at {wanted}s; give it {article[wanted]}"
