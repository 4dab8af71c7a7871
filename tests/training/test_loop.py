"""The loop, its hooks and its checkpoints, on made-up minibatches."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from training_tiny import (
    CLASSES,
    POLYVIT_RATES,
    Session,
    experiment,
    minibatch,
    polyvit_batch,
    polyvit_experiment,
)
from tubelet.configs import ConfigError
from tubelet.hardware import bfloat16_fault
from tubelet.nn.depth import depth_rates
from tubelet.training.checkpoints import last_whole
from tubelet.training.classification import Classification, one_hot, sigmoid_cross_entropy, softmax_cross_entropy
from tubelet.training.experiment import SGD, AdamW, Experiment, Optimizer, Training
from tubelet.training.module import TrainingModule
from tubelet.training.objectives import Mixup, mixup
from tubelet.training.ranks import Ranks
from tubelet.training.run import initial_model


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("optimizer", [SGD(), AdamW()])
@pytest.mark.parametrize("tasks", [("motion",), ("motion", "digit")])
def test_a_resumed_run_is_bit_for_bit_the_uninterrupted_one(
    tmp_path: Path, optimizer: Optimizer, tasks: tuple[str, ...]
):
    made = experiment(optimizer=optimizer, tasks=tasks, training=Training(ema=0.9, micro_batches=2))
    whole = Session(made)
    whole.run(0, 7)
    first = Session(made, tmp_path)
    first.run(0, 3)
    first.checkpoints.save(3, {}, keep=1)
    torch.rand(7)  # whatever else a process did with its random numbers
    second = Session(made, tmp_path)
    second.checkpoints.load(last_whole(tmp_path)[0])
    second.run(3, 7)
    assert first.losses + second.losses == whole.losses
    assert same(second.weights, whole.weights)
    assert same(second.average.average, whole.average.average)


def test_a_task_without_stochastic_depth_resumes_exactly_beside_one_with_it(tmp_path: Path):
    made = experiment(tasks=("motion", "digit"))
    tasks = {"motion": made.tasks["motion"], "digit": replace(made.tasks["digit"], stochastic_depth=0.0)}
    made = replace(made, tasks=tasks)
    whole = Session(made)
    whole.run(0, 4)
    first = Session(made, tmp_path)
    first.run(0, 1)
    first.checkpoints.save(1, {}, keep=1)
    second = Session(made, tmp_path)
    second.checkpoints.load(1)
    second.run(1, 4)
    assert first.losses + second.losses == whole.losses


def test_random_layers_are_on_and_depend_on_the_seed():
    losses = []
    for seed in (0, 0, 1):
        session = Session(experiment())
        session.experiment = replace(session.experiment, seed=seed)
        session.run(0, 2)
        losses.append(session.losses)
    assert losses[0] == losses[1] != losses[2]


def test_micro_batches_change_memory_and_not_the_gradient():
    whole = Session(experiment(random_layers=False))
    parts = Session(experiment(random_layers=False, training=Training(micro_batches=4)))  # of 1, 2, 1 and 2 examples
    whole.run(0, 3)
    parts.run(0, 3)
    assert parts.losses == pytest.approx(whole.losses, abs=1e-6)
    for name, weight in whole.weights.items():
        torch.testing.assert_close(parts.weights[name], weight, atol=1e-6, rtol=0)


def test_gradients_of_several_tasks_add_up_in_one_update():
    made = experiment(random_layers=False, tasks=("motion", "digit"), training=Training(clip_norm=0.0))
    session = Session(made)
    before = session.weights
    session.run(0, 1, tasks_per_update=2)
    expected = {}
    for number, task in enumerate(("motion", "digit")):
        fresh = initial_model(made)
        made.tasks[task].objective(fresh, minibatch(task, number), Ranks(torch.device("cpu")))[0].backward()
        for name, p in fresh.named_parameters():
            expected[name] = expected.get(name, 0) + (0 if p.grad is None else p.grad)
    for name, gradient in expected.items():
        torch.testing.assert_close(session.weights[name], before[name] - 0.05 * gradient)


def test_heads_of_other_tasks_keep_moving_with_their_momentum():
    session = Session(experiment(random_layers=False, tasks=("motion", "digit")))
    session.run(0, 1)
    after_own = session.weights["heads.motion.projection.weight"]
    session.run(1, 2)
    assert not torch.equal(session.weights["heads.motion.projection.weight"], after_own)


def polyvit_session(*tasks: str) -> Session:
    session = Session(polyvit_experiment(random_layers=True))
    session.batches = lambda start: (polyvit_batch(task, i) for i, task in enumerate(tasks[start:], start))  # type: ignore[method-assign]
    return session


def test_each_task_brings_its_own_stochastic_depth_to_the_shared_layers():
    session, seen = polyvit_session("image", "audio", "video", "image"), list[list[float]]()
    session.run(0, 4, [lambda _: seen.append([float(m.rate) for m in session.model.modules() if hasattr(m, "rate")])])
    for task, rates in zip(("image", "audio", "video", "image"), seen, strict=True):
        adaptor, shared = depth_rates(POLYVIT_RATES[task], 3)[:1], depth_rates(POLYVIT_RATES[task], 3)[1:]
        assert rates == pytest.approx([*adaptor * 3, *shared]), task


def test_clipping_sees_the_gradients_of_the_task_alone():
    session, norms = polyvit_session("image", "audio"), list[float]()
    session.run(0, 2, [lambda update: norms.append(float(update.gradient_norm))])
    gradients = {name: p.grad for name, p in session.model.named_parameters()}
    used = [g.norm() for name, g in gradients.items() if "image" not in name and "video" not in name]
    assert not any(g.any() for name, g in gradients.items() if "image" in name or "video" in name)
    clipped = torch.stack(used).norm()  # what the loop leaves behind is scaled already
    torch.testing.assert_close(clipped, torch.tensor(min(1.0, norms[1])))


def test_training_learns():
    session = Session(experiment(random_layers=False, training=Training()))
    batch = minibatch("motion", 0)
    session.batches = lambda start: iter([batch] * 40)  # type: ignore[method-assign]
    session.run(0, 15)
    assert session.losses[-1] < 0.5 * session.losses[0]


@pytest.mark.parametrize("change", [{"activation_checkpointing": True}, {"precision": "bfloat16"}])
def test_options_of_the_engine_leave_the_loss_where_it_is(change: dict[str, object]):
    if change.get("precision") == "bfloat16" and (fault := bfloat16_fault()):
        pytest.skip(fault)
    plain, changed = Session(experiment()), Session(experiment(training=Training(**change)))
    plain.run(0, 3)
    changed.run(0, 3)
    tolerance = 0.05 if "precision" in change else 0.0
    assert changed.losses == pytest.approx(plain.losses, abs=tolerance, rel=0)


LABELED = {
    "one label": (Classification(classes=CLASSES), torch.tensor([0, 2, 1, 1, 0, 2])),
    "any number": (
        Classification(classes=CLASSES, labels="several", loss="sigmoid"),
        torch.tensor([[1.0, 1, 0], [0, 0, 0], [0, 1, 0], [1, 1, 1], [0, 0, 1], [1, 0, 0]]),
    ),
    "two label sets": (
        Classification(label_sets=("verb", "noun"), classes={"noun": CLASSES, "verb": CLASSES[:2]}),
        {"verb": torch.tensor([0, 1, 1, 1, 0, 0]), "noun": torch.tensor([0, 2, 1, 1, 0, 2])},
    ),
}


@pytest.mark.parametrize("kind", LABELED)
def test_objectives_learn_from_every_kind_of_labels_with_mixup_and_smoothing(kind: str):
    objective, targets = LABELED[kind]
    objective = replace(objective, mixup=Mixup(0.4), smoothing=0.1, head_init="lecun")
    made = experiment(random_layers=False)
    made = replace(made, tasks={"motion": replace(made.tasks["motion"], objective=objective)})
    model, batch = initial_model(made), replace(minibatch("motion", 0), targets=targets, seed=5)
    loss, metrics = objective(model, batch, Ranks(torch.device("cpu")))
    loss.backward()

    weight = objective.mixup.weight(5)
    video = model.preprocess(batch.inputs)["video"]
    logits = model({"video": mixup(video, weight)}, "motion")
    by_set = {"label": (logits, targets)} if kind != "two label sets" else {n: (logits[n], targets[n]) for n in logits}
    cross_entropy = sigmoid_cross_entropy if kind == "any number" else softmax_cross_entropy
    losses = [
        cross_entropy(logit, mixup(one_hot(target, logit.shape[1]), weight), smoothing=0.1)
        for logit, target in by_set.values()
    ]
    torch.testing.assert_close(loss, torch.stack(losses).mean())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.heads.parameters())
    assert not any(value.requires_grad for value in metrics.values())


def test_own_depth_of_the_model_is_not_silently_replaced():
    made = experiment()
    model = replace(made.model, backbone=replace(made.model.backbone, stochastic_depth=0.5))
    with pytest.raises(ConfigError, match="stochastic_depth of each task"):
        TrainingModule(initial_model(replace(made, model=model)), made.tasks, Ranks(torch.device("cpu")))


def test_average_follows_the_weights_and_gives_them_back():
    session = Session(experiment(training=Training(ema=0.9)))
    start = session.weights
    session.run(0, 1)
    expected = {name: (2 / 11) * start[name] + (9 / 11) * w for name, w in session.weights.items()}
    trained = session.weights
    with session.average.in_place():
        for name, weight in session.weights.items():
            torch.testing.assert_close(weight, expected[name])
    assert same(session.weights, trained)


def test_experiments_refuse_what_cannot_be_trained():
    made = experiment()
    for build, message in [
        (lambda: replace(made.tasks["motion"], batch_size=0), "batch_size"),
        (lambda: Training(log_every=0), "log_every"),
        (lambda: Training(ema=1.0), "ema"),
        (lambda: Experiment(model=made.model, tasks={}), "at least one task"),
        (lambda: experiment(tasks=("digit", "train")), "'train': torch gives its head no such name; rename"),
        (lambda: experiment(tasks=("a.b",)), "no task can be called 'a.b'"),
    ]:
        with pytest.raises(ValueError, match=message):
            build()
