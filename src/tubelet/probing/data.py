"""The data of a probe: the splits of a data set, its classes, and the examples held out for validation."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal
from zlib import crc32

from tubelet.data.kinds import Kind, kind_of
from tubelet.data.labels import Classes
from tubelet.data.manifest import LABEL, Manifest, ManifestError, Record, read_manifest, write_manifest
from tubelet.seeds import mix
from tubelet.training.classification import Classification
from tubelet.training.experiment import Source

TRAIN = "train"
_CHOOSING, _FIT, _VALIDATION = "choosing.jsonl", "fit", "validation"
_FEWEST, _MOST = 20, 0.2  # validation examples at least, but no more than this share of the training set
_ORDER = 5  # keeps the order that picks validation examples apart from other random numbers of a seed


@dataclass(frozen=True, kw_only=True)
class ProbeData:
    """A data set to probe on: a manifest or a folder of class folders.

    ``input``: which input of the model the files give, "image", "video" or "audio"; empty: by the files' names (the
    sound of videos must be asked for). ``test``: the test split; empty: "test" or else "val". ``name``: in tables;
    empty: the file's or folder's.
    """

    path: str
    input: Literal["", "image", "video", "audio"] = ""
    test: str = ""
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class ProbeExamples:
    """The examples of a data set. ``validation``: its own validation split, if it has one besides train and test.

    ``objective``: has the classes of the training split. ``notes``: what a person should know about the data.
    """

    name: str
    path: str
    modality: Kind
    train: tuple[Record, ...]
    validation: tuple[Record, ...]
    test: tuple[Record, ...]
    test_split: str
    objective: Classification
    notes: tuple[str, ...] = ()

    def for_choosing(self, share: float, seed: int) -> tuple[tuple[Record, ...], tuple[Record, ...], str]:
        """The examples to try a learning rate on, those to choose it by, and a sentence about the latter.

        The choice is by the data set's own validation split, or by ``share`` of the training set (PolyViT App. D: 2 %),
        but at least 20 examples, or a fifth of a training set of fewer than 100. They come first in an order drawn from
        the seed and each example's key.
        """
        if self.validation:
            return self.train, self.validation, f"{len(self.validation):,} examples of the split 'val'"
        count = max(round(share * len(self.train)), min(_FEWEST, round(_MOST * len(self.train))), 1)
        if count >= len(self.train):
            raise ManifestError(
                self.path, None, f"{len(self.train)} training examples are too few to keep some for validation"
            )
        kept = {record.key for record in self._shuffled(seed)[:count]}
        fit = tuple(record for record in self.train if record.key not in kept)
        chosen_by = tuple(record for record in self.train if record.key in kept)
        told = f"{count:,} of the {len(self.train):,} training examples, drawn by seed {seed}"
        return fit, chosen_by, told

    def few(self, shots: int, seed: int) -> ProbeExamples:
        """With ``shots`` training examples of each class, the first in an order drawn from the seed; so those of fewer
        shots are among those of more. Raises ManifestError where examples have no label or several."""
        label_set, *others = self.objective.label_sets
        if others or self.objective.labels == "several":
            raise ManifestError(self.path, None, "few-shot probes need one label for each example, of a single set")
        found: dict[str, list[Record]] = {}
        for record in self._shuffled(seed):
            found.setdefault(record.labels[label_set][0], []).append(record)
        kept = {record.key for records in found.values() for record in records[:shots]}
        fewer = sum(len(records) < shots for records in found.values())
        note = f"{fewer} of {len(found)} classes have fewer than {shots} training examples"
        train = tuple(record for record in self.train if record.key in kept)
        return replace(self, train=train, notes=(*self.notes, note) if fewer else self.notes)

    def _shuffled(self, seed: int) -> list[Record]:
        return sorted(self.train, key=lambda record: (mix(seed, _ORDER, crc32(record.key.encode())), record.key))


def read_examples(data: ProbeData) -> ProbeExamples:
    """Read a data set's splits and classes. Raises ManifestError where a split or a label that is needed is missing."""
    manifest = read_manifest(data.path)
    test_split = data.test or _test_split(manifest)
    train = tuple(record for record in manifest.split(TRAIN) if not record.error)
    test = manifest.split(test_split)
    validation = manifest.split("val") if "val" in manifest.splits and test_split != "val" else ()
    if not train:
        raise ManifestError(manifest.path, None, "the index could read none of the training examples")
    objective = _objective(manifest, [*train, *validation, *test])
    notes = [*manifest.notes]
    for name in objective.label_sets:
        notes += _check_labels(manifest, name, train, [*validation, *test], test, test_split)
    if unread := len(manifest.split(TRAIN)) - len(train):
        notes.append(f"{unread} training examples that the index could not read are left out")
    return ProbeExamples(
        name=data_name(data),
        path=data.path,
        modality=data.input or kind_of(train),
        train=train,
        validation=tuple(record for record in validation if not record.error),
        test=tuple(test),
        test_split=test_split,
        objective=objective,
        notes=tuple(notes),
    )


def _test_split(manifest: Manifest) -> str:
    found = next((name for name in ("test", "val") if name in manifest.splits), None)
    if found is None:
        named = ", ".join(repr(name) for name in manifest.splits if name) or "none"
        raise ManifestError(
            manifest.path,
            None,
            f"a probe is tested on examples that it did not learn from, and there is no split 'test' or 'val' (splits: "
            f"{named}); write one in the column 'split', lay out folders train and val, or say which it is (--test)",
        )
    return found


def data_name(data: ProbeData) -> str:
    """The name of a data set: its own, its file's or its folder's, in letters, digits and underscores."""
    path = Path(data.path).absolute()
    nameless = path.stem in ("manifest", "index", "all")
    return re.sub(r"\W+", "_", data.name or (path.parent.name if nameless else path.stem))


def _objective(manifest: Manifest, records: Sequence[Record]) -> Classification:
    """Softmax if every example has one label (of each set), sigmoids if it may have any number."""
    sets = manifest.label_sets
    classes: Classes = {name: manifest.classes(name, TRAIN) for name in sets}
    if sets == (LABEL,):
        classes = classes[LABEL]
        if any(len(record.labels.get(LABEL, ())) != 1 for record in records):
            return Classification(classes=classes, labels="several", loss="sigmoid")
    return Classification(label_sets=sets or (LABEL,), classes=classes or manifest.classes())


def _check_labels(
    manifest: Manifest,
    label_set: str,
    train: Sequence[Record],
    other: Sequence[Record],
    test: Sequence[Record],
    split: str,
) -> list[str]:
    known, tested = _labels(train, label_set), _labels(test, label_set)
    if len(known) < 2:
        raise ManifestError(manifest.path, None, f"a probe needs at least two classes; train has {_listed(known)}")
    if new := [label for label in _labels(other, label_set) if label not in known]:
        raise ManifestError(
            manifest.path,
            None,
            f"{_listed(new)}: no training example shows it, so no head can learn it; move examples of it to "
            f"{TRAIN!r}, or take it out of the other splits",
        )
    if absent := [label for label in known if label not in tested]:
        return [f"{len(absent)} of {len(known)} classes have no example in {split!r}, untested: {_listed(absent)}"]
    return []


def _labels(records: Sequence[Record], label_set: str) -> list[str]:
    return sorted({label for record in records for label in record.labels.get(label_set, ())})


def _listed(names: Sequence[str]) -> str:
    return ", ".join([repr(name) for name in names[:5]] + (["..."] if len(names) > 5 else [])) or "none"


def choosing_source(folder: Path, fit: Sequence[Record], validation: Sequence[Record]) -> Source:
    """What the runs that try a learning rate train and score on: a manifest of training examples alone, which this
    writes into ``folder``."""
    manifest = folder / _CHOOSING
    write_manifest(manifest, [*_absolute(fit, _FIT), *_absolute(validation, _VALIDATION)])
    return Source(path=str(manifest), train=_FIT, test=_VALIDATION)


def _absolute(records: Sequence[Record], split: str) -> list[Record]:
    """The records with absolute paths, in the split ``split``, for a manifest elsewhere."""
    return [replace(record, path=str(Path(record.path).absolute()), split=split) for record in records]
