"""Goldens of losses, schedules, mixup and optimizers."""

from __future__ import annotations

import re

import numpy as np
import torch

from goldens_golden import TOLERANCE, Golden, close
from tubelet.metrics import joint_logits, joint_targets, ranks
from tubelet.training.classification import multi_head_cross_entropy, sigmoid_cross_entropy, softmax_cross_entropy
from tubelet.training.experiment import SGD
from tubelet.training.objectives import mixup
from tubelet.training.optimizers import build_optimizer, clip_by_global_norm_
from tubelet.training.schedules import learning_rate


def check_losses(golden: Golden) -> None:
    """Cross-entropies with and without weights and smoothing, EPIC's two label sets, joint accuracy, weight decay."""
    logits, weights = golden.tensor("input/logits"), golden.tensor("input/weights")
    single = {
        "softmax_ce": (softmax_cross_entropy, golden.tensor("input/one_hot")),
        "sigmoid_ce": (sigmoid_cross_entropy, golden.tensor("input/multi_hot")),
    }
    (sets,) = [key for key in golden.arrays if key.startswith("input/multihead")]
    sizes = [int(n) for n in re.findall(r"\d+", sets)]
    by_set = {str(i): x for i, x in enumerate(logits.split(sizes, dim=1))}
    targets = {str(i): x for i, x in enumerate(golden.tensor(sets).split(sizes, dim=1))}
    for name, expected in golden.under("output/").items():
        if match := re.fullmatch(r"(softmax_ce|sigmoid_ce)(_weighted)?/ls=(.+)", name):
            loss, target = single[match[1]]
            ours = loss(logits, target, weights if match[2] else None, smoothing(match[3]))
            close(ours, expected, rounding(expected), what=name)
        elif match := re.fullmatch(r"multihead_ce/ls=(.+)", name):
            close(
                multi_head_cross_entropy(by_set, targets, smoothing=smoothing(match[1])),
                expected,
                rounding(expected),
                what=name,
            )
        elif name == "l2_regularization":
            check_weight_decay(golden.tensor("input/logits"), expected)
        else:
            assert name in ("joint_logits", "joint_labels", "joint_accuracy", "joint_top5"), name
    check_actions(golden, by_set, targets)


def rounding(value: np.ndarray) -> float:
    """The tolerance, or a few float32 steps at a loss so large that those are more."""
    return max(TOLERANCE, 1e-6 * abs(float(value)))


def smoothing(text: str) -> float:
    return 0.0 if text == "None" else float(text)


def check_actions(golden: Golden, logits: dict[str, torch.Tensor], one_hot: dict[str, torch.Tensor]) -> None:
    scores = joint_logits({name: x.numpy() for name, x in logits.items()})
    labels = joint_targets(
        {name: x.argmax(1).numpy() for name, x in one_hot.items()}, {name: x.shape[1] for name, x in one_hot.items()}
    )
    place = ranks(scores, labels)
    close(scores, golden.arrays["output/joint_logits"], what="joint_logits")
    np.testing.assert_array_equal(labels, golden.arrays["output/joint_labels"].argmax(1))
    np.testing.assert_array_equal(place < 1, golden.arrays["output/joint_accuracy"])
    np.testing.assert_array_equal(place < 5, golden.arrays["output/joint_top5"].ravel())


def check_weight_decay(weight: torch.Tensor, penalty: np.ndarray) -> None:
    """The released code adds half its factor times the penalty to the loss; our SGD moves weights by its gradient."""
    parameter = torch.nn.Parameter(weight.clone())
    parameter.grad = torch.zeros_like(parameter)
    optimizer = build_optimizer(SGD(momentum=0.0, weight_decay=0.5), [parameter])
    optimizer.param_groups[0]["lr"] = 1.0
    optimizer.step()
    moved = (weight - parameter.detach()) / 0.5
    np.testing.assert_allclose(float((moved * weight).sum()), penalty, rtol=1e-6)


def check_learning_rates(golden: Golden) -> None:
    """A defect that is not copied: once a cycle is over, the released cosine starts again from the base rate, so that
    an update at or past the last one has the full learning rate. Ours stays at the end of the decay."""
    for name, schedule in golden.config["schedules"].items():
        base, warmup = schedule["base_learning_rate"], schedule["warmup_steps"]
        cosine = "cosine_decay" in schedule["factors"]
        total = schedule["steps_per_cycle"] if cosine else schedule["total_steps"]
        for step, expected in zip(
            golden.under("input/")[f"{name}/steps"], golden.under("output/")[f"{name}/lr"], strict=True
        ):
            decay, end = ("cosine", 0.0) if cosine else ("linear", schedule["end_learning_rate"])
            ours = learning_rate(int(step), float(base), float(warmup), total, decay, end)
            wraps = cosine and step - warmup >= total - int(warmup)
            if wraps:
                assert abs(expected - base) < 1e-4 * base, (name, step)
                assert ours == 0.0, (name, step)
            else:
                assert abs(ours - expected) < 5e-7 * base, (name, step, ours, expected)


def check_mixup(golden: Golden) -> None:
    """One weight for the batch, and the batch reversed as partner."""
    for name in ("inputs", "label"):
        close(
            mixup(golden.tensor(f"input/{name}"), golden.config["weight"]), golden.arrays[f"output/{name}"], what=name
        )


def check_clip_and_momentum(golden: Golden) -> None:
    """Clipping by the global norm, and SGD with momentum; PolyViT's keeps its momentum in bfloat16, ours in float32."""
    gradients = {name: golden.tensor(f"input/{name}") for name in golden.under("input/")}
    for key in {name.split("/")[0] for name in golden.under("output/clip")}:
        clipped = {name: gradient.clone() for name, gradient in gradients.items()}
        clip_by_global_norm_(list(clipped.values()), float(key))
        for name, gradient in clipped.items():
            close(gradient, golden.arrays[f"output/clip{key}/{name}"], what=f"clip {key}")
    starts = dict(re.findall(r"(\w+)=(ones|zeros)", golden.config["p0"]))
    parameters = {n: torch.nn.Parameter(getattr(torch, starts[n])(g.shape)) for n, g in gradients.items()}
    optimizer = build_optimizer(SGD(momentum=golden.config["momentum"]), parameters.values())
    factor = float(golden.config["lr"].partition("*")[0])
    for step in range(len({name.split("/")[0] for name in golden.under("output/sgd_step")})):
        for name, parameter in parameters.items():
            parameter.grad = gradients[name].clone()
        optimizer.param_groups[0]["lr"] = factor * (step + 1)
        optimizer.step()
        for name, parameter in parameters.items():
            close(parameter, golden.arrays[f"output/sgd_step{step}/{name}"], what=f"step {step}")
            rounded = golden.arrays.get(f"output/momentum_hp_step{step}/{name}")
            if rounded is not None:
                traveled = np.abs(parameter.detach().numpy() - getattr(np, starts[name])(rounded.shape))
                assert np.all(np.abs(rounded - parameter.detach().numpy()) <= traveled * 2**-7), "bfloat16's precision"
