"""Labels to targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from tubelet.data.batch import Targets
from tubelet.data.records import LABEL, Record, Records

Classes = Sequence[str] | Mapping[str, Sequence[str]]


class TargetEncoder:
    """A record's labels as numbers: the class index (), or with ``several`` labels a multi-hot row (K,).

    ``classes``: the names in the order of the logits, by label set; a dict of targets where there are several sets.
    Names alone are those of the set "label"; without any names there are no targets.
    """

    def __init__(self, classes: Classes, several: bool = False) -> None:
        by_set = classes if isinstance(classes, Mapping) else {LABEL: classes} if classes else {}
        self.indices = {name: {label: i for i, label in enumerate(labels)} for name, labels in by_set.items()}
        self.several = several

    def __call__(self, record: Record) -> Targets | None:
        """Raises ValueError where a label is missing or none of the classes, or one label too many."""
        targets = {name: self._target(record, name) for name in self.indices}
        return targets if len(targets) > 1 else next(iter(targets.values()), None)

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
            raise ValueError(
                f"{record.key or record.path}: {unknown[0]!r} is none of the {len(known)} classes of {name!r}"
            )
        if self.several:
            target = torch.zeros(len(known))
            target[[known[label] for label in labels]] = 1
            return target
        if len(labels) != 1:
            raise ValueError(
                f"{record.key or record.path}: {len(labels)} labels of {name!r} where one is needed; examples with any "
                'number of labels need an objective with labels="several"'
            )
        return torch.tensor(known[labels[0]])
