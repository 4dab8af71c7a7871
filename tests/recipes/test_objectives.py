"""What a task may learn beside classes: numbers, and an objective of one's own, from training to prediction."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

import tubelet
from tubelet.cards import Answers, NumberCard, TaskCard
from tubelet.cli import main
from tubelet.configs import ConfigError, convert, register, to_json
from tubelet.data.batch import Batch
from tubelet.data.labels import NumberLabels
from tubelet.data.manifest import LABEL, Manifest, Record, read_manifest, write_manifest
from tubelet.models import Model
from tubelet.models.model import Encoder
from tubelet.nn.heads import LinearHead
from tubelet.recipes.folder import folder
from tubelet.recipes.run import run
from tubelet.training.objectives import Objective
from tubelet.training.ranks import Ranks
from tubelet.training.regression import Regression
from zoo import ZOO


def pictures(path: Path, count: int = 60, sets: Sequence[str] = (LABEL,)) -> str:
    """A manifest of gray pictures, labeled with their brightness in per cent, and with what is left to white."""
    random = np.random.default_rng(0)
    path.mkdir()
    records: list[Record] = []
    for i in range(count):
        gray = random.uniform(10, 240)
        pixels = np.clip(random.normal(gray, 6, (16, 16, 1)), 0, 255).astype(np.uint8).repeat(3, 2)
        Image.fromarray(pixels).save(path / f"{i}.png")
        share = 100 * gray / 255
        labels = {name: (f"{value:.3f}",) for name, value in zip(sets, (share, 100 - share), strict=False)}
        split = "test" if i % 4 == 0 else "train"
        records.append(Record(str(path / f"{i}.png"), labels, split=split))
    write_manifest(path / "all.csv", records)
    return str(path / "all.csv")


def test_numbers_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = pictures(tmp_path / "data"), str(tmp_path / "run")
    words = ("--objective", "regression", "--epochs", "40", "--size", "32x1", "--training.workers", "0")
    assert not main(["train", "folder", data, "--out", out, *words])
    told = capsys.readouterr()
    assert "labeled with numbers: " in told.err
    assert "ridge regression" in told.out or "trees" in told.out or "neighbor" in told.out or "regression" in told.out

    task = json.loads(Path(out, "results.json").read_text())["tasks"]["folder"]
    assert task["kind"] == "numbers"
    assert task["metrics"]["r2"] > 0.8
    assert 0 < task["metrics"]["mae"] < 12
    assert task["baseline"]["metrics"].keys() == {"r2", "mae"}
    page = Path(out, "report.html").read_text()
    for said in ("Truth and answer", "Where it is farthest off", "simple regressors", "mean absolute error"):
        assert said in page, said
    assert "named right" not in page

    card = Path(out, "model", "README.md").read_text()
    assert "the number 'label': " in card
    files = [record.path for record in read_manifest(data).split("test")[:2]]
    truths = [float(record.labels[LABEL][0]) for record in read_manifest(data).split("test")[:2]]
    model = tubelet.load(out)
    answers = [prediction.numbers[LABEL] for prediction in model.predict(files)]
    assert answers == pytest.approx(truths, abs=15)
    capsys.readouterr()
    assert not main(["predict", out, *files, "--json"])
    said = json.loads(capsys.readouterr().out)
    assert [line["numbers"][LABEL] for line in said] == pytest.approx(answers, abs=1e-3)
    assert "labels" not in said[0]
    assert not main(["predict", out, files[0]])
    assert f"{answers[0]:.4g}" in capsys.readouterr().out

    scored = json.loads(Path(out, "predictions.jsonl").read_text().splitlines()[0])
    assert scored["numbers"][LABEL] == pytest.approx(answers[0], abs=1e-3)
    assert not main(["eval", out, "--ensemble", out, "--json"])
    both = json.loads(capsys.readouterr().out)["tasks"]["folder"]["metrics"]
    assert both == pytest.approx(task["metrics"], abs=1e-5)


def test_several_numbers(tmp_path: Path) -> None:
    data = pictures(tmp_path / "data", sets=("light", "dark"))
    made = folder(data, objective="regression", epochs=40, size="32x1", baseline=False)
    result = run(made, tmp_path / "run", progress=False)
    metrics = result.results["tasks"]["folder"]["metrics"]
    assert metrics.keys() == {"r2", "light_r2", "light_mae", "dark_r2", "dark_mae"}
    assert metrics["r2"] == pytest.approx((metrics["light_r2"] + metrics["dark_r2"]) / 2)
    assert metrics["r2"] > 0.8
    numbers = tubelet.load(tmp_path / "run").predict(str(tmp_path / "data" / "1.png")).numbers
    assert numbers["light"] + numbers["dark"] == pytest.approx(100, abs=15)


def test_micro_batches_of_numbers_add_up() -> None:
    objective = Regression(mean=(3.0,), std=(2.0,), loss="squared")
    encoder = ZOO["vit"].build()
    model = Model(encoder, {"t": objective.head(encoder)})
    nn.init.normal_(model.heads["t"].projection.weight)
    inputs = {"image": torch.randn(6, *ZOO["vit"].inputs["image"].shape)}
    batch = Batch("t", inputs, torch.randn(6, 1), [str(i) for i in range(6)])
    alone = Ranks(torch.device("cpu"))
    whole, logged = objective(model, batch, alone)
    parts = [objective(model, part, alone)[0] * len(part) / 6 for part in batch.split(4)]
    assert sum(parts).item() == pytest.approx(whole.item(), rel=1e-5)
    answers = model(inputs, "t") * 2 + 3
    assert logged["mae"].item() == pytest.approx((answers - batch.targets).abs().mean().item(), rel=1e-5)


def test_labels_that_are_no_numbers_are_named(tmp_path: Path) -> None:
    records = [Record("a.png", {LABEL: ("1.5",)}), Record("b.png", {LABEL: ("tall",)}), Record("c.png", {})]
    assert NumberLabels((LABEL,))(records[0]).tolist() == [1.5]
    with pytest.raises(ValueError, match=r"b\.png: 'tall' of 'label' is not one finite number"):
        NumberLabels((LABEL,)).check(records)
    with pytest.raises(ValueError, match=r"c\.png: '' of 'label'"):
        NumberLabels((LABEL,)).check([records[0], records[2]])
    with pytest.raises(ValueError, match="'nan' of 'label'"):
        NumberLabels((LABEL,))(Record("d.png", {LABEL: ("nan",)}))
    data = pictures(tmp_path / "same", 8)
    same = [replace(record, labels={LABEL: ("2",)}) for record in read_manifest(data).records]
    write_manifest(tmp_path / "same" / "two.csv", same)
    with pytest.raises(ConfigError, match="every training file has the same number 'label': 2"):
        folder(str(tmp_path / "same" / "two.csv"), objective="regression", epochs=1)
    with pytest.raises(ConfigError, match=r"no 'regresion'; did you mean 'regression'\?"):
        folder(data, objective="regresion", epochs=1)


def test_a_head_of_numbers_starts_from_ridge_regression() -> None:
    torch.manual_seed(0)
    encoder = ZOO["vit"].build()
    features = torch.randn(200, encoder.width)
    truth = features @ torch.randn(encoder.width, 2) * 3 + torch.tensor([50.0, -7.0])
    objective = Regression(numbers=("a", "b"), mean=(50.0, -7.0), std=(2.0, 4.0))
    head = objective.head(encoder)
    assert objective.linear_heads(head) == {"numbers": head}
    linear = objective.fit("numbers", features[:150], truth[:150], (features[150:], truth[150:]))
    assert linear is not None
    outputs = (features[150:] @ linear.weight.T + linear.bias).numpy()
    metrics = objective.card().measure({"numbers": outputs}, {"numbers": truth[150:].numpy()})
    assert metrics["r2"] > 0.999


@dataclass(frozen=True, kw_only=True)
class OrderCard(TaskCard):
    """One score per example, of which only the order means something."""

    @property
    def metric(self) -> str:
        return "pairs"

    @property
    def names(self) -> tuple[str, ...]:
        return ("score",)

    @property
    def label_sets(self) -> tuple[str, ...]:
        return (LABEL,)

    def head(self, encoder: Encoder) -> LinearHead:
        return LinearHead(encoder.width, 1, "lecun")

    def targets(self) -> NumberLabels:
        return NumberLabels(self.label_sets)

    def measure(self, outputs: Mapping[str, NDArray[Any]], targets: Mapping[str, NDArray[Any]]) -> dict[str, float]:
        """The share of pairs in the right order."""
        scores, truth = outputs["score"][:, 0], targets["score"][:, 0]
        differ = truth[:, None] > truth
        return {"pairs": float((scores[:, None] > scores)[differ].mean())}

    def standard_error(self, value: float, examples: int) -> float:
        return 1 / examples

    def answers(self, outputs: Mapping[str, NDArray[Any]], top: int) -> Answers:
        return Answers(numbers={"score": float(outputs["score"][0])})

    def averaged(self, members: Sequence[tuple[TaskCard, Mapping[str, NDArray[Any]]]]) -> dict[str, NDArray[Any]]:
        return {"score": np.mean([outputs["score"] for _, outputs in members], axis=0)}

    def describe(self) -> list[str]:
        return ["- a score that orders files"]


@dataclass(frozen=True, kw_only=True)
class Order(Objective):
    """Of every pair in a minibatch, the example with the larger number is to have the higher score."""

    summed = False
    by_class = False

    def resolved(self, manifest: Manifest, split: str) -> Order:
        return self

    def card(self, inputs: tuple[str, ...] = ()) -> OrderCard:
        return OrderCard(inputs=inputs)

    def __call__(self, model: Model, batch: Batch, ranks: Ranks) -> tuple[Tensor, dict[str, Tensor]]:
        scores, truth = model(model.preprocess(batch.inputs), batch.task)[:, 0], batch.targets[:, 0]
        first, second = (truth[:, None] > truth).nonzero(as_tuple=True)
        return nn.functional.softplus(scores[second] - scores[first]).sum() / max(1, len(first)), {}


@pytest.fixture
def order() -> Iterator[None]:
    """The objective and its card, registered as a plugin would, for one test."""
    register(Objective, "order", Order)
    register(TaskCard, "order", OrderCard)
    yield
    for base in (Objective, TaskCard):
        del convert._registered[base]["order"]


@pytest.mark.usefixtures("order")
def test_an_objective_of_ones_own_trains_by_the_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = pictures(tmp_path / "data"), tmp_path / "run"
    words = ("--objective", "order", "--epochs", "40", "--size", "32x1", "--training.workers", "0")
    assert not main(["train", "folder", data, "--out", str(out), *words])
    task = json.loads((out / "results.json").read_text())["tasks"]["folder"]
    assert (task["kind"], task["views"]) == ("order", "1x1")
    assert task["metrics"]["pairs"] > 0.9
    assert (out / "report.html").exists()
    assert "a score that orders files" in (out / "model" / "README.md").read_text()

    model, test = tubelet.load(out), read_manifest(data).split("test")
    scores = [model.predict(record.path).numbers["score"] for record in test]
    darkest, brightest = np.argsort([float(record.labels[LABEL][0]) for record in test])[[0, -1]]
    assert scores[brightest] > scores[darkest]
    capsys.readouterr()
    assert not main(["eval", str(out), "--json"])
    assert json.loads(capsys.readouterr().out)["tasks"]["folder"]["metrics"] == pytest.approx(task["metrics"])
    assert main(["train", "folder", data, "--out", str(tmp_path / "b"), *words, "--training.micro-batches", "2"]) == 2
    assert "needs all examples of a minibatch at once" in capsys.readouterr().err


@pytest.mark.usefixtures("order")
def test_a_task_says_which_objective_it_has() -> None:
    assert to_json(Order(), Objective) == {"kind": "order"}
    assert to_json(NumberCard(numbers=("a",), mean=(0.0,), std=(1.0,)), TaskCard)["kind"] == "numbers"
