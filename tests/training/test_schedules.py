"""The five schedules of PolyViT Sec. 4.2 and the learning rate, as properties of their plans."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from itertools import groupby, pairwise
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training_tiny import experiment
from tubelet.configs import ConfigError, from_json, override, to_json
from tubelet.recipes import vatt
from tubelet.training.experiment import Experiment
from tubelet.training.resolve import Resolved, TaskData
from tubelet.training.schedules import (
    Accumulated,
    Alternating,
    Schedule,
    TaskByTask,
    Uniform,
    Weighted,
    learning_rate,
)

KINDS = get_args(Schedule)
LENGTHS = st.dictionaries(st.text(min_size=1), st.integers(1, 40), min_size=1, max_size=6)
SEEDS = st.integers(0, 2**40)
NINE = {  # PolyViT Table 6
    "imagenet": 20_000,
    "cifar100": 10_000,
    "cifar10": 10_000,
    "pets": 500,
    "resisc45": 2_500,
    "kinetics400": 100_680,
    "moments": 123_640,
    "vggsound": 134_700,
    "audioset": 15_900,
}


@given(st.sampled_from([TaskByTask, Weighted]), LENGTHS, SEEDS)
def test_some_give_every_task_exactly_its_own_length(kind: type[Schedule], lengths: dict[str, int], seed: int):
    assert Counter(kind().plan(lengths, seed)) == lengths


@given(st.sampled_from([Alternating, Uniform]), LENGTHS, SEEDS)
def test_others_give_every_task_the_same_share_and_the_first_ones_the_rest(
    kind: type[Schedule], lengths: dict[str, int], seed: int
):
    each, rest = divmod(sum(lengths.values()), len(lengths))
    expected = {name: each + (place < rest) for place, name in enumerate(lengths)}
    assert Counter(kind().plan(lengths, seed)) == expected


@given(LENGTHS, SEEDS)
def test_task_by_task_finishes_a_task_before_the_next(lengths: dict[str, int], seed: int):
    assert len(list(groupby(TaskByTask().plan(lengths, seed)))) == len(lengths)


@given(LENGTHS, SEEDS)
def test_alternating_repeats_one_order(lengths: dict[str, int], seed: int):
    plan, names = Alternating().plan(lengths, seed), list(lengths)
    assert all(name == names[step % len(names)] for step, name in enumerate(plan))


@given(LENGTHS, SEEDS)
def test_accumulated_trains_every_task_in_every_update_for_a_share_of_the_updates(lengths: dict[str, int], seed: int):
    plan, each = Accumulated().plan(lengths, seed), Accumulated().tasks_per_update(len(lengths))
    updates = [plan[i : i + each] for i in range(0, len(plan), each)]
    assert updates == [list(lengths)] * (sum(lengths.values()) // len(lengths))


@given(st.sampled_from(KINDS), LENGTHS, SEEDS)
def test_a_plan_depends_on_lengths_and_seed_alone_and_a_single_task_is_trained_for_its_length(
    kind: type[Schedule], lengths: dict[str, int], seed: int
):
    assert kind().plan(lengths, seed) == kind().plan(dict(lengths), seed)
    name, length = next(iter(lengths.items()))
    assert kind().plan({name: length}, seed) == [name] * length
    assert kind().tasks_per_update(1) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_orders_what_is_random_and_nothing_else(kind: type[Schedule]):
    plans = {tuple(kind().plan({"a": 50, "b": 40, "c": 30, "d": 2}, seed)) for seed in range(20)}
    assert (len(plans) > 5) is (kind in (TaskByTask, Uniform, Weighted))


@pytest.mark.parametrize("kind", [Uniform, Weighted])
def test_random_plans_mix_the_tasks_from_beginning_to_end(kind: type[Schedule]):
    plan = kind().plan({"a": 500, "b": 500}, 3)
    assert all(200 < plan[part : part + 500].count("a") < 300 for part in (0, 250, 500))
    assert max(len(list(same)) for _, same in groupby(plan)) < 25


@pytest.mark.parametrize("kind", KINDS)
def test_the_nine_tasks_of_the_paper_keep_their_total(kind: type[Schedule]):
    each = kind().tasks_per_update(len(NINE))
    plan = kind().plan(NINE, 0)
    assert len(plan) // each == 417_920 // each
    assert len(plan) % each == 0
    if kind is Weighted:
        assert Counter(plan)["pets"] == 500  # 0.11 % of the updates, says the paper


# Learning rates


def resolved(schedule: Schedule, lengths: dict[str, int], warmups: dict[str, int], rates: dict[str, float]) -> Resolved:
    made = experiment(tasks=tuple(lengths), schedule=schedule)
    tasks = {name: replace(task, learning_rate=rates[name]) for name, task in made.tasks.items()}
    data = {name: TaskData(examples=9, updates=n, warmup=warmups[name], sha256="") for name, n in lengths.items()}
    return Resolved(experiment=replace(made, tasks=tasks), data=data)


def test_each_task_has_its_own_rate_on_one_curve_over_all_updates():
    run = resolved(Weighted(), {"a": 60, "b": 40}, {"a": 6, "b": 4}, {"a": 0.03, "b": 0.5})
    assert (run.updates, run.warmup) == (100, 10)
    for step in (0, 5, 10, 55, 99):
        factor = learning_rate(step, 1.0, 10, 100)
        assert run.learning_rate(step, ["a"]) == pytest.approx(0.03 * factor)
        assert run.learning_rate(step, ["b"]) == pytest.approx(0.5 * factor)


def test_accumulated_gradients_take_the_smallest_rate_and_a_share_of_updates_and_warm_up():
    run = resolved(Accumulated(), {"a": 60, "b": 41}, {"a": 6, "b": 4}, {"a": 0.03, "b": 0.5})
    assert (run.updates, run.warmup) == (50, 5)
    assert len(run.plan()) == 100
    assert run.learning_rate(5, ["a", "b"]) == pytest.approx(0.03)
    assert run.learning_rate(2, ["a", "b"]) == pytest.approx(0.03 * 2 / 5)


@given(st.floats(1e-4, 10), st.floats(0, 100), st.integers(1, 1000), st.sampled_from(["cosine", "linear", "constant"]))
def test_learning_rate_stays_between_nothing_and_its_base(base: float, warmup: float, total: int, decay: str):
    rates = [learning_rate(step, base, warmup, total, decay) for step in range(total + 3)]  # type: ignore[arg-type]
    assert all(0 <= rate <= base * (1 + 1e-12) for rate in rates)
    after = rates[int(warmup) + 1 :]
    assert all(x >= y - 1e-12 for x, y in pairwise(after))


def test_learning_rate_at_its_corners():
    assert learning_rate(0, 0.1, 10.0, 100) == 0
    assert learning_rate(5, 0.1, 10.0, 100) == pytest.approx(0.05)
    assert learning_rate(10, 0.1, 10.0, 100) == pytest.approx(0.1)
    assert learning_rate(55, 0.1, 10.0, 100) == pytest.approx(0.05)
    assert learning_rate(100, 0.1, 10.0, 100) == pytest.approx(0)  # the released code jumps back to 0.1 here
    assert learning_rate(0, 0.1, 0.0, 100) == 0.1
    assert learning_rate(100, 0.1, 10.0, 100, "linear", end=0.01) == pytest.approx(0.01)
    assert learning_rate(99, 0.1, 10.0, 100, "constant") == 0.1


# As part of an experiment


@pytest.mark.parametrize("kind", KINDS)
def test_schedules_are_chosen_by_name_and_saved_with_it(kind: type[Schedule]):
    made = override(experiment(), {"schedule": kind.__name__})
    assert made.schedule == kind()
    assert from_json(Experiment, to_json(made)) == made


def test_an_unknown_schedule_is_told_the_known_ones():
    with pytest.raises(ConfigError, match="schedule: no kind 'alternate'; did you mean 'Alternating'"):
        override(experiment(), {"schedule": "alternate"})
    with pytest.raises(ConfigError, match="no kind 'Fastest'; known: TaskByTask, Alternating, Uniform, Weighted, Acc"):
        override(experiment(), {"schedule": "Fastest"})


@pytest.mark.parametrize(
    ("base", "end", "warmup", "total"),
    [
        (1e-4, 5e-5, 5_000, 500_000),  # pre-training as released; the paper warms up for 10,000
        (1e-4, 5e-5, 10_000, 500_000),
        (0.005, 0.0, 2_500, 100_000),  # video
        (0.2, 0.0, 5_000, 50_000),  # sound
    ],
)
def test_vatts_learning_rates(base: float, end: float, warmup: int, total: int):
    """Linear from 0, then end + (base - end) (1 + cos(pi p)) / 2: half a period between two levels."""
    for step in (0, 1, warmup // 2, warmup, warmup + 1, total // 2, total - 1, total, total + 10):
        p = min(1.0, max(0.0, (step - warmup) / (total - warmup)))
        wanted = base * step / warmup if step < warmup else end + (base - end) * (1 + math.cos(math.pi * p)) / 2
        assert learning_rate(step, base, warmup, total, "cosine", end) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize(
    ("made", "rates"),
    [
        (vatt.kinetics(), {0: 0.0, 2_500: 0.005, 100_000: 0.0}),
        (vatt.audioset(), {0: 0.0, 5_000: 0.2, 50_000: 0.0}),
    ],
)
def test_vatts_recipes_have_them(made: Experiment, rates: dict[int, float]):
    (task,) = made.tasks.values()
    for step, rate in rates.items():
        end = task.learning_rate * made.training.decay_to
        found = learning_rate(step, task.learning_rate, task.warmup.steps, task.length.steps, made.training.decay, end)
        assert found == pytest.approx(rate, abs=1e-12)
