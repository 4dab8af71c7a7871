"""Labels to targets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tubelet.data.batch import Targets
from tubelet.data.records import LABEL, Record, Records

Classes = tuple[str, ...] | dict[str, tuple[str, ...]]
"""The names of classes in the order of the logits, by label set where there are several or one is not "label"."""


@runtime_checkable
class Labels(Protocol):
    """A record's labels as what a loss compares with. Both raise ValueError for a record that has no such target."""

    def __call__(self, record: Record) -> Targets | None: ...

    def check(self, records: Sequence[Record]) -> None:
        """As a call does, for the first of the records that has no target."""
        ...


class ClassLabels:
    """The class index (), or with ``several`` labels a multi-hot row (K,); a dict of them for several label sets."""

    def __init__(self, classes: Sequence[str] | Mapping[str, Sequence[str]], several: bool = False) -> None:
        by_set = classes if isinstance(classes, Mapping) else {LABEL: classes}
        self.indices = {name: {label: i for i, label in enumerate(labels)} for name, labels in by_set.items()}
        self.several = several

    def __call__(self, record: Record) -> Targets:
        """Raises ValueError where a label is missing or none of the classes, or one label too many."""
        targets = {name: self._target(record, name) for name in self.indices}
        return targets if len(targets) > 1 else next(iter(targets.values()))

    def check(self, records: Sequence[Record]) -> None:
        """Raises ValueError as a call does, for the first of the records that has no target."""
        records = Records.of(records)
        for name, known in self.indices.items():
            labels = records.labels(name)
            strange = [code for code, label in enumerate(labels.names) if label not in known]
            wrong = labels.owners()[np.isin(labels.codes, strange)]
            several = np.flatnonzero(labels.counts != 1) if not self.several else wrong
            if len(wrong) or len(several):
                self(records[int(min([*wrong[:1], *several[:1]]))])

    def _target(self, record: Record, name: str) -> Tensor:
        known, labels = self.indices[name], record.labels.get(name, ())
        if unknown := [label for label in labels if label not in known]:
            raise ValueError(f"{record.name}: {unknown[0]!r} is none of the {len(known)} classes of {name!r}")
        if self.several:
            target = torch.zeros(len(known))
            target[[known[label] for label in labels]] = 1
            return target
        if len(labels) != 1:
            raise ValueError(
                f"{record.name}: {len(labels)} labels of {name!r} where one is needed; examples with any "
                'number of labels need an objective with labels="several"'
            )
        return torch.tensor(known[labels[0]])


class NumberLabels:
    """The numbers (n,) that a record has in n label sets."""

    def __init__(self, numbers: Sequence[str]) -> None:
        self.numbers = tuple(numbers)

    def __call__(self, record: Record) -> Float[Tensor, " n"]:
        """Raises ValueError where a label is missing or no number."""
        return torch.tensor([self._number(record, name) for name in self.numbers])

    def check(self, records: Sequence[Record]) -> None:
        """Raises ValueError as a call does, for the first of the records that has no target."""
        records = Records.of(records)
        for name in self.numbers:
            labels = records.labels(name)
            strange = [code for code, label in enumerate(labels.names) if _number(label) is None]
            wrong = labels.owners()[np.isin(labels.codes, strange)]
            odd = np.flatnonzero(labels.counts != 1)
            if len(wrong) or len(odd):
                self(records[int(min([*wrong[:1], *odd[:1]]))])

    def _number(self, record: Record, name: str) -> float:
        labels = record.labels.get(name, ())
        value = _number(labels[0]) if len(labels) == 1 else None
        if value is None:
            given = ";".join(labels)
            raise ValueError(f"{record.name}: {given!r} of {name!r} is not one finite number, as regression needs")
        return value


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
