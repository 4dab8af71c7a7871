"""The loop, its hooks and its checkpoints, on made-up minibatches."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

from training_tiny import CLASSES, Session, experiment, minibatch
from tubelet.configs import ConfigError
from tubelet.hardware import bfloat16_fault
from tubelet.media.errors import MediaError
from tubelet.training.checkpoints import SaveRegularly, latest
from tubelet.training.experiment import SGD, AdamW, Experiment, Optimizer, Training
from tubelet.training.interruption import Interrupted, StopOnSignal
from tubelet.training.learner import Learner
from tubelet.training.loop import Update
from tubelet.training.objectives import (
    Classification,
    Mixup,
    mixup,
    one_hot,
    sigmoid_cross_entropy,
    softmax_cross_entropy,
)
from tubelet.training.parallel import Ranks
from tubelet.training.quarantine import Quarantine, TooManyUnreadableError
from tubelet.training.records import Health, Records, TrainingDivergedError
from tubelet.training.run import build_model

ALONE = Ranks(torch.device("cpu"))


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
    second.checkpoints.load(latest(tmp_path))
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
        fresh = build_model(made)
        made.tasks[task].objective(fresh, minibatch(task, number))[0].backward()
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


LABELLED = {
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


@pytest.mark.parametrize("kind", LABELLED)
def test_objectives_learn_from_every_kind_of_labels_with_mixup_and_smoothing(kind: str):
    objective, targets = LABELLED[kind]
    objective = replace(objective, mixup=Mixup(0.4), smoothing=0.1, head_init="lecun")
    made = experiment(random_layers=False)
    made = replace(made, tasks={"motion": replace(made.tasks["motion"], objective=objective)})
    model, batch = build_model(made), replace(minibatch("motion", 0), targets=targets, seed=5)
    loss, metrics = objective(model, batch)
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
        Learner(build_model(replace(made, model=model)), made.tasks)


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


# Checkpoints


def save_some(folder: Path, keep: int = 2, steps: tuple[int, ...] = (1, 2, 3)) -> Session:
    session = Session(experiment(), folder)
    for step in steps:
        session.run(step - 1, step)
        session.checkpoints.save(step, {"ranks": 1}, keep)
    return session


def test_checkpoints_are_safetensors_and_json_and_only_the_last_are_kept(tmp_path: Path):
    session = save_some(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000002", "step-00000003"]
    assert {p.suffix for p in (tmp_path / "step-00000003").iterdir()} == {".safetensors", ".json"}
    assert json.loads((tmp_path / "step-00000003" / "state.json").read_text()) == {"step": 3, "ranks": 1}
    with safe_open(next((tmp_path / "step-00000003").glob("*.safetensors")), "pt") as file:
        for name, weight in session.weights.items():
            torch.testing.assert_close(file.get_tensor(f"model.{name}"), weight)


@pytest.mark.parametrize("point", ["save", "write_text", "rename", "rmtree"])
def test_a_kill_at_any_moment_leaves_the_last_whole_checkpoint(
    tmp_path: Path, point: str, monkeypatch: pytest.MonkeyPatch
):
    session = save_some(tmp_path, keep=1, steps=(1,))
    weights = session.weights
    session.run(1, 2)
    targets = {"save": "tubelet.training.checkpoints.save", "rmtree": "shutil.rmtree"}
    with monkeypatch.context() as patch:

        def killed(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(targets.get(point, f"pathlib.Path.{point}"), killed)
        with pytest.raises(KeyboardInterrupt):
            session.checkpoints.save(2, {}, keep=1)
    survivor = Session(experiment(), tmp_path)
    step = latest(tmp_path)
    survivor.checkpoints.load(step)
    assert same(survivor.weights, weights if step == 1 else session.weights)
    assert step == (2 if point == "rmtree" else 1)
    session.run(2, 3)
    session.checkpoints.save(3, {}, keep=1)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000003"]


def test_saving_is_regular_and_checks_first(tmp_path: Path):
    session = Session(experiment(), tmp_path)
    checks: list[int] = []
    saver = SaveRegularly(session.checkpoints, every=2, keep=5, check=lambda: checks.append(1))
    session.run(0, 5, [saver])
    saver.save(5)
    saver.save(5)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000002", "step-00000004", "step-00000005"]
    assert len(checks) == 3


# Hooks


def test_a_diverging_run_stops_before_its_state_is_saved_and_names_the_minibatch(tmp_path: Path):
    session = Session(experiment(random_layers=False), tmp_path)
    health = Health(ALONE, every=10)
    saver = SaveRegularly(session.checkpoints, every=4, keep=2, check=health.check)

    def poison(update: Update) -> None:
        if update.step == 2:
            nn.init.constant_(session.model.heads["motion"].projection.weight, float("nan"))

    with pytest.raises(TrainingDivergedError, match=r"update 3 of task 'motion' has loss nan .* clip-2-0, clip-2-1"):
        session.run(0, 8, [health, poison, saver])
    assert latest(tmp_path) == 0


def run_with_records(folder: Path, start: int, end: int) -> None:
    session = Session(experiment())
    with Records(folder, ALONE, every=2, start=start, total=9, progress=False) as records:
        session.run(start, end, [records])


def test_log_has_every_so_many_updates_and_the_last(tmp_path: Path):
    run_with_records(tmp_path, 0, 9)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6, 8, 9]
    assert lines[0].keys() >= {
        "task",
        "loss",
        "top1",
        "learning_rate",
        "gradient_norm",
        "examples_per_second",
        "waiting",
    }
    assert all(line["loss"] > 0 and 0 <= line["waiting"] <= 1 for line in lines)
    assert lines[0]["learning_rate"] == pytest.approx(0.05 * (1 - 1 / 20))
    assert list((tmp_path / "tensorboard").iterdir())


def test_log_of_a_resumed_run_has_no_update_twice(tmp_path: Path):
    run_with_records(tmp_path, 0, 6)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 7, "lo')  # a kill in the middle of a line
    run_with_records(tmp_path, 3, 9)
    steps = [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert steps == [2, 4, 6, 8, 9]


def update_with(step: int, *paths: str) -> Update:
    zero = torch.zeros(())
    errors = [MediaError(path, 1.5, "torn") for path in paths]
    return Update(step, [minibatch("motion", step, errors)], zero, {}, zero, 0.1, 0.0, 0.0)


def test_quarantine_records_each_file_once_and_stops_past_the_budget(tmp_path: Path):
    quarantine = Quarantine(tmp_path, examples=150, budget=0.01)
    quarantine(update_with(1, "a.mp4"))
    quarantine(update_with(2, "a.mp4", "b.mp4"))
    lines = [json.loads(line) for line in (tmp_path / "quarantine.jsonl").read_text().splitlines()]
    assert lines[0] == {"step": 1, "task": "motion", "path": "a.mp4", "time": 1.5, "reason": "torn"}
    assert [line["path"] for line in lines] == ["a.mp4", "b.mp4"]
    again = Quarantine(tmp_path, examples=150, budget=0.01)  # a resumed run remembers
    again(update_with(3, "b.mp4"))
    with pytest.raises(TooManyUnreadableError, match=r"3 of 150 training examples .* allows 2"):
        again(update_with(4, "c.mp4"))


@pytest.mark.parametrize("received", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_the_update_saves_and_says_how_to_go_on(received: signal.Signals):
    session, saved = Session(experiment()), list[int]()
    before = signal.getsignal(received)

    def send(update: Update) -> None:
        if update.step == 3:
            os.kill(os.getpid(), received)

    with (
        pytest.raises(Interrupted, match=rf"{received.name} after update 3 of 8.*run the same command again"),
        StopOnSignal(ALONE, 8, saved.append) as stop,
    ):
        session.run(0, 8, [send, stop])
    assert saved == [3]
    assert signal.getsignal(received) is before


def test_experiments_refuse_what_cannot_be_trained():
    made = experiment()
    for build, message in [
        (lambda: replace(made.tasks["motion"], batch_size=0), "batch_size"),
        (lambda: Training(log_every=0), "log_every"),
        (lambda: Training(ema=1.0), "ema"),
        (lambda: Experiment(model=made.model, tasks={}), "at least one task"),
    ]:
        with pytest.raises(ValueError, match=message):
            build()
