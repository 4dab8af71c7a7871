"""Which parameters decay, and at what rate each learns."""

from __future__ import annotations

import pytest
import torch

from tubelet.configs import ConfigError, override
from tubelet.models import Model
from tubelet.nn.heads import LinearHead
from tubelet.recipes import recipes
from tubelet.training.experiment import SGD, Adam, AdamW, Optimizer
from tubelet.training.optimizers import build_optimizer, parameter_groups
from zoo import ZOO


def built(name: str, config: Optimizer) -> tuple[Model, dict[str, dict[str, float]]]:
    """A model, and the group of each of its parameters by name."""
    encoder = ZOO[name].build()
    model = Model(encoder, {"task": LinearHead(encoder.width, 3)})
    optimizer = build_optimizer(config, model.parameters(), parameter_groups(config, model, ZOO[name]))
    by_parameter = {p: group for group in optimizer.param_groups for p in group["params"]}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))
    return model, {name: by_parameter[p] for name, p in model.named_parameters()}


@pytest.mark.parametrize("name", ["vit", "model2", "mtv-bottleneck", "mbt", "tubevit", "token-learner-conv"])
@pytest.mark.parametrize("config", [AdamW(weight_decay=0.3, decay="weights"), SGD(weight_decay=0.3, decay="weights")])
def test_matrices_decay_and_biases_norms_tokens_and_positions_do_not(name: str, config: Optimizer) -> None:
    _, groups = built(name, config)
    decaying = {name for name, group in groups.items() if group["weight_decay"] == 0.3}
    assert decaying
    apart = ("bias", "norm", "cls", "table", "bottleneck", "queries", "alpha")
    for parameter in groups:
        free = parameter.endswith(".bias") or any(part.startswith(apart) for part in parameter.split("."))
        assert (parameter not in decaying) == free, parameter


def test_a_step_without_a_gradient_shrinks_the_matrices_alone() -> None:
    config = SGD(momentum=0.0, weight_decay=0.5, decay="weights")
    model, _ = built("vit", config)
    optimizer = build_optimizer(config, model.parameters(), parameter_groups(config, model, ZOO["vit"]))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    after = dict(model.named_parameters())
    matrix, table = "encoder.encoder.transformer.blocks.0.mlp.0.weight", "encoder.encoder.positions.table"
    torch.testing.assert_close(after[matrix], 0.95 * before[matrix])
    assert torch.equal(after[table], before[table])


def test_rates_multiply_with_layer_decay_and_the_last_match_counts() -> None:
    rates = {"encoder.*": 0.5, "encoder.tokenizer.*": 2.0, "heads.*": 10.0}
    _, groups = built("vit", AdamW(layer_decay=0.5, rates=rates))
    scales = {name: group["scale"] for name, group in groups.items()}
    assert scales["heads.task.projection.weight"] == 10.0
    assert scales["encoder.tokenizer.projection.bias"] == 0.125 * 2.0
    assert scales["encoder.encoder.transformer.blocks.1.mlp.0.weight"] == 0.5 * 0.5
    assert len({id(group) for group in groups.values()}) == len(set(scales.values()))


@pytest.mark.parametrize("config", [SGD(rates={"hheads.*": 2.0}), Adam(rates={"hheads.*": 2.0})])
def test_a_pattern_that_matches_nothing_is_named(config: Optimizer) -> None:
    with pytest.raises(ConfigError, match=r"optimizer\.rates: 'hheads\.\*' matches no parameter; did you mean 'heads"):
        built("vit", config)


def test_the_papers_keep_one_group_and_rates_are_a_flag() -> None:
    for name in ("vivit.kinetics400_b16x2", "mtv.kinetics400_b", "polyvit.nine_tasks", "tubevit.kinetics400"):
        experiment = recipes()[name]()
        model = Model(ZOO["vit"].build(), {})
        assert parameter_groups(experiment.optimizer, model, ZOO["vit"]) == {}
        changed = override(experiment, {"optimizer.rates": '{"heads.*": 10}'})
        assert changed.optimizer.rates == {"heads.*": 10.0}


def test_adam_as_keras_has_it_goes_on_after_a_restart() -> None:
    """lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + eps), with gradients as small as eps; the second half of the steps
    by an optimizer whose state was copied."""
    torch.manual_seed(0)
    start = torch.randn(5, dtype=torch.float64)
    gradients = torch.randn(6, 5, dtype=torch.float64) * 1e-7
    expected, m, v = start.clone(), torch.zeros(5, dtype=torch.float64), torch.zeros(5, dtype=torch.float64)
    parameter = torch.nn.Parameter(start.clone())
    config = Adam(eps=1e-7, keras=True)
    optimizer = build_optimizer(config, [parameter])
    for t, gradient in enumerate(gradients, 1):
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient.square()
        expected -= 0.01 * (1 - 0.999**t) ** 0.5 / (1 - 0.9**t) * m / (v.sqrt() + 1e-7)
        if t == 4:
            state = optimizer.state_dict()
            optimizer = build_optimizer(config, [parameter])
            optimizer.load_state_dict(state)
        for group in optimizer.param_groups:
            group["lr"] = 0.01
        parameter.grad = gradient.clone()
        optimizer.step()
    torch.testing.assert_close(parameter.detach(), expected, atol=1e-12, rtol=1e-9)
