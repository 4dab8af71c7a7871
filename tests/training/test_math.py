"""Losses, mixup, lengths and optimizers as pure functions."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from training_tiny import experiment
from tubelet.configs import ConfigError, override
from tubelet.training.classification import (
    Classification,
    multi_head_cross_entropy,
    one_hot,
    sigmoid_cross_entropy,
    smooth_labels,
    softmax_cross_entropy,
)
from tubelet.training.experiment import SGD, Adam, AdamW, Length, Optimizer
from tubelet.training.objectives import Mixup, mixup
from tubelet.training.optimizers import build_optimizer, choose_trainable, clip_by_global_norm_, fill_missing_gradients


def test_softmax_cross_entropy_is_torchs_where_torch_has_it():
    logits, targets = torch.randn(6, 5), torch.randint(5, (6,))
    ours = softmax_cross_entropy(logits, one_hot(targets, 5), smoothing=0.2)
    torch.testing.assert_close(ours, F.cross_entropy(logits, targets, label_smoothing=0.2))


def test_sigmoid_cross_entropy_sums_over_classes():
    logits, targets = torch.randn(4, 7), torch.randint(2, (4, 7)).float()
    expected = F.binary_cross_entropy_with_logits(logits, targets) * 7
    torch.testing.assert_close(sigmoid_cross_entropy(logits, targets), expected)


def test_weights_leave_examples_out():
    logits, targets = torch.randn(4, 3), one_hot(torch.tensor([0, 1, 2, 0]), 3)
    weights = torch.tensor([1.0, 0.0, 1.0, 0.0])
    for loss in (softmax_cross_entropy, sigmoid_cross_entropy):
        torch.testing.assert_close(loss(logits, targets, weights), loss(logits[::2], targets[::2]))


def test_answers_of_several_modalities_are_averaged():
    logits, targets, weights = torch.randn(2, 4, 3), torch.randint(2, (4, 3)).float(), torch.tensor([1.0, 0, 1, 0])
    for loss in (softmax_cross_entropy, sigmoid_cross_entropy):
        apart = torch.stack([loss(each, targets, smoothing=0.1) for each in logits])
        torch.testing.assert_close(loss(logits, targets, smoothing=0.1), apart.mean())
        chosen = torch.stack([loss(each, targets, weights) for each in logits])
        torch.testing.assert_close(loss(logits, targets, weights), chosen.mean())


def test_several_label_sets_are_averaged():
    logits = {"verb": torch.randn(3, 4), "noun": torch.randn(3, 6)}
    targets = {"verb": one_hot(torch.tensor([1, 2, 3]), 4), "noun": one_hot(torch.tensor([5, 0, 1]), 6)}
    expected = sum(softmax_cross_entropy(logits[n], targets[n], smoothing=0.1) for n in logits) / 2
    torch.testing.assert_close(multi_head_cross_entropy(logits, targets, smoothing=0.1), expected)


def test_smoothing_of_multi_hot_keeps_the_released_form():
    torch.testing.assert_close(
        smooth_labels(torch.tensor([[1.0, 1.0, 0.0, 0.0]]), 0.2)[0, [0, 2]], torch.tensor([0.85, 0.05])
    )


def test_mixup_partner_is_the_batch_reversed():
    x = torch.arange(3.0)
    torch.testing.assert_close(mixup(x, 0.75), torch.tensor([0.5, 1.0, 1.5]))
    torch.testing.assert_close(mixup(x, 1.0), x)


def test_mixup_weight_depends_on_the_seed_alone():
    mix = Mixup(0.3)
    draws = [mix.weight(seed) for seed in range(200)]
    assert draws == [mix.weight(seed) for seed in range(200)]
    assert len(set(draws)) > 190
    assert all(0 <= draw <= 1 for draw in draws)
    assert Mixup(0.0).weight(3) == 1


def test_classification_refuses_what_cannot_be_learned():
    with pytest.raises(ValueError, match="sigmoid"):
        Classification(labels="several")
    with pytest.raises(ValueError, match="smoothing"):
        Classification(smoothing=1.0)
    with pytest.raises(ValueError, match="head_dropout"):
        Classification(head_dropout=1.0)


def test_lengths_resolve_as_the_released_code_counts():
    assert Length(epochs=30.0).resolve(214_834, 64) == 100_680
    assert Length(epochs=2.5).resolve(214_834, 64) == 8_390
    assert Length(steps=7).resolve(10, 64) == 7
    assert Length(epochs=2.0).resolve(10, 64) == 2
    assert Length().resolve(10, 64) == 0
    with pytest.raises(ValueError, match="either epochs or steps"):
        Length(epochs=1.0, steps=1)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("tasks.motion.learning_rate", "-1", "tasks.motion: learning_rate=-1 must be above 0"),
        ("tasks.motion.learning_rate", "nan", "tasks.motion.learning_rate: must be a number; got nan"),
        ("tasks.motion.length.steps", "-1", "tasks.motion.length: steps=-1 must be at least 0"),
        ("tasks.motion.batch_size", "0", "tasks.motion: batch_size=0 must be at least 1"),
        ("tasks.motion.objective.mixup.alpha", "-1", "mixup self.alpha=-1.0 must be at least 0"),
        ("optimizer.momentum", "1", "optimizer: momentum=1 must be at least 0 and below 1"),
        ("optimizer.weight_decay", "-0.1", "optimizer: weight_decay=-0.1 must be at least 0"),
        ("training.clip_norm", "-1", "training: clip_norm=-1 must be at least 0"),
        ("training.keep_checkpoints", "0", "training: keep_checkpoints=0 must be at least 1"),
    ],
)
def test_a_hyper_parameter_out_of_its_range_is_named(key: str, value: str, says: str):
    with pytest.raises(ConfigError) as caught:
        override(experiment(), {key: value})
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_optimizers_refuse_what_they_cannot_use():
    for make in (lambda: Adam(betas=(0.9, 1.0)), lambda: AdamW(betas=(-0.1, 0.9))):
        with pytest.raises(ValueError, match=r"betas=.* below 1"):
            make()
    with pytest.raises(ValueError, match=r"rates\['heads.\*'\]=-1 must be at least 0"):
        SGD(rates={"heads.*": -1.0})
    with pytest.raises(ValueError, match="eps=nan"):
        AdamW(eps=math.nan)
    with pytest.raises(ValueError, match="epochs=inf"):
        Length(epochs=math.inf)


def test_lengths_are_read_as_they_are_said():
    assert Length.parse("2.5 epochs") == Length(epochs=2.5)
    assert Length.parse("1 step") == Length(steps=1)
    with pytest.raises(ValueError, match="'ten' is no length; write '30 epochs'"):
        Length.parse("ten")


def _numpy_update(config: Optimizer, p: np.ndarray, gradients: list[np.ndarray], lr: float) -> np.ndarray:
    m = v = np.zeros_like(p)
    for t, g in enumerate(gradients, start=1):
        if isinstance(config, SGD):
            m = config.momentum * m + g + config.weight_decay * p
            p = p - lr * m
            continue
        (b1, b2), decay = config.betas, getattr(config, "weight_decay", 0.0)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        p = p - lr * (m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + config.eps) + decay * p)
    return p


@pytest.mark.parametrize("config", [SGD(), SGD(weight_decay=0.1), Adam(), AdamW(weight_decay=0.3)])
def test_optimizers_do_what_they_say(config: Optimizer):
    start = torch.randn(5, dtype=torch.float64)
    p = nn.Parameter(start.clone())
    optimizer = build_optimizer(config, [p])
    gradients = [torch.randn(5, dtype=torch.float64) for _ in range(4)]
    for gradient in gradients:
        p.grad = gradient.clone()
        optimizer.param_groups[0]["lr"] = 0.01
        optimizer.step()
    expected = _numpy_update(config, start.numpy(), [g.numpy() for g in gradients], 0.01)
    np.testing.assert_allclose(p.detach().numpy(), expected, rtol=1e-9)


def test_clipping_scales_all_gradients_by_one_factor():
    gradients = [torch.randn(4, 3), torch.randn(5)]
    before = [gradient.clone() for gradient in gradients]
    norm = clip_by_global_norm_(gradients, 1.0)
    torch.testing.assert_close(norm, torch.cat([g.flatten() for g in before]).norm())
    for gradient, old in zip(gradients, before, strict=True):
        torch.testing.assert_close(gradient, old / norm)


@pytest.mark.parametrize("limit", [1e3, 0.0])
def test_clipping_leaves_small_gradients_and_can_be_turned_off(limit: float):
    gradient = torch.randn(5)
    before = gradient.clone()
    clip_by_global_norm_([gradient], limit)
    assert torch.equal(gradient, before)


def test_missing_gradients_become_zeros_so_that_momentum_goes_on():
    p = nn.Parameter(torch.ones(2))
    optimizer = build_optimizer(SGD(), [p])
    optimizer.param_groups[0]["lr"] = 1.0
    p.grad = torch.ones(2)
    optimizer.step()
    optimizer.zero_grad()
    fill_missing_gradients([p])
    optimizer.step()
    torch.testing.assert_close(p.detach(), torch.full((2,), 1 - 1 - 0.9))


def test_trainable_patterns():
    model = nn.ModuleDict({"encoder": nn.Linear(2, 2), "heads": nn.ModuleDict({"a": nn.Linear(2, 2)})})
    choose_trainable(model, ("heads.*", "*.bias"))
    assert [n for n, p in model.named_parameters() if p.requires_grad] == [
        "encoder.bias",
        "heads.a.weight",
        "heads.a.bias",
    ]
    with pytest.raises(ConfigError, match=r"'heds.a.\*' matches no parameter; did you mean 'heads.a'"):
        choose_trainable(model, ("heds.a.*",))


def test_mixup_of_each_example_has_its_own_weights_and_partners():
    mix = Mixup(5.0, per_example=True).drawn(3, 64)
    assert isinstance(mix.weight, torch.Tensor)
    assert mix.partner is not None
    assert sorted(mix.partner.tolist()) == list(range(64))
    assert len(set(mix.weight.tolist())) == 64
    assert mix.weight.mean().item() == pytest.approx(0.5, abs=0.08)
    assert mix.weight.std().item() == pytest.approx((1 / 44) ** 0.5, abs=0.04)  # of Beta(5, 5)
    x = torch.randn(64, 3, 2)
    wanted = [w * a + (1 - w) * x[p] for w, a, p in zip(mix.weight, x, mix.partner, strict=True)]
    torch.testing.assert_close(mixup(x, *mix), torch.stack(wanted))
    again = Mixup(5.0, per_example=True).drawn(3, 64)
    assert torch.equal(mix.weight, again.weight)
    assert Mixup(0.4).drawn(3, 64) == (Mixup(0.4).weight(3), None)


def test_words_cannot_be_mixed():
    with pytest.raises(ValueError, match=r"ids of words .* mixup\.alpha to 0"):
        mixup(torch.ones(2, 5, 16, dtype=torch.int64), 0.5)
