"""What a person would try first: classical classifiers on hand-made features, as the opponents of a trained model.

A panel of about a dozen members, each a feature (pixels, oriented gradients, log-mel energies, ...) and a classifier
of scikit-learn, is fitted in seconds. The best of them on held-out files is what a model's result should stand beside.
"""

from __future__ import annotations

import math
import os
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC, LinearSVC
from threadpoolctl import threadpool_limits

from tubelet.data.records import LABEL, Record, Records
from tubelet.evaluation.handmade import (
    Floats,
    cepstral_statistics,
    color_histogram,
    color_pixels,
    flat_even_log_mel,
    flat_log_mel,
    flat_trimmed_log_mel,
    frame_correlation,
    frame_differences,
    gradients_and_colors,
    gray_pixels,
    mean_frame,
    mean_gradients_and_colors,
    mel_statistics,
    middle_gradients,
    oriented_gradients,
    read_frames,
    read_picture,
    read_sound,
    small_frames,
)
from tubelet.evaluation.metrics import mean_class_accuracy, top_k
from tubelet.media.errors import MediaError

__all__ = ["Baseline", "Kind", "fit_baselines", "mirror_keeps_classes"]

Kind = Literal["image", "video", "audio"]
Labels = NDArray[Any]  # of text

_CAP = 5000  # files to fit on, validation files included: support-vector machines take the square of it
_VALIDATION_CAP = 1000
_ALWAYS_READ = 200  # files, however slow they are to read
_FEWEST_VALIDATION = 30  # files; with fewer, cross-validation chooses
_FOLDS = 3
_FOLDED = 1000  # files above which one fold is enough to choose by
_NONE: Floats = np.zeros((0, 1), np.float32)
_COMPONENTS = 160  # kept by the principal component analysis of wider features


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """The best member of the panel.

    ``name``: classifier and feature in plain words. ``validation``: its top-1 on the held-out files by which it was
    chosen. ``metrics``: "top1" and "mean_class_accuracy" on the test files that can be read, ``scored`` of
    ``expected``. ``train``: files that it was fitted on in the end. ``seconds``: for everything, reading included.
    ``tried``: the top-1 on the held-out files of every member, by name, in the order in which they were tried.
    """

    name: str
    validation: float
    metrics: dict[str, float]
    scored: int
    expected: int
    train: int
    seconds: float
    tried: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Baseline:
        return cls(**data)


def fit_baselines(
    kind: Kind,
    train: Sequence[Record],
    validation: Sequence[Record],
    test: Sequence[Record],
    *,
    seconds: float = 30.0,
    progress: Callable[[str], None] | None = None,
) -> Baseline:
    """Fit the panel for ``kind``, choose by validation, fit the chosen member again and score it on ``test``.

    Every member is fitted on ``train`` and compared by top-1 on ``validation``; of equals the earlier, simpler one is
    taken, so one that makes no mistake ends the search. With fewer than 30 validation files that can be read, the
    choice is by 3-fold cross-validation on training and validation files together (with more than 1,000 of them, by
    one of the folds). The chosen member is then fitted on training and validation files together, as a person would
    do, and only it sees the test files.

    At most 5,000 files are fitted on, an equal share of each class. After ``seconds`` no further member is begun, but
    two are always tried; after two thirds of it no more files are read to fit on, but 200 always are. The test
    files are all read, whatever it takes. Where neither limit is met, the result is the same at every call.
    ``progress`` is told in a sentence what happens.

    Raises ValueError where an example has no or several labels, or where the readable training files are not of two
    classes at least, or no test file can be read.
    """
    began = time.monotonic()
    tell = progress or (lambda _: None)
    for records in map(Records.of, (train, validation, test)):
        for place in np.flatnonzero(records.labels().counts != 1)[:1].tolist():
            record = records[place]
            raise ValueError(f"{record.key or record.path} has the labels {record.labels}; baselines need exactly one")
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")  # of members that do not converge: their accuracy says enough
        panel = PANELS[kind]
        features = list(dict.fromkeys(member.feature for member in panel))
        held_out = _subset(validation, _VALIDATION_CAP)
        fitted_on = _subset(train, _CAP - len(held_out))
        tell(f"Baselines: reading {len(fitted_on) + len(held_out):,} files")
        stop = began + seconds * 2 / 3
        x_train, y_train = _read(fitted_on, features, stop)
        x_held, y_held = _read(held_out, features, stop)
        classes: list[str] = sorted(set(y_train.tolist()))
        if len(classes) < 2:
            found = f"all of the class {classes[0]!r}" if classes else "none of them can be read"
            raise ValueError(f"baselines need training files of two classes, but of {len(fitted_on)} files {found}")
        y_all = np.concatenate([y_train, y_held])
        if len(y_held) < _FEWEST_VALIDATION:
            splits = _folds(y_all)
        else:
            splits = [(np.arange(len(y_train)), np.arange(len(y_train), len(y_all)))]
        x_all = x_train if not len(y_held) else {f: np.concatenate([x_train[f], x_held[f]]) for f in features}
        tried: dict[str, float] = {}
        inputs: dict[tuple[Feature, bool], list[tuple[Floats, Floats]]] = {}
        for member in panel:
            perfect = max(tried.values(), default=0.0) == 1.0  # of equals the earlier is taken
            if len(tried) >= 2 and (perfect or time.monotonic() - began > seconds):
                break
            form = (member.feature, member.projected)
            if form not in inputs:
                inputs[form] = _inputs(member, x_all[member.feature], splits)
            tried[member.name] = _validated(member, inputs[form], y_all, splits)
            tell(f"Baselines: {member.name}: {tried[member.name]:.1%} of the validation files")
        best = max(panel[: len(tried)], key=lambda member: tried[member.name])
        projection = best.projection(x_all[best.feature])
        classifier = best.classifier(y_all)
        classifier.fit(projection(x_all[best.feature]), y_all)
        tell(f"Baselines: scoring {best.name} on {len(test):,} test files")
        x_test, y_test = _read(test, [best.feature], math.inf)
        if not len(y_test):
            raise ValueError(f"not one of the {len(test)} test files can be read")
        answers = np.asarray(classifier.predict(projection(x_test[best.feature])))
    return Baseline(
        name=best.name,
        validation=tried[best.name],
        metrics=_metrics(answers, y_test),
        scored=len(y_test),
        expected=len(test),
        train=len(y_all),
        seconds=round(time.monotonic() - began, 2),
        tried=tried,
    )


def mirror_keeps_classes(train: Sequence[Record], validation: Sequence[Record]) -> bool:
    """Whether mirroring pictures, left for right, leaves their classes as they are, measured on validation pictures.

    Logistic regression on oriented gradients and colors has to name the mirrored validation pictures as well as the
    pictures themselves, to within a standard error, and both well above chance. Where that cannot be told, the answer
    is no. At most 800 training and 400 validation pictures are read.
    """
    parts = [_both_ways(_subset(records, most)) for records, most in ((train, 800), (validation, 400))]
    (x, _, y), (x_held, x_mirrored, y_held) = parts
    if len(y_held) < _FEWEST_VALIDATION or len(set(y.tolist())) < 2:
        return False
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")
        classifier = LogisticRegression(C=0.1, max_iter=200).fit(x, y)
        right, right_mirrored = (float(np.mean(classifier.predict(z) == y_held)) for z in (x_held, x_mirrored))
    error = math.sqrt((right * (1 - right) + 0.25 / len(y_held)) / len(y_held))
    chance = max(Counter(y_held.tolist()).values()) / len(y_held)
    return right > chance + 2 * error and right_mirrored >= right - error


def _both_ways(records: Sequence[Record]) -> tuple[Floats, Floats, Labels]:
    """The gradients and colors of pictures that can be read, as they are and mirrored, and their labels."""

    def read(record: Record) -> tuple[Floats, Floats] | None:
        with suppress(MediaError):
            picture = read_picture(record)
            return gradients_and_colors(picture), gradients_and_colors(picture[:, ::-1])
        return None

    with ThreadPoolExecutor(_cores()) as pool:
        found = [(features, r) for features, r in zip(pool.map(read, records), records, strict=True) if features]
    if not found:
        return _NONE, _NONE, np.array([])
    plain, mirrored = (np.stack([features[i] for features, _ in found]) for i in (0, 1))
    return plain, mirrored, np.array([record.labels[LABEL][0] for _, record in found])


# The panels.


@runtime_checkable
class Classifier(Protocol):
    """What is used of scikit-learn's classifiers."""

    def fit(self, X: Floats, y: Labels) -> object: ...
    def predict(self, X: Floats) -> Any: ...


@dataclass(frozen=True)
class Feature:
    """``each``: every dimension is brought to the same deviation, as they are of different kinds."""

    name: str
    read: Callable[[Record], Any]
    compute: Callable[[Any], Floats]
    each: bool = False


@dataclass(frozen=True)
class Member:
    """``classifier`` is given the labels that it will be fitted on. ``projected``: not where trees are grown, which
    ask for one dimension at a time."""

    classifier_name: str
    classifier: Callable[[Labels], Classifier]
    feature: Feature
    projected: bool = True

    @property
    def name(self) -> str:
        return f"{self.classifier_name} on {self.feature.name}"

    def projection(self, x: Floats) -> Callable[[Floats], Floats]:
        return Projection.fit(x, each=self.feature.each) if self.projected else lambda x: x


def _logistic(feature: Feature) -> Member:
    return Member("logistic regression", lambda y: LogisticRegression(C=0.1, max_iter=200), feature)


def _linear(feature: Feature) -> Member:
    return Member("linear support-vector machine", lambda y: LinearSVC(C=0.01, dual="auto", random_state=0), feature)


def _neighbors(feature: Feature, k: int) -> Member:
    name = "nearest neighbor" if k == 1 else f"{k} nearest neighbors"
    return Member(name, lambda y: KNeighborsClassifier(min(k, len(y))), feature)


def _rbf(feature: Feature, C: float) -> Member:
    return Member(f"support-vector machine (RBF, C {C:g})", lambda y: SVC(C=C, gamma="scale"), feature)


def _trees(feature: Feature) -> Member:
    def classifier(y: Labels) -> Classifier:
        return ExtraTreesClassifier(200, n_jobs=_cores(), random_state=0)

    return Member("extremely randomized trees", classifier, feature, projected=False)


def _boosting(feature: Feature) -> Member:
    def classifier(y: Labels) -> Classifier:
        rounds = min(60, max(5, 600 // len(set(y.tolist()))))  # each grows a tree for every class
        return HistGradientBoostingClassifier(
            max_iter=rounds, learning_rate=0.15, max_leaf_nodes=15, early_stopping="auto", random_state=0
        )

    return Member("gradient boosting", classifier, feature, projected=False)


def _image_panel() -> list[Member]:
    gray = Feature("16 x 16 gray pixels", read_picture, gray_pixels)
    pixels = Feature("24 x 24 color pixels", read_picture, color_pixels)
    colors = Feature("a color histogram", read_picture, color_histogram)
    gradients = Feature("oriented gradients", read_picture, oriented_gradients)
    both = Feature("oriented gradients and a color histogram", read_picture, gradients_and_colors)
    return [
        _logistic(colors),
        _logistic(gradients),
        _logistic(both),
        _neighbors(gray, 1),
        _neighbors(gray, 5),
        _logistic(gray),
        _neighbors(gradients, 5),
        _rbf(gradients, 10),
        _rbf(both, 10),
        _rbf(gray, 10),
        _rbf(pixels, 10),
        _rbf(colors, 10),
        _linear(both),
        _trees(colors),
        _rbf(gradients, 1),
        _rbf(both, 1),
        _boosting(colors),
    ]


def _video_panel() -> list[Member]:
    mean = Feature("the mean frame", read_frames, mean_frame)
    colors = Feature("a color histogram of the frames", read_frames, color_histogram)
    middle = Feature("oriented gradients of the middle frame", read_frames, middle_gradients)
    both = Feature("mean oriented gradients and a color histogram", read_frames, mean_gradients_and_colors)
    small = Feature("small frames in a row", read_frames, small_frames)
    differences = Feature("frame differences", read_frames, frame_differences)
    correlation = Feature("frame correlation", read_frames, frame_correlation)
    return [
        _logistic(colors),
        _logistic(correlation),
        _logistic(mean),
        _logistic(both),
        _neighbors(small, 1),
        _logistic(small),
        _logistic(differences),
        _logistic(middle),
        _rbf(both, 10),
        _rbf(correlation, 10),
        _rbf(small, 10),
        _rbf(differences, 10),
        _rbf(middle, 10),
        _rbf(mean, 10),
        _rbf(colors, 10),
        _linear(both),
        _trees(correlation),
        _trees(colors),
        _rbf(both, 1),
        _boosting(colors),
    ]


def _audio_panel() -> list[Member]:
    cepstrum = Feature("statistics of cepstral coefficients", read_sound, cepstral_statistics, each=True)
    statistics = Feature("statistics of log-mel energies", read_sound, mel_statistics, each=True)
    plain = Feature("flattened log-mel", read_sound, flat_log_mel)
    evened = Feature("flattened log-mel, loudness evened", read_sound, flat_even_log_mel)
    trimmed = Feature("flattened log-mel, loudness evened, silence cut off", read_sound, flat_trimmed_log_mel)
    return [
        _logistic(cepstrum),
        _logistic(evened),
        _neighbors(evened, 1),
        _neighbors(evened, 5),
        _logistic(plain),
        _logistic(statistics),
        _rbf(cepstrum, 10),
        _rbf(evened, 10),
        _rbf(trimmed, 10),
        _rbf(plain, 10),
        _rbf(statistics, 10),
        _linear(cepstrum),
        _linear(evened),
        _rbf(cepstrum, 1),
        _rbf(evened, 1),
        _trees(cepstrum),
        _trees(evened),
        _boosting(cepstrum),
    ]


PANELS: Mapping[Kind, list[Member]] = {"image": _image_panel(), "video": _video_panel(), "audio": _audio_panel()}


# Fitting.


@dataclass(frozen=True)
class Projection:
    """Centered, scaled and, where features are wide, brought to their principal components.

    ``scale``: one number for all dimensions, or one for each.
    """

    mean: Floats
    scale: Floats
    components: Floats | None

    @staticmethod
    def fit(x: Floats, *, each: bool) -> Projection:
        mean, deviation = x.mean(axis=0), x.std(axis=0)
        common = np.sqrt(np.square(deviation).mean(keepdims=True))
        scale = np.maximum(deviation if each else common, 1e-6)
        width = min(_COMPONENTS, len(x) - 1)
        if x.shape[1] <= max(width, 1):
            return Projection(mean, scale, None)
        pca = PCA(width, svd_solver="randomized" if len(x) > 500 else "full", random_state=0).fit((x - mean) / scale)
        # with one scale for all, so that classifiers see numbers of about one size
        size = np.sqrt(max(float(pca.explained_variance_.mean()), 1e-12))
        return Projection(mean, scale, (np.asarray(pca.components_).T / size).astype(np.float32))

    def __call__(self, x: Floats) -> Floats:
        scaled = (x - self.mean) / self.scale
        return scaled if self.components is None else scaled @ self.components


Splits = list[tuple[NDArray[np.int64], NDArray[np.int64]]]


def _inputs(member: Member, x: Floats, splits: Splits) -> list[tuple[Floats, Floats]]:
    """For each split what is fitted on and what is held out, projected by the former."""
    pairs: list[tuple[Floats, Floats]] = []
    for fitted, held in splits:
        projection = member.projection(x[fitted])
        pairs.append((projection(x[fitted]), projection(x[held])))
    return pairs


def _validated(member: Member, inputs: Sequence[tuple[Floats, Floats]], y: Labels, splits: Splits) -> float:
    """The share of held-out files, of all splits together, that a member gets right; 0 where none is held out."""
    right = total = 0
    for (x_fitted, x_held), (fitted, held) in zip(inputs, splits, strict=True):
        if len(held):
            classifier = member.classifier(y[fitted])
            classifier.fit(x_fitted, y[fitted])
            right += int((classifier.predict(x_held) == y[held]).sum())
            total += len(held)
    return right / max(total, 1)


def _folds(y: Labels) -> Splits:
    """Each class spread over the folds; a class of one file is always fitted on, so none is held out unseen."""
    fold = np.full(len(y), -1)
    dealt = 0
    for label in sorted(set(y)):
        (members,) = np.nonzero(y == label)
        if len(members) > 1:
            fold[members] = (np.arange(len(members)) + dealt) % _FOLDS
            dealt += len(members)
    count = 1 if len(y) > _FOLDED else _FOLDS
    return [(np.flatnonzero(fold != i), np.flatnonzero(fold == i)) for i in range(count)]


def _subset(records: Sequence[Record], most: int) -> Records:
    """Up to ``most`` records, one of each class in turn: every beginning of the list is as balanced as can be."""
    records = Records.of(records)
    labels, order = records.labels(), np.random.default_rng(0).permutation(len(records))
    rank = np.argsort(np.argsort(labels.names))[labels.codes[order]]
    by_class = np.argsort(rank, kind="stable")
    sizes = np.bincount(rank, minlength=len(labels.names))
    turn = np.arange(len(order)) - (np.cumsum(sizes) - sizes)[rank[by_class]]
    return records.at(order[by_class[np.lexsort((rank[by_class], turn))]][:most])


def _read(records: Sequence[Record], features: Sequence[Feature], stop: float) -> tuple[dict[Feature, Floats], Labels]:
    """The features (N, D) and labels (N,) of the files that can be read, in order; none after ``stop`` but the first.

    Threads, as decoding is outside of Python's lock and processes would load torch again.
    """
    rows: list[list[Floats]] = []
    labels: list[str] = []
    with ThreadPoolExecutor(_cores()) as pool:
        for begin in range(0, len(records), 100):
            if begin >= _ALWAYS_READ and time.monotonic() > stop:
                break
            part = records[begin : begin + 100]
            for record, row in zip(part, pool.map(lambda record: _features(record, features), part), strict=True):
                if row is not None:
                    rows.append(row)
                    labels.append(record.labels[LABEL][0])
    matrices = {
        f: np.stack([row[i] for row in rows]) if rows else np.empty((0, 0), np.float32) for i, f in enumerate(features)
    }
    return matrices, np.array(labels, dtype=np.str_)


def _features(record: Record, features: Sequence[Feature]) -> list[Floats] | None:
    """None where the file cannot be read. All features of a panel are computed from one reading."""
    if record.error:
        return None
    try:
        media = features[0].read(record)
    except MediaError:
        return None
    return [feature.compute(media) for feature in features]


def _metrics(answers: NDArray[Any], y: Labels) -> dict[str, float]:
    classes = sorted({*answers.tolist(), *y.tolist()})
    number = {label: i for i, label in enumerate(classes)}
    scores = np.eye(len(classes), dtype=np.float32)[[number[answer] for answer in answers.tolist()]]
    targets = np.array([number[label] for label in y.tolist()])
    return {"top1": top_k(scores, targets, 1), "mean_class_accuracy": mean_class_accuracy(scores, targets)}


def _cores() -> int:
    """At most 8: on machines of many cores, small jobs are slowed down by more threads."""
    return min(8, len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1)
