"""Metrics against hand-made cases, scikit-learn and their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, balanced_accuracy_score, top_k_accuracy_score

from tubelet import metrics
from tubelet.metrics import softmax


@pytest.fixture
def scores() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(97, 11)).astype(np.float32)


@pytest.fixture
def targets() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 11, size=97)


@pytest.mark.parametrize("k", [1, 3, 5, 11])
def test_top_k_equals_scikit_learn(scores, targets, k):
    expected = top_k_accuracy_score(targets, scores, k=k, labels=range(11)) if k < 11 else 1.0
    assert metrics.top_k(scores, targets, k) == pytest.approx(expected)


def test_constant_scores_are_at_chance():
    targets = np.repeat(np.arange(8), 5)
    assert metrics.top_k(np.zeros((40, 8)), targets, 1) == 1 / 8


def test_mean_class_accuracy_weighs_classes_equally(scores, targets):
    targets[targets == 3] = 4
    expected = np.mean([(scores.argmax(1) == targets)[targets == c].mean() for c in np.unique(targets)])
    assert metrics.mean_class_accuracy(scores, targets) == pytest.approx(expected)
    assert metrics.mean_class_accuracy(scores[:, :3], targets % 3) == pytest.approx(
        balanced_accuracy_score(targets % 3, scores[:, :3].argmax(1))
    )


def test_map_leaves_out_classes_without_positives_and_says_so(scores):
    targets = (np.random.default_rng(2).random((97, 11)) < 0.2).astype(np.float32)
    targets[:, 5] = 0
    values = metrics.average_precisions(scores, targets)
    assert np.isnan(values[5])
    assert np.isfinite(np.delete(values, 5)).all()
    result = metrics.multi_label(scores, targets)
    kept = [c for c in range(11) if c != 5]
    assert result["map"] == pytest.approx(average_precision_score(targets[:, kept], scores[:, kept]))
    assert result["classes_scored"] == pytest.approx(10 / 11)


def test_map_without_any_positive_is_an_error(scores):
    with pytest.raises(ValueError, match="no class has a positive"):
        metrics.multi_label(scores, np.zeros((97, 11)))


def test_joint_scores_are_the_products_of_all_pairs(scores):
    verb, noun = scores[:, :4], scores[:, 4:]
    joint = metrics.joint_logits({"noun": noun, "verb": verb})
    assert joint.shape == (97, 28)
    np.testing.assert_allclose(joint.sum(1), 1)
    p, q = softmax(noun), softmax(verb)
    assert joint[6, 5 * 4 + 2] == pytest.approx(p[6, 5] * q[6, 2])
    target = metrics.joint_targets({"noun": np.array([5]), "verb": np.array([2])}, {"noun": 7, "verb": 4})
    assert target.tolist() == [22]


def test_an_action_is_right_when_its_verb_and_noun_are(monkeypatch, scores):
    monkeypatch.setattr(metrics, "_JOINT_ROWS", 10)
    rng = np.random.default_rng(3)
    logits = {"verb": scores[:, :4], "noun": scores[:, 4:]}
    targets = {"verb": rng.integers(0, 4, 97), "noun": rng.integers(0, 7, 97)}
    result = metrics.measure(logits, targets)
    right = (logits["verb"].argmax(1) == targets["verb"]) & (logits["noun"].argmax(1) == targets["noun"])
    assert result["action_top1"] == pytest.approx(right.mean())
    assert result["verb_top1"] == pytest.approx((logits["verb"].argmax(1) == targets["verb"]).mean())
    pairs = metrics.joint_logits(logits)
    expected = top_k_accuracy_score(targets["verb"] * 7 + targets["noun"], pairs, k=5, labels=range(28))
    assert result["action_top5"] == pytest.approx(expected)


def test_confusion_and_per_class_table():
    scores = np.eye(3)[[0, 1, 1, 2, 0]]
    confusion = metrics.confusion_matrix(scores, np.array([0, 0, 1, 2, 2]))
    assert confusion.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 1]]
    a, b, c = metrics.per_class(confusion, ("a", "b", "c"))
    assert (a.examples, a.accuracy, a.precision, a.mistaken_for) == (2, 0.5, 0.5, "b")
    assert (b.accuracy, b.precision, b.mistaken_for) == (1.0, 0.5, None)
    assert c.mistaken_for == "a"


def test_top5_of_few_classes_is_left_out(scores, targets):
    assert "top5" in metrics.measure(scores, targets)
    assert "top5" not in metrics.measure(scores[:, :5], targets % 5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_broken_scores_never_count_as_right(scores, targets, bad):
    scores[7, 2] = bad
    with pytest.raises(ValueError, match="example 7 are not finite"):
        metrics.measure(scores, targets)


def test_nothing_scored_is_an_error():
    with pytest.raises(ValueError, match="no example was scored"):
        metrics.measure(np.zeros((0, 3)), np.zeros((0,), dtype=int))


def test_targets_must_fit_scores(scores):
    with pytest.raises(ValueError, match=r"class indices"):
        metrics.top_k(scores, np.zeros((97, 2)), 1)
    with pytest.raises(ValueError, match="label sets"):
        metrics.measure(scores, {"verb": np.zeros(97, dtype=int)})


def test_dual_softmax_is_the_product_of_both_and_takes_hubs_down() -> None:
    """The last candidate is nearest to every query, and is right for the last alone."""
    own = np.eye(4) * 0.5
    own[:, 3] = 0.6
    own[3, 3] = 0.7
    found = metrics.dual_softmax(own, 0.1)
    both = softmax(own / 0.1) * softmax(own.T / 0.1).T
    np.testing.assert_allclose(softmax(found), both / both.sum(1, keepdims=True), rtol=1e-9)
    assert metrics.retrieval(own, np.arange(4))["r1"] == 0.25
    assert metrics.retrieval(found, np.arange(4))["r1"] == 1.0


def test_a_model_that_says_the_same_of_all_is_at_chance() -> None:
    found = metrics.retrieval(np.ones((10, 10)), np.arange(10))
    assert (found["r1"], found["r5"], found["median_rank"], found["pool"]) == (0.1, 0.5, 5.5, 10)
