"""Simple classifiers and regressors to compare a trained model with: scikit-learn's, on features made by hand.

Each kind of media has a panel of about 20 members, which are fitted in seconds. A model's result should be read beside
that of the best of them on held-out files.
"""

from __future__ import annotations

import math
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from tubelet.cards import NumberCard, Panel
from tubelet.data.records import LABEL, Record, Records
from tubelet.evaluation.handmade import Floats, gradients_and_colors, read_picture
from tubelet.evaluation.panel import CLASSIFIERS, REGRESSORS, Feature, Kind, Labels, Member, cores
from tubelet.media.errors import MediaError
from tubelet.metrics import mean_class_accuracy, top_k

_CAP = 5000  # files to fit to, validation files included: the time of support-vector machines grows with the square
_VALIDATION_CAP = 1000
_ALWAYS_READ = 200  # files that are read even if they are slow
_FEWEST_VALIDATION = 30  # files; with fewer, cross-validation chooses
_FOLDS = 3
_FOLDED = 1000  # files above which one fold is enough to choose by
_NONE: Floats = np.zeros((0, 1), np.float32)


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """The best member of the panel, and its results.

    ``name``: estimator and feature in plain words. ``validation``: its top-1, or R2, on the held-out files by which it
    was chosen. ``metrics``: "top1" and "mean_class_accuracy", or "r2" and "mae", on the test files that can be read,
    ``scored`` of ``expected``. ``train``: the number of files that it was finally fitted to. ``seconds``: the time for
    everything, reading included. ``tried``: the top-1, or R2, of every member on the held-out files, by name, in the
    order in which they were tried.
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
    panel: Panel = "classifiers",
    label_set: str = LABEL,
    seconds: float = 30.0,
    progress: Callable[[str], None] | None = None,
) -> Baseline:
    """Fit the panel for ``kind``, choose a member by validation, fit it again and score it on ``test``.

    Every member is fitted to ``train`` and scored by top-1, or R2, on ``validation``. Of equal members the earlier,
    simpler one is chosen, so a perfect score ends the search. With fewer than 30 readable validation files, the choice
    is by 3-fold cross-validation on training and validation files together (by one of the folds, if there are more than
    1,000 of them). The chosen member is then fitted to training and validation files together, and only it sees the
    test files.

    At most 5,000 files are fitted to, an equal share of each class. ``label_set``: where the labels are. After
    ``seconds`` no further member is tried, except that two always are. After two thirds of that time no more files are
    read to fit to, except that 200 always are. All test files are read, however long it takes. If neither limit is met,
    the result is the same at every call. ``progress`` is called with sentences that say what happens.

    Raises ValueError where an example does not have exactly one label, where the readable training files have fewer
    than two different ones, or where no test file can be read.
    """
    began = time.monotonic()
    tell = progress or (lambda _: None)
    question = _Numbers(label_set) if panel == "regressors" else _Classes(label_set)
    for records in map(Records.of, (train, validation, test)):
        for place in np.flatnonzero(records.labels(label_set).counts != 1)[:1].tolist():
            record = records[place]
            raise ValueError(f"{record.name} has the labels {record.labels}; baselines need exactly one")
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")  # members that do not converge: their accuracy says enough
        members = question.members(kind)
        features = list(dict.fromkeys(member.feature for member in members))
        held_out = question.subset(validation, _VALIDATION_CAP)
        fitted_on = question.subset(train, _CAP - len(held_out))
        tell(f"Baselines: reading {len(fitted_on) + len(held_out):,} files")
        stop = began + seconds * 2 / 3
        x_train, y_train = _read(fitted_on, features, question, stop)
        x_held, y_held = _read(held_out, features, question, stop)
        found = sorted(set(y_train.tolist()))
        if len(found) < 2:
            said = f"all are labeled {found[0]!r}" if found else "none can be read"
            raise ValueError(f"baselines need training files with two labels or more; of {len(fitted_on)} files {said}")
        y_all = np.concatenate([y_train, y_held])
        if len(y_held) < _FEWEST_VALIDATION:
            splits = question.folds(y_all)
        else:
            splits = [(np.arange(len(y_train)), np.arange(len(y_train), len(y_all)))]
        x_all = x_train if not len(y_held) else {f: np.concatenate([x_train[f], x_held[f]]) for f in features}
        tried: dict[str, float] = {}
        inputs: dict[tuple[Feature, bool], list[tuple[Floats, Floats]]] = {}
        for member in members:
            perfect = max(tried.values(), default=0.0) == 1.0  # of equals the earlier is taken
            if len(tried) >= 2 and (perfect or time.monotonic() - began > seconds):
                break
            form = (member.feature, member.estimator.projected)
            if form not in inputs:
                inputs[form] = _inputs(member, x_all[member.feature], splits)
            tried[member.name] = _validated(member, inputs[form], y_all, splits, question)
            tell(f"Baselines: {member.name}: {question.metric} {tried[member.name]:.1%} on the validation files")
        best = max(members[: len(tried)], key=lambda member: tried[member.name])
        projection = best.projection(x_all[best.feature])
        classifier = best.estimator.make(y_all)
        classifier.fit(projection(x_all[best.feature]), y_all)
        tell(f"Baselines: scoring {best.name} on {len(test):,} test files")
        x_test, y_test = _read(test, [best.feature], question, math.inf)
        if not len(y_test):
            raise ValueError(f"not one of the {len(test)} test files can be read")
        answers = np.asarray(classifier.predict(projection(x_test[best.feature])))
    return Baseline(
        name=best.name,
        validation=tried[best.name],
        metrics=question.metrics(answers, y_test),
        scored=len(y_test),
        expected=len(test),
        train=len(y_all),
        seconds=round(time.monotonic() - began, 2),
        tried=tried,
    )


def mirror_keeps_classes(train: Sequence[Record], validation: Sequence[Record]) -> bool:
    """Whether pictures keep their classes when they are mirrored left to right, as measured on validation pictures.

    Logistic regression on oriented gradients and colors must do as well on the mirrored validation pictures as on the
    pictures themselves, to within a standard error, and well above chance on both. If that cannot be decided, the
    answer is no. At most 800 training and 400 validation pictures are read.
    """
    parts = [_both_ways(_Classes(LABEL).subset(records, most)) for records, most in ((train, 800), (validation, 400))]
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
    """The gradients and colors of the pictures that can be read, as they are and mirrored, and their labels."""

    def read(record: Record) -> tuple[Floats, Floats] | None:
        with suppress(MediaError):
            picture = read_picture(record)
            return gradients_and_colors(picture), gradients_and_colors(picture[:, ::-1])
        return None

    with ThreadPoolExecutor(cores()) as pool:
        found = [(features, r) for features, r in zip(pool.map(read, records), records, strict=True) if features]
    if not found:
        return _NONE, _NONE, np.array([])
    plain, mirrored = (np.stack([features[i] for features, _ in found]) for i in (0, 1))
    return plain, mirrored, np.array([record.labels[LABEL][0] for _, record in found])


Splits = list[tuple[NDArray[np.int64], NDArray[np.int64]]]


def _inputs(member: Member, x: Floats, splits: Splits) -> list[tuple[Floats, Floats]]:
    """For each split, the features to fit to and the held-out ones, both projected as the former ask for."""
    pairs: list[tuple[Floats, Floats]] = []
    for fitted, held in splits:
        projection = member.projection(x[fitted])
        pairs.append((projection(x[fitted]), projection(x[held])))
    return pairs


def _validated(
    member: Member, inputs: Sequence[tuple[Floats, Floats]], y: Labels, splits: Splits, question: _Classes | _Numbers
) -> float:
    """The metric of a member on the held-out files of all splits together; 0 if there are none."""
    answers: list[Labels] = []
    truths: list[Labels] = []
    for (x_fitted, x_held), (fitted, held) in zip(inputs, splits, strict=True):
        if len(held):
            estimator = member.estimator.make(y[fitted])
            estimator.fit(x_fitted, y[fitted])
            answers.append(np.asarray(estimator.predict(x_held)))
            truths.append(y[held])
    if not answers:
        return 0.0
    return question.metrics(np.concatenate(answers), np.concatenate(truths))[question.metric]


@dataclass(frozen=True)
class _Question:
    """What is asked of the files: what makes a panel's work with classes differ from that with numbers."""

    label_set: str

    def label(self, record: Record) -> Any:
        return record.labels[self.label_set][0]


class _Classes(_Question):
    metric = "top1"

    def members(self, kind: Kind) -> list[Member]:
        return CLASSIFIERS[kind]

    def subset(self, records: Sequence[Record], most: int) -> Records:
        """Up to ``most`` records, one of each class in turn: every beginning of the list is as balanced as can be."""
        records = Records.of(records)
        labels, order = records.labels(self.label_set), np.random.default_rng(0).permutation(len(records))
        rank = np.argsort(np.argsort(labels.names))[labels.codes[order]]
        by_class = np.argsort(rank, kind="stable")
        sizes = np.bincount(rank, minlength=len(labels.names))
        turn = np.arange(len(order)) - (np.cumsum(sizes) - sizes)[rank[by_class]]
        return records.at(order[by_class[np.lexsort((rank[by_class], turn))]][:most])

    def folds(self, y: Labels) -> Splits:
        """Every class is spread over the folds. A class of one file is never held out: nothing else shows it."""
        fold = np.full(len(y), -1)
        dealt = 0
        for label in sorted(set(y)):
            (members,) = np.nonzero(y == label)
            if len(members) > 1:
                fold[members] = (np.arange(len(members)) + dealt) % _FOLDS
                dealt += len(members)
        return _splits(fold)

    def metrics(self, answers: Labels, y: Labels) -> dict[str, float]:
        classes = sorted({*answers.tolist(), *y.tolist()})
        number = {label: i for i, label in enumerate(classes)}
        scores = np.eye(len(classes), dtype=np.float32)[[number[answer] for answer in answers.tolist()]]
        targets = np.array([number[label] for label in y.tolist()])
        return {"top1": top_k(scores, targets, 1), "mean_class_accuracy": mean_class_accuracy(scores, targets)}


class _Numbers(_Question):
    metric = "r2"

    def label(self, record: Record) -> float:
        return float(record.labels[self.label_set][0])

    def members(self, kind: Kind) -> list[Member]:
        return REGRESSORS[kind]

    def subset(self, records: Sequence[Record], most: int) -> Records:
        """Up to ``most`` records, drawn by chance."""
        records = Records.of(records)
        return records.at(np.random.default_rng(0).permutation(len(records))[:most])

    def folds(self, y: Labels) -> Splits:
        return _splits(np.arange(len(y)) % _FOLDS)

    def metrics(self, answers: Labels, y: Labels) -> dict[str, float]:
        card = NumberCard(numbers=(self.label_set,), mean=(0.0,), std=(1.0,))
        (name,) = card.names
        return card.measure({name: answers[:, None]}, {name: y[:, None]})


def _splits(fold: NDArray[Any]) -> Splits:
    """Of each example's fold; -1 is in none."""
    count = 1 if len(fold) > _FOLDED else _FOLDS
    return [(np.flatnonzero(fold != i), np.flatnonzero(fold == i)) for i in range(count)]


def _read(
    records: Sequence[Record], features: Sequence[Feature], question: _Classes | _Numbers, stop: float
) -> tuple[dict[Feature, Floats], Labels]:
    """The features (N, D) and labels (N,) of the files that can be read, in order.

    After the time ``stop``, no more than the first 200 files are read. Threads are enough: decoding releases Python's
    lock, and processes would have to load torch again.
    """
    rows: list[list[Floats]] = []
    labels: list[Any] = []
    with ThreadPoolExecutor(cores()) as pool:
        for begin in range(0, len(records), 100):
            if begin >= _ALWAYS_READ and time.monotonic() > stop:
                break
            part = records[begin : begin + 100]
            for record, row in zip(part, pool.map(lambda record: _features(record, features), part), strict=True):
                if row is not None:
                    rows.append(row)
                    labels.append(question.label(record))
    matrices = {
        f: np.stack([row[i] for row in rows]) if rows else np.empty((0, 0), np.float32) for i, f in enumerate(features)
    }
    return matrices, np.array(labels)


def _features(record: Record, features: Sequence[Feature]) -> list[Floats] | None:
    """The features of one file, which is read once for all of them; None if it cannot be read."""
    if record.error:
        return None
    try:
        media = features[0].read(record)
    except MediaError:
        return None
    return [feature.compute(media) for feature in features]
