"""Cached features, and what classifies them: what a person relies on is that they are the encoder's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from probe_toys import COLORS, POLYVIT, VIVIT, save_tiny, write_media
from tubelet.data.dataset import ViewSet
from tubelet.data.labels import ClassLabels
from tubelet.data.manifest import read_manifest
from tubelet.data.views import Views
from tubelet.metrics import top_k
from tubelet.nn.heads import LinearHead
from tubelet.probing.encoder import CachedFeatures, cache_features
from tubelet.probing.features import head_scores, mean_votes, neighbor_votes, score
from tubelet.training.classification import Classification
from tubelet.weights.folder import load_model

OBJECTIVE = Classification(classes=COLORS)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    return read_manifest(write_media(tmp_path_factory.mktemp("videos"), {"val": 2}, video=True, broken=["val"]))


def random_features(examples, views, width=8, classes=4, seed=0, overlap=0.0):
    draw = torch.Generator().manual_seed(seed)
    targets = torch.arange(examples) % classes
    centers = torch.randn(classes, width, generator=torch.Generator().manual_seed(9))
    noise = torch.randn(examples, len(views), width, generator=draw)
    return CachedFeatures(centers[targets][:, None] + overlap * noise, targets, tuple(map(str, range(examples))), views)


@pytest.mark.parametrize("config", [VIVIT, POLYVIT])
def test_cached_features_are_the_encoders_on_every_view(config, videos, tmp_path):
    model = load_model(save_tiny(tmp_path / "model", config)).model
    specs, views = {"video": config.inputs["video"]}, Views(clips=2, crops=3)
    examples = ViewSet(videos.records, ClassLabels(COLORS), specs, views)
    cached = cache_features(model.encoder, examples, features_per_forward=4)
    assert cached.pooled.shape == (6, 6, 32)
    assert [error.path.rpartition("/")[2] for error in cached.errors] == ["val_broken.mp4"]
    model.eval()
    for row in range(6):
        example = examples.example(row)
        with torch.no_grad():
            expected = model.encoder(model.preprocess(example.inputs)).pooled
        torch.testing.assert_close(cached.pooled[row], expected, rtol=1e-4, atol=1e-5)
        assert cached.keys[row] == example.key
        assert cached.targets[row] == example.target


def test_examples_are_chosen_by_key(videos):
    cached = random_features(5, Views())
    some = cached.of(["3", "gone", "1"])
    assert some.keys == ("3", "1")
    assert torch.equal(some.pooled, cached.pooled[[3, 1]])
    assert torch.equal(some.targets, cached.targets[[3, 1]])


@pytest.mark.parametrize("k", [1, 5, 20])
def test_neighbors_vote_as_in_scikit_learn(k):
    train = random_features(60, Views(), overlap=1.5)
    test = random_features(30, Views(clips=3), overlap=1.5, seed=1)
    theirs = KNeighborsClassifier(k, metric="cosine", weights=lambda d: np.exp((1 - d) / 0.07))
    theirs.fit(train.pooled[:, 0].numpy(), train.targets.numpy())
    expected = theirs.predict_proba(test.pooled.flatten(0, 1).numpy()).reshape(30, 3, 4)
    votes = neighbor_votes(train, test, {"label": 4}, k=k)["label"]
    torch.testing.assert_close(votes, torch.from_numpy(expected).float(), rtol=1e-3, atol=1e-4)
    result = score({"label": votes}, test, mean_votes)
    assert result.metrics["top1"] == pytest.approx(top_k(expected.mean(1), test.targets.numpy(), 1))
    assert 0.5 < result.metrics["top1"] < 1
    assert result.views == "3x1"


def test_fewer_examples_than_neighbors_all_vote():
    train, test = random_features(8, Views()), random_features(4, Views(), seed=1, overlap=0.1)
    assert score(neighbor_votes(train, test, {"label": 4}, k=20), test, mean_votes).metrics["top1"] == 1


def test_logits_are_averaged_over_the_views_and_the_middle_one_told_apart():
    test = random_features(12, Views(clips=2, crops=3), overlap=3.0)
    torch.manual_seed(0)
    head = LinearHead(8, 4, init="lecun")
    logits = head_scores(head, test)["label"]
    torch.testing.assert_close(logits, head.projection(test.pooled).detach())
    result = score({"label": logits}, test)
    assert result.metrics["top1"] == top_k(logits.mean(1).numpy(), test.targets.numpy(), 1)
    assert result.single_view["top1"] == top_k(logits[:, 1].numpy(), test.targets.numpy(), 1)


def test_several_labels_and_several_label_sets_are_measured_too():
    views = Views()
    pooled = torch.eye(4)[:, None]
    several = CachedFeatures(pooled, torch.tensor([[1.0, 0], [0, 1], [1, 1], [0, 0]]), tuple("abcd"), views)
    votes = neighbor_votes(several, several, {"label": 2}, k=1)
    assert score(votes, several, mean_votes).metrics["map"] == 1
    pairs = CachedFeatures(
        pooled, {"verb": torch.tensor([0, 1, 0, 1]), "noun": torch.tensor([0, 0, 1, 2])}, tuple("abcd"), views
    )
    votes = neighbor_votes(pairs, pairs, {"verb": 2, "noun": 3}, k=1)
    assert score(votes, pairs, mean_votes).metrics["action_top1"] == 1
