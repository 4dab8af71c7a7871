"""VATT's linear evaluation: what its two classifiers are fitted to, and that what is kept answers as they do."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from probe_toys import COLORS, VIVIT, save_tiny, write_media
from tubelet.data.augment import Augmentation
from tubelet.data.labels import ClassLabels
from tubelet.data.manifest import read_manifest
from tubelet.data.views import Views
from tubelet.inference.predictor import load
from tubelet.nn.features import Features
from tubelet.nn.heads import LinearHead, MultiHead
from tubelet.probing.classifiers import LowRankHead, fit_least_squares, fit_svm
from tubelet.probing.data import ProbeData, read_examples
from tubelet.probing.encoder import CachedFeatures
from tubelet.probing.features import DrawnViews, head_scores, mean_probabilities
from tubelet.probing.probe import probe
from tubelet.probing.training import ProbeOptions, settings_for


def features(targets: torch.Tensor | dict[str, torch.Tensor], views: int = 3, width: int = 6) -> CachedFeatures:
    count = len(next(iter(targets.values()))) if isinstance(targets, dict) else len(targets)
    pooled = 5 * torch.randn(count, views, width, generator=torch.Generator().manual_seed(0)) + 2
    pooled[:, :, -1] = 1.0  # says nothing
    return CachedFeatures(pooled, targets, tuple(map(str, range(count))), Views(views))


@pytest.mark.parametrize("classes", [2, 4])
def test_the_svm_is_scikit_learns_on_standardized_features_of_all_views(classes: int) -> None:
    cached = features(torch.arange(40) % classes)
    x = cached.pooled.flatten(0, 1).numpy()
    scaler = StandardScaler().fit(x)
    theirs = LinearSVC(C=0.01, random_state=0).fit(scaler.transform(x), np.arange(40).repeat(3) % classes)
    expected = theirs.decision_function(scaler.transform(x))
    ours = head_scores(fit_svm(cached, {"label": classes}, 0.01), cached)["label"].flatten(0, 1).numpy()
    if classes == 2:
        ours = ours[:, 1]
    np.testing.assert_allclose(ours, expected, atol=1e-3)


def test_the_svm_takes_classes_without_examples_several_labels_and_several_sets() -> None:
    absent = fit_svm(features(torch.arange(20) % 2 * 2), {"label": 4}, 0.01)
    assert isinstance(absent, LinearHead)
    assert absent.projection.weight[1].abs().sum() == 0 == absent.projection.weight[3].abs().sum()
    one = fit_svm(features(torch.full((5,), 1)), {"label": 3}, 0.01)
    assert head_scores(one, features(torch.zeros(2)))["label"].argmax(-1).unique().tolist() == [1]
    hot = torch.tensor([[1.0, 0, 1], [0, 0, 1], [1, 0, 1], [0, 0, 1]])
    several = head_scores(fit_svm(features(hot), {"label": 3}, 1.0), features(hot))["label"].mean(1)
    assert (several[:, 1] == -1).all()
    assert (several[:, 2] == 1).all()
    sets = {"verb": torch.arange(12) % 2, "noun": torch.arange(12) % 3}
    assert isinstance(fit_svm(features(sets), {"verb": 2, "noun": 3}, 1.0), MultiHead)


def test_the_low_rank_classifier_is_one_linear_map_and_drops_nine_in_ten() -> None:
    torch.manual_seed(0)
    head = LowRankHead(16, 5)
    with torch.no_grad():
        for layer in (head.components, head.projection):
            layer.bias.normal_()
    pooled = torch.randn(7, 16)
    seen = Features(pooled[:, None], pooled)
    torch.testing.assert_close(head.product()(seen), head.eval()(seen))
    kept = head.train().dropout(torch.ones(1000, 128))
    assert (kept > 0).float().mean().item() == pytest.approx(0.1, abs=0.01)
    assert kept.max() == pytest.approx(10.0)


@pytest.mark.parametrize("count", [12, 60])
def test_least_squares_are_scikit_learns_ridge_of_plus_and_minus_one(count: int) -> None:
    """With more features than examples, and fewer; in both the penalty hardly touches the bias."""
    classes, width = 3, 20
    cached = features(torch.arange(count) % classes, views=1, width=width)
    x = StandardScaler().fit_transform(cached.pooled[:, 0, :-1].numpy())
    y = 2 * np.eye(classes)[np.arange(count) % classes] - 1
    expected = Ridge(alpha=8.0).fit(x, y).predict(x)
    ours = head_scores(fit_least_squares(cached, {"label": classes}, 8.0), cached)["label"][:, 0].numpy()
    np.testing.assert_allclose(ours, expected, atol=1e-3)


def test_few_shots_are_so_many_of_each_class_and_among_those_of_more(videos: Path) -> None:
    examples = read_examples(ProbeData(path=str(videos)))
    two, three = ({r.key for r in examples.few(shots, seed=0).train} for shots in (2, 3))
    assert two < three
    assert Counter(r.labels["label"][0] for r in examples.few(2, 0).train) == dict.fromkeys(COLORS, 2)
    assert two != {r.key for r in examples.few(2, seed=1).train}
    assert examples.few(9, 0).notes[-1] == "3 of 3 classes have fewer than 9 training examples"


def test_probabilities_are_averaged_over_views() -> None:
    logits = torch.randn(4, 3, 5)
    torch.testing.assert_close(mean_probabilities(logits).exp(), logits.softmax(-1).mean(1))
    torch.testing.assert_close(mean_probabilities(logits, several=True).exp(), logits.sigmoid().mean(1))


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    return write_media(folder, {"train": 5, "val": 2}, video=True, broken=["train", "val"])


@pytest.fixture(scope="module")
def vivit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / "vivit", VIVIT)


def test_passes_draw_other_views_of_the_same_examples(videos: Path) -> None:
    records = read_manifest(videos).split("val")
    drawn = DrawnViews(records, ClassLabels(COLORS), VIVIT.inputs, Augmentation(color=0.0), passes=4)
    first = drawn.example(0)
    assert first.inputs["video"].shape == (4, 4, 3, 16, 16)  # pyright: ignore[reportAttributeAccessIssue]
    views = list(first.inputs["video"])  # pyright: ignore[reportAttributeAccessIssue]
    assert not all(torch.equal(view, views[0]) for view in views)
    assert drawn.example(6).path.endswith("val_broken.mp4")  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("options", "method", "views", "rate"),
    [
        (ProbeOptions(classifier="low-rank", steps=150, workers=0), "low-rank, cached features", "4x1", 5e-4),
        (ProbeOptions(classifier="svm", workers=0), "SVM, cached features (C = 0.001)", "10x1", None),
        (ProbeOptions(classifier="svm", rates=(0.001, 1.0), workers=0, augment=False), "SVM", "10x1", None),
        (ProbeOptions(classifier="few-shot", shots=6, workers=0), "6-shot least squares, cached", "4x1", None),
    ],
)
def test_a_probe_by_either_keeps_a_model_that_predicts(
    options: ProbeOptions, method: str, views: str, rate: float | None, videos: Path, vivit: Path, tmp_path: Path
) -> None:
    found = probe(vivit, videos, tmp_path / "out", options=options, progress=False)
    (row,) = found.rows
    assert row.method.startswith(method)
    assert (row.views, row.learning_rate, row.scored, row.expected, row.train) == (views, rate, 6, 7, 15)
    assert row.value == 1.0
    assert [file["split"] for file in found.unreadable] == ["train", "val"]
    assert not any("departure" in note for note in found.notes)
    assert len(found.validation) == len(options.rates)
    said = load(tmp_path / "out" / "final").predict(videos.parent / "val_green_0.mp4", views="2x1")
    assert said.labels[0].label == "green"


def test_settings_are_the_released_ones_as_far_as_the_input_has_them() -> None:
    low_rank = settings_for("video", 10_000, ProbeOptions(classifier="low-rank"))
    assert (low_rank.length.epochs, low_rank.batch_size, low_rank.rates, str(low_rank.views)) == (
        1000, 64, (5e-4,), "4x1",
    )  # fmt: skip
    svm = settings_for("audio", 10_000, ProbeOptions(classifier="svm"))
    assert (svm.passes, svm.rates, str(svm.views)) == (10, (0.001,), "10x1")
    image = settings_for("image", 10_000, ProbeOptions(classifier="svm"))
    assert (image.passes, str(image.views), image.augments) == (1, "1x1", False)
    with pytest.raises(ValueError, match="neither steps nor a batch size"):
        ProbeOptions(classifier="svm", steps=3)
    with pytest.raises(ValueError, match="shots=5 are of the classifier"):
        ProbeOptions(shots=5)
