"""The members of a panel of baselines: features made by hand, and the models of scikit-learn fitted to them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from sklearn.compose import TransformedTargetRegressor
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
)
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR, LinearSVC

from tubelet.data.manifest import Record
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

Kind = Literal["image", "video", "audio"]
Labels = NDArray[Any]  # of text, or numbers

_COMPONENTS = 160  # kept by the principal component analysis of wider features


@runtime_checkable
class Classifier(Protocol):
    """The methods of scikit-learn's classifiers and regressors that are used here."""

    def fit(self, X: Floats, y: Labels) -> object: ...
    def predict(self, X: Floats) -> Any: ...


@dataclass(frozen=True)
class Feature:
    """A vector of numbers from a file. ``each``: its dimensions are of different kinds, so each is scaled by itself."""

    name: str
    read: Callable[[Record], Any]
    compute: Callable[[Any], Floats]
    each: bool = False


@dataclass(frozen=True)
class Estimator:
    """A classifier or regressor before it is fitted. ``make`` gets the labels that it will be fitted to.

    ``projected``: it gets the principal components; trees don't, because they split one dimension at a time.
    """

    name: str
    make: Callable[[Labels], Classifier]
    projected: bool = True


@dataclass(frozen=True)
class Member:
    """One simple classifier or regressor: an estimator on a feature."""

    estimator: Estimator
    feature: Feature

    @property
    def name(self) -> str:
        return f"{self.estimator.name} on {self.feature.name}"

    def projection(self, x: Floats) -> Callable[[Floats], Floats]:
        """What turns features (N, D) into the estimator's inputs, fitted to ``x``."""
        return Projection.fit(x, each=self.feature.each) if self.estimator.projected else lambda x: x


@dataclass(frozen=True)
class Projection:
    """Centers and scales features, and reduces wide ones to their principal components.

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


def cores() -> int:
    """Threads to use: at most 8, because more of them slow small jobs down."""
    return min(8, len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1)


def _neighbors(name: str, k: int) -> Estimator:
    return Estimator(name, lambda y: KNeighborsClassifier(min(k, len(y))))


def _rbf(C: float) -> Estimator:
    return Estimator(f"support-vector machine (RBF, C {C:g})", lambda y: SVC(C=C, gamma="scale"))


def _boosting(y: Labels) -> Classifier:
    rounds = min(60, max(5, 600 // len(set(y.tolist()))))  # each grows a tree for every class
    return HistGradientBoostingClassifier(
        max_iter=rounds, learning_rate=0.15, max_leaf_nodes=15, early_stopping="auto", random_state=0
    )


_LOGISTIC = Estimator("logistic regression", lambda y: LogisticRegression(C=0.1, max_iter=200))
_LINEAR = Estimator("linear support-vector machine", lambda y: LinearSVC(C=0.01, dual="auto", random_state=0))
_NEAREST, _NEAREST_5 = _neighbors("nearest neighbor", 1), _neighbors("5 nearest neighbors", 5)
_RBF_10, _RBF_1 = _rbf(10), _rbf(1)
_TREES = Estimator(
    "extremely randomized trees", lambda y: ExtraTreesClassifier(200, n_jobs=cores(), random_state=0), projected=False
)
_BOOSTING = Estimator("gradient boosting", _boosting, projected=False)

_GRAY = Feature("16 x 16 gray pixels", read_picture, gray_pixels)
_PIXELS = Feature("24 x 24 color pixels", read_picture, color_pixels)
_COLORS = Feature("a color histogram", read_picture, color_histogram)
_GRADIENTS = Feature("oriented gradients", read_picture, oriented_gradients)
_GRADIENTS_COLORS = Feature("oriented gradients and a color histogram", read_picture, gradients_and_colors)

_MEAN_FRAME = Feature("the mean frame", read_frames, mean_frame)
_FRAME_COLORS = Feature("a color histogram of the frames", read_frames, color_histogram)
_MIDDLE = Feature("oriented gradients of the middle frame", read_frames, middle_gradients)
_MEAN_GRADIENTS_COLORS = Feature(
    "mean oriented gradients and a color histogram", read_frames, mean_gradients_and_colors
)
_SMALL_FRAMES = Feature("small frames in a row", read_frames, small_frames)
_DIFFERENCES = Feature("frame differences", read_frames, frame_differences)
_CORRELATION = Feature("frame correlation", read_frames, frame_correlation)

_CEPSTRUM = Feature("statistics of cepstral coefficients", read_sound, cepstral_statistics, each=True)
_MEL = Feature("statistics of log-mel energies", read_sound, mel_statistics, each=True)
_FLAT = Feature("flattened log-mel", read_sound, flat_log_mel)
_EVEN = Feature("flattened log-mel, loudness evened", read_sound, flat_even_log_mel)
_TRIMMED = Feature("flattened log-mel, loudness evened, silence cut off", read_sound, flat_trimmed_log_mel)


def _panel(*rows: tuple[Estimator, *tuple[Feature, ...]]) -> list[Member]:
    return [Member(estimator, feature) for estimator, *features in rows for feature in features]


# In the order in which they are tried: the quick ones first.
CLASSIFIERS: Mapping[Kind, list[Member]] = {
    "image": _panel(
        (_LOGISTIC, _COLORS, _GRADIENTS, _GRADIENTS_COLORS),
        (_NEAREST, _GRAY),
        (_NEAREST_5, _GRAY),
        (_LOGISTIC, _GRAY),
        (_NEAREST_5, _GRADIENTS),
        (_RBF_10, _GRADIENTS, _GRADIENTS_COLORS, _GRAY, _PIXELS, _COLORS),
        (_LINEAR, _GRADIENTS_COLORS),
        (_TREES, _COLORS),
        (_RBF_1, _GRADIENTS, _GRADIENTS_COLORS),
        (_BOOSTING, _COLORS),
    ),
    "video": _panel(
        (_LOGISTIC, _FRAME_COLORS, _CORRELATION, _MEAN_FRAME, _MEAN_GRADIENTS_COLORS),
        (_NEAREST, _SMALL_FRAMES),
        (_LOGISTIC, _SMALL_FRAMES, _DIFFERENCES, _MIDDLE),
        (_RBF_10, _MEAN_GRADIENTS_COLORS, _CORRELATION, _SMALL_FRAMES, _DIFFERENCES),
        (_RBF_10, _MIDDLE, _MEAN_FRAME, _FRAME_COLORS),
        (_LINEAR, _MEAN_GRADIENTS_COLORS),
        (_TREES, _CORRELATION, _FRAME_COLORS),
        (_RBF_1, _MEAN_GRADIENTS_COLORS),
        (_BOOSTING, _FRAME_COLORS),
    ),
    "audio": _panel(
        (_LOGISTIC, _CEPSTRUM, _EVEN),
        (_NEAREST, _EVEN),
        (_NEAREST_5, _EVEN),
        (_LOGISTIC, _FLAT, _MEL),
        (_RBF_10, _CEPSTRUM, _EVEN, _TRIMMED, _FLAT, _MEL),
        (_LINEAR, _CEPSTRUM, _EVEN),
        (_RBF_1, _CEPSTRUM, _EVEN),
        (_TREES, _CEPSTRUM, _EVEN),
        (_BOOSTING, _CEPSTRUM),
    ),
}


def _svr(C: float) -> Estimator:
    def make(y: Labels) -> Classifier:
        return TransformedTargetRegressor(SVR(C=C, gamma="scale"), transformer=StandardScaler())

    return Estimator(f"support-vector regression (RBF, C {C:g})", make)


def _near(name: str, k: int) -> Estimator:
    return Estimator(name, lambda y: KNeighborsRegressor(min(k, len(y))))


_RIDGE = Estimator("ridge regression", lambda y: Ridge(10.0))
_SVR_10, _SVR_1 = _svr(10), _svr(1)

# The regressor that is to numbers what each classifier is to classes.
_REGRESSORS: Mapping[Estimator, Estimator] = {
    _LOGISTIC: _RIDGE,
    _NEAREST: _near("nearest neighbor", 1),
    _NEAREST_5: _near("5 nearest neighbors", 5),
    _RBF_10: _SVR_10,
    _RBF_1: _SVR_1,
    _LINEAR: _RIDGE,
    _TREES: Estimator(_TREES.name, lambda y: ExtraTreesRegressor(200, n_jobs=cores(), random_state=0), projected=False),
    _BOOSTING: Estimator(
        _BOOSTING.name,
        lambda y: HistGradientBoostingRegressor(max_iter=60, learning_rate=0.15, max_leaf_nodes=15, random_state=0),
        projected=False,
    ),
}

REGRESSORS: Mapping[Kind, list[Member]] = {
    kind: list(dict.fromkeys(Member(_REGRESSORS[member.estimator], member.feature) for member in members))
    for kind, members in CLASSIFIERS.items()
}
