"""How few labeled examples pretrained weights need: 1, 5 and 20 of each class, beside simple classifiers.

    python benchmarks/few_examples.py stamps clipart --init WEIGHTS --root data/folder

For each data set of folder_data.py: logistic regression on the features of the frozen encoder, which is what
``tubelet train folder --init`` begins with, and the simple classifiers of that recipe, fitted to the same examples, the
best by cross-validation. Top-1 on all test files: the mean over the splits, the lowest and the highest. For every split
other training examples are drawn; a class with fewer gives all that it has. With one example of each class nothing is
left to choose by, and the first simple classifier of the panel stands for all.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from random import Random
from statistics import mean

import torch
from folder_data import DATA_SETS, prepare
from rich.progress import track
from torch import Tensor

import tubelet
from tubelet.data.manifest import Record
from tubelet.evaluation.baselines import fit_baselines
from tubelet.recipes.folder.data import DatasetSummary, inspect
from tubelet.recipes.folder.model import Start, choose_model
from tubelet.training.classification import fit_linear
from tubelet.weights.folder import save_model
from tubelet.weights.loaded import build_model
from tubelet.weights.transfer import Init, initialize


def label_of(record: Record) -> str:
    (label,) = record.labels["label"]
    return label


def features(seen: DatasetSummary, records: Sequence[Record], init: str, size: str) -> dict[str, Tensor]:
    """The pooled features (D,) of each file, by path, before any training."""
    config, _ = choose_model([seen], Start.read(init), size)
    model = build_model(config, {})
    initialize(model, config, [Init(source=init)])
    with tempfile.TemporaryDirectory() as folder:
        save_model(folder, model, config, {})
        started = tubelet.load(folder)
        return {r.path: started.embed(r.path) for r in track(records, f"features of {Path(seen.path).name}")}


def drawn(records: Sequence[Record], count: int, split: int) -> list[Record]:
    """``count`` examples of each class."""
    by_class = defaultdict[str, list[Record]](list)
    for record in records:
        by_class[label_of(record)].append(record)
    chance = Random(f"{count} {split}")
    return [
        record
        for label in sorted(by_class)
        for record in chance.sample(by_class[label], min(count, len(by_class[label])))
    ]


def linear(found: dict[str, Tensor], train: Sequence[Record], test: Sequence[Record]) -> float:
    """Top-1 of logistic regression on the features."""
    classes = sorted({label_of(record) for record in train})
    number = {name: i for i, name in enumerate(classes)}
    fitted = fit_linear(
        torch.stack([found[r.path] for r in train]), torch.tensor([number[label_of(r)] for r in train]), len(classes)
    )
    assert fitted is not None
    answers = (torch.stack([found[r.path] for r in test]) @ fitted.weight.T + fitted.bias).argmax(-1).tolist()
    return mean(classes[answer] == label_of(record) for answer, record in zip(answers, test, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", metavar="NAME", help=", ".join(DATA_SETS))
    parser.add_argument("--init", required=True, help="weights: whatever `tubelet train folder --init` takes")
    parser.add_argument("--size", default="112", help="short side of pictures and clips in pixels")
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 5, 20], help="training examples of each class")
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--root", type=Path, default=Path("data/folder"), help="where the data are prepared")
    asked = parser.parse_args()
    print("| data set | of each class | frozen features: top-1 | simple classifiers: top-1 |\n|---|---|---|---|")
    for name in asked.names:
        seen, _ = inspect(str(prepare(name, asked.root)))
        pool, test = [*seen.train, *seen.validating], list(seen.testing)
        found = features(seen, [*pool, *test], asked.init, asked.size)
        for count in asked.counts:
            splits = [drawn(pool, count, split) for split in range(asked.splits)]
            ours = [linear(found, train, test) for train in splits]
            simple = [fit_baselines(seen.kind, train, [], test).metrics["top1"] for train in splits]
            print(f"| {name} | {count} | {shown(ours)} | {shown(simple)} |", flush=True)


def shown(values: Sequence[float]) -> str:
    return f"{mean(values):.1%} ({min(values):.1%} to {max(values):.1%})"


if __name__ == "__main__":
    main()
