"""Starting from weights: heads that are probed first, layer-wise learning rates, and that both are resumed exactly."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from training_runs import assert_same, make_files, run, weights
from tubelet.configs import ConfigError
from tubelet.data.augment import Augmentation
from tubelet.data.batch import Batch
from tubelet.evaluation.run import validator
from tubelet.models import Encoder, Model, ModelConfig
from tubelet.models.polyvit import Modality, PolyViTConfig
from tubelet.models.vit import ViTConfig
from tubelet.nn.heads import LinearHead, MultiHead, build_head
from tubelet.specs import SpectrogramSpec
from tubelet.training.classification import Classification, fit_linear
from tubelet.training.experiment import SGD, AdamW, Experiment, Length, Source, Task, Training
from tubelet.training.loop import Loop
from tubelet.training.objectives import Mixup
from tubelet.training.optimizers import Group, build_optimizer, parameter_groups
from tubelet.training.ranks import Ranks
from tubelet.training.run import train
from tubelet.weights.folder import save_model
from tubelet.weights.transfer import Init
from zoo import IMAGE, SMALL, ZOO

pytestmark = pytest.mark.usefixtures("one_thread")


def scales(config: ModelConfig, decay: float = 0.5) -> dict[str, float]:
    """The scale of every parameter's rate in the optimizer of a model with a head."""
    encoder = config.build()
    model = Model(encoder, {"task": LinearHead(encoder.width, 3)})
    optimizer = AdamW(layer_decay=decay)
    built = build_optimizer(optimizer, model.parameters(), parameter_groups(optimizer, model, config))
    by_parameter = {p: group.get("scale", 1.0) for group in built.param_groups for p in group["params"]}
    assert len(built.param_groups) == len(set(by_parameter.values()))
    return {name: by_parameter[p] for name, p in model.named_parameters() if p.requires_grad}


POLYVIT = PolyViTConfig(
    backbone=SMALL,
    modalities={
        "image": Modality(spec=IMAGE, patch=(1, 8, 8)),
        "audio": Modality(spec=SpectrogramSpec(frames=24, bins=16), patch=(1, 8, 8)),
    },
    adaptor_depth=1,
)
EXPECTED = {
    "vit": {
        "encoder.encoder.cls": 0.125,
        "encoder.encoder.positions.table": 0.125,
        "encoder.tokenizer.projection.weight": 0.125,
        "encoder.encoder.transformer.blocks.0.mlp.0.weight": 0.25,
        "encoder.encoder.transformer.blocks.1.norm_mlp.bias": 0.5,
        "encoder.encoder.transformer.norm.weight": 1.0,
        "heads.task.projection.weight": 1.0,
    },
    "model2": {
        "encoder.tokenizer.projection.weight": 0.125,
        "encoder.encoder.spatial.transformer.blocks.1.mlp.0.weight": 0.5,
        "encoder.encoder.temporal.transformer.blocks.0.mlp.0.weight": 1.0,
        "encoder.encoder.temporal.positions.table": 1.0,
        "heads.task.projection.bias": 1.0,
    },
    "polyvit": {
        "encoder.modalities.audio.tokenizer.projection.weight": 0.125,
        "encoder.modalities.image.positions.table": 0.125,
        "encoder.modalities.image.adaptor.blocks.0.mlp.0.weight": 0.25,
        "encoder.transformer.blocks.0.mlp.0.weight": 0.5,
        "encoder.transformer.norm.bias": 1.0,
        "heads.task.projection.weight": 1.0,
    },
}


@pytest.mark.parametrize("name", EXPECTED)
def test_each_layer_learns_at_half_the_rate_of_the_next(name: str) -> None:
    found = scales({**ZOO, "polyvit": POLYVIT}[name])
    expected = EXPECTED[name]
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize("name", ZOO)
def test_every_model_has_layers(name: str) -> None:
    found = scales(ZOO[name])
    assert found["heads.task.projection.weight"] == 1.0
    assert min(found.values()) < 0.5


@pytest.mark.parametrize("optimizer", [SGD(), AdamW()])
def test_without_decay_there_is_one_group(optimizer: SGD | AdamW) -> None:
    model = Model(ZOO["vit"].build(), {})
    assert parameter_groups(optimizer, model, ZOO["vit"]) == {}
    built = build_optimizer(optimizer, model.parameters(), {})
    (group,) = built.param_groups
    assert "scale" not in group
    assert group["params"] == list(model.parameters())


def test_a_model_without_known_layers_says_so() -> None:
    class Other(ModelConfig):
        inputs = ZOO["vit"].inputs

        def build(self) -> Encoder:
            return ZOO["vit"].build()

    with pytest.raises(ConfigError, match="layers of Other are not known"):
        parameter_groups(AdamW(layer_decay=0.5), Model(Other().build(), {}), Other())
    with pytest.raises(ValueError, match="layer_decay"):
        AdamW(layer_decay=0.0)


def test_the_loop_sets_scaled_rates() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.low, self.high = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))

        def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
            return (self.low + self.high).sum(), {}

    module = Sum()
    optimizer = build_optimizer(
        AdamW(weight_decay=0.0), module.parameters(), {module.low: Group(0.25), module.high: Group(1.0)}
    )
    loop = Loop(
        module=module,
        optimizer=optimizer,
        ranks=Ranks(torch.device("cpu")),
        seed=0,
        learning_rate=lambda step, tasks: 0.1,
    )
    loop.run(iter([Batch("t", {"x": torch.zeros(1)}, None, ["a"])]), 0, 1, [])
    assert module.high.tolist() == pytest.approx([0.9] * 3)
    assert module.low.tolist() == pytest.approx([0.975] * 3)


def toy(classes: int, examples: int = 40) -> tuple[Tensor, Tensor]:
    """Features that tell classes apart, on scales and around means far from 0 and 1, and one that is constant."""
    draw = torch.Generator().manual_seed(0)
    targets = torch.arange(examples) % classes
    pooled = torch.randn(examples, 6, generator=draw) + 6 * nn.functional.one_hot(targets, 6)
    return torch.cat([pooled * 10.0 ** torch.arange(-3, 3) + 50, torch.ones(examples, 1)], 1), targets


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("validates", [False, True])
def test_a_probe_separates_classes(classes: int, validates: bool) -> None:
    pooled, targets = toy(classes)
    linear = fit_linear(pooled, targets, 4, (pooled, targets) if validates else None)
    assert linear is not None
    assert linear.weight.shape == (4, 7)
    answers = (pooled @ linear.weight.T + linear.bias).argmax(1)
    assert torch.equal(answers, targets), "the classes without an example never win"
    again = fit_linear(pooled, targets, 4, (pooled, targets) if validates else None)
    assert again is not None
    assert torch.equal(linear.weight, again.weight)
    assert linear.cost == (10.0 if validates else 0.1), "examples that it was fitted to want large weights"


def test_one_class_is_no_probe() -> None:
    pooled, targets = toy(1)
    assert fit_linear(pooled, targets, 3) is None


def test_only_linear_heads_are_probed() -> None:
    one, hidden = build_head(8, 3), build_head(8, 3, hidden=(4,))
    assert Classification().linear_heads(one) == {"label": one}
    assert Classification().linear_heads(hidden) == {}
    both = MultiHead({"verb": one, "noun": build_head(8, 2)})
    assert Classification(label_sets=("verb", "noun")).linear_heads(both).keys() == {"verb", "noun"}
    assert Classification(labels="several", loss="sigmoid").linear_heads(one) == {}


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """Fine-tuning a saved image ViT: probe first, layer-wise rates, validation; 8 updates, a checkpoint every third."""
    folder = make_files(tmp_path_factory.mktemp("files"))
    config = ViTConfig(backbone=SMALL, patch=(8, 8), image=IMAGE)
    torch.manual_seed(1)
    save_model(folder / "vit", Model(config.build(), {}), config, {})
    task = Task(
        source=Source(path=str(folder / "image.csv"), held_out=0.25),
        objective=Classification(head_init="lecun", mixup=Mixup(0.4)),
        inputs=("image",),
        augment=Augmentation(color=0.0, grayscale=0.0),
        batch_size=4,
        length=Length(steps=8),
        warmup=Length(steps=2),
        learning_rate=0.01,
        stochastic_depth=0.2,
    )
    return Experiment(
        model=config,
        tasks={"motion": task},
        optimizer=AdamW(layer_decay=0.75),
        init=(Init(source=str(folder / "vit")),),
        training=Training(
            workers=0,
            log_every=1,
            checkpoint_every=3,
            keep_checkpoints=99,
            ema=0.5,
            validate_every=2,
            probe_first=True,
        ),
    )


def log(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def provenance(out: Path) -> dict[str, Any]:
    return json.loads((out / "model" / "tubelet.json").read_text())["provenance"]


def same(out: Path, expected: Path) -> None:
    assert_same(out, expected)
    assert provenance(out)["validation"] == provenance(expected)["validation"]


def test_a_killed_training_probes_again_or_goes_on_bit_for_bit(started: Experiment, tmp_path: Path) -> None:
    whole, late, early = (tmp_path / name for name in ("whole", "late", "early"))
    _, said = run([{"experiment": started, "out": whole}, {"experiment": started, "out": late, "kill_at": 5}])
    assert (late / "log.jsonl").exists(), said
    run([{"experiment": started, "out": early, "kill_at": 1}])
    assert not list((early / "checkpoints").glob("step-*"))
    for out in (late, early):
        train(started, out, validate=validator(), progress=False)
        same(out, whole)
        assert [line["step"] for line in log(out) if "validation" in line] == [0, 2, 4, 6, 8]
    assert [step for step, _, _ in provenance(whole)["validation"]["curve"]] == [0, 2, 4, 6, 8]


def test_a_probe_that_validates_better_is_what_comes_out(started: Experiment, tmp_path: Path) -> None:
    seen: list[dict[str, Tensor]] = []

    def validate(model: Model, *_: object) -> dict[str, Any]:
        seen.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        score = 0.9 if len(seen) == 1 else 0.1
        return {"tasks": {"motion": {"metrics": {"top1": score}, "coverage": {"scored": 1000}}}}

    train(started, tmp_path / "run", validate=validate, progress=False)
    assert provenance(tmp_path / "run")["validation"]["kept"] == 0
    for name, tensor in weights(tmp_path / "run").items():
        assert torch.equal(tensor, seen[0][name]), name
    assert seen[0]["heads.motion.projection.weight"].any()
    assert any(not torch.equal(seen[0][name], seen[-1][name]) for name in seen[0])


def test_heads_that_the_weights_bring_are_kept(
    started: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(started, tmp_path / "first", validate=validator())
    assert "motion: head fitted to the frozen features of 12 examples" in capsys.readouterr().err
    again = replace(started, init=(Init(source=str(tmp_path / "first" / "model")),))
    train(again, tmp_path / "second", validate=validator())
    assert "motion: no probe; its head starts from the weights" in capsys.readouterr().err
