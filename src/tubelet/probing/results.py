"""What probes found, and the tables that tell it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.table import Table

from tubelet.data.kinds import Kind

METRICS = {"top1": "top-1", "map": "mAP", "action_top1": "action top-1"}


@dataclass(frozen=True, kw_only=True)
class ProbeRow:
    """One number and what is behind it.

    ``method``: "linear, trained on files", "linear, cached features" or "k-NN". ``learning_rate``: None for k-NN.
    ``metric``: the one of ``metrics`` (fractions in [0, 1]) that is reported first. ``train``: training examples, those
    that could not be read left out; ``scored`` of ``expected`` test examples.
    """

    dataset: str
    modality: Kind
    method: str
    learning_rate: float | None
    metric: str
    metrics: dict[str, float]
    views: str
    scored: int
    expected: int
    train: int

    @property
    def value(self) -> float:
        return self.metrics[self.metric]

    def cells(self) -> tuple[str, ...]:
        """The row as text, for :data:`COLUMNS`."""
        rate = "-" if self.learning_rate is None else f"{self.learning_rate:g}"
        value = f"{self.value:.1%}"
        sizes = f"{self.train:,}", f"{self.scored:,} / {self.expected:,}"
        return self.dataset, self.modality, self.method, rate, METRICS[self.metric], value, self.views, *sizes


COLUMNS = ("dataset", "modality", "method", "rate", "metric", "value", "views", "train", "test: scored")


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A model probed on a data set.

    ``settings``: how it was trained, a sentence. ``validation``: what every learning rate reached on the validation
    examples, where there was a choice. ``notes``: what a person should know, the conversion of a modality included.
    ``unreadable``: split, path, time and reason of each file that could not be read; None of them was replaced in a
    number.
    """

    source: str
    rows: tuple[ProbeRow, ...]
    settings: str
    validation: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    unreadable: tuple[dict[str, Any], ...] = ()

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def comparison(probes: Mapping[str, Mapping[str, Probe]]) -> Table:
    """Models down, data sets across, images, video and audio in turn: the form of PolyViT's Table 3, in per cent."""
    order = ("image", "video", "audio")
    rows = {
        (model, row.method, name): row
        for model, by_name in probes.items()
        for name, probe in by_name.items()
        for row in probe.rows
    }
    modalities = {name: row.modality for (_, _, name), row in rows.items()}
    names = sorted(modalities, key=lambda name: order.index(modalities[name]))
    table = Table("model", "method", box=None, pad_edge=False)
    for name in names:
        table.add_column(f"{name}\n({modalities[name]})", justify="right")
    for model, method in dict.fromkeys((model, method) for model, method, _ in rows):
        found = [rows.get((model, method, name)) for name in names]
        table.add_row(model, method, *(f"{100 * row.value:.1f}" if row else "-" for row in found))
    return table
