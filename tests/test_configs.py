"""Configs to plain data and back, overrides, and what their errors say."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tubelet.configs import ConfigError, differences, from_json, override, register, to_json


@dataclass(frozen=True)
class Plain:
    momentum: float = 0.9


@dataclass(frozen=True)
class Decoupled:
    betas: tuple[float, float] = (0.9, 0.999)


@dataclass(frozen=True)
class Shape(ABC):
    @abstractmethod
    def area(self) -> float: ...


@dataclass(frozen=True)
class Square(Shape):
    side: int = 2

    def area(self) -> float:
        return float(self.side**2)


@dataclass(frozen=True)
class Circle(Shape):
    radius: float = 1.0

    def area(self) -> float:
        return 3 * self.radius**2


register(Shape, "square", Square)
register(Shape, "circle", Circle)


@dataclass(frozen=True)
class Grid:
    rows: int = 1
    columns: int = 1

    @classmethod
    def parse(cls, text: str) -> "Grid":
        rows, _, columns = text.partition("x")
        return cls(int(rows), int(columns))


@dataclass(frozen=True, kw_only=True)
class Job:
    batch_size: int = 64
    rate: float = 0.1
    order: Literal["up", "down"] = "up"
    shuffle: bool = True
    classes: tuple[str, ...] | Mapping[str, tuple[str, ...]] = ()
    grid: Grid = Grid()

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"{self.batch_size=} must be at least 1")


@dataclass(frozen=True, kw_only=True)
class Plan:
    name: str
    jobs: dict[str, Job]
    optimizer: Plain | Decoupled = Plain()
    shape: Shape = Square()
    sizes: tuple[int, int] = (8, 8)
    shapes: tuple[Shape, ...] = ()
    limit: float | None = None


PLAN = Plan(
    name="p",
    jobs={"motion": Job(classes=("a", "b")), "epic": Job(classes={"verb": ("cut",), "noun": ("egg", "pan")})},
    optimizer=Decoupled(),
    shape=Circle(2.0),
    shapes=(Square(3), Circle()),
)


def test_plain_data_is_json_and_reads_back_equal():
    import json

    data = to_json(PLAN)
    assert json.loads(json.dumps(data)) == data
    assert data["optimizer"] == {"kind": "Decoupled", "betas": [0.9, 0.999]}
    assert data["shapes"] == [{"kind": "square", "side": 3}, {"kind": "circle", "radius": 1.0}]
    assert from_json(Plan, data) == PLAN


def test_a_subclass_written_alone_keeps_its_kind():
    assert from_json(Shape, to_json(Circle(4.0))) == Circle(4.0)
    assert from_json(Circle, to_json(Circle(4.0))) == Circle(4.0)


@given(
    st.builds(
        Job,
        batch_size=st.integers(1, 9),
        rate=st.floats(allow_nan=False, allow_infinity=False),
        order=st.sampled_from(["up", "down"]),
        classes=st.one_of(
            st.lists(st.text()).map(tuple), st.dictionaries(st.text(), st.lists(st.text()).map(tuple), min_size=1)
        ),
        grid=st.builds(Grid, rows=st.integers(), columns=st.integers()),
    )
)
def test_round_trip(job: Job):
    assert from_json(Job, to_json(job)) == job


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"jobs": {"motion": {"batchsize": 3}}}, "jobs.motion: no field 'batchsize'; did you mean 'batch_size'?"),
        ({"jobs": {"motion": {"batch_size": "many"}}}, "jobs.motion.batch_size: must be a whole number; got 'many'"),
        ({"jobs": {"motion": {"batch_size": 2.5}}}, "jobs.motion.batch_size: must be a whole number; got 2.5"),
        ({"jobs": {"motion": {"batch_size": True}}}, "jobs.motion.batch_size: must be a whole number; got True"),
        ({"jobs": {"motion": {"batch_size": 0}}}, "jobs.motion: self.batch_size=0 must be at least 1"),
        (
            {"jobs": {"motion": {"order": "upp"}}},
            "jobs.motion.order: 'upp' is none of 'up', 'down'; did you mean 'up'?",
        ),
        ({"jobs": {"motion": {"classes": ["a", 3]}}}, "jobs.motion.classes.1: must be text; got 3"),
        ({"jobs": []}, "jobs: must be an object; got []"),
        ({"name": None}, "name: must be text; got None"),
        ({"optimizer": {"kind": "Decuopled"}}, "optimizer: no kind 'Decuopled'; did you mean 'Decoupled'?"),
        ({"optimizer": {"betas": [0.9, 0.9]}}, "optimizer: needs a 'kind', one of Plain, Decoupled"),
        ({"optimizer": {"kind": "Plain", "beta": 1}}, "optimizer: no field 'beta'; known: momentum"),
        ({"shape": {"kind": "Circle", "radius": "x"}}, "shape.radius: must be a number; got 'x'"),
        ({"shapes": [{"kind": "Square"}, {"kind": "Sqare"}]}, "shapes.1: no kind 'Sqare'; did you mean 'square'?"),
        ({"sizes": [1, 2, 3]}, "sizes: must have 2 values; got [1, 2, 3]"),
        ({"sizes": "12"}, "sizes: must be a list; got '12'"),
        ({"limit": "x"}, "limit: must be a number or null; got 'x'"),
        ({"nmae": "x"}, "Plan: no field 'nmae'; did you mean 'name'?"),
    ],
)
def test_errors_name_the_path(change: dict[str, object], message: str):
    with pytest.raises(ConfigError) as caught:
        from_json(Plan, {"name": "p", "jobs": {}} | change)
    assert str(caught.value) == message


def test_every_problem_is_named_at_once():
    with pytest.raises(ConfigError) as caught:
        from_json(Plan, {"jobs": {"a": {"rate": "fast"}}, "sizes": [1]})
    assert str(caught.value).splitlines() == [
        "name: is missing",
        "jobs.a.rate: must be a number; got 'fast'",
        "sizes: must have 2 values; got [1]",
    ]


def _step(found: object, name: str) -> object:
    if isinstance(found, dict):
        return found[name]
    return found[int(name)] if isinstance(found, tuple) else getattr(found, name)


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("jobs.motion.batch_size", "32", 32),
        ("jobs.motion.rate", "1e-3", 1e-3),
        ("jobs.motion.rate", ".5", 0.5),
        ("jobs.motion.rate", "2", 2.0),
        ("jobs.motion.shuffle", "false", False),
        ("jobs.motion.shuffle", "False", False),
        ("jobs.motion.order", "down", "down"),
        ("jobs.motion.classes", "x, y", ("x", "y")),
        ("jobs.motion.classes", '{"verb": ["1"]}', {"verb": ("1",)}),
        ("jobs.motion.grid", "4x3", Grid(4, 3)),
        ("jobs.motion.grid.rows", "5", 5),
        ("name", "7", "7"),
        ("optimizer", "Plain", Plain()),
        ("shape", "Square", Square()),
        ("shape.radius", "3", 3.0),
        ("shapes.0.side", "9", 9),
        ("shapes", '[{"kind": "Circle"}]', (Circle(),)),
        ("sizes", "4,5", (4, 5)),
        ("sizes.1", "7", 7),
        ("limit", "2", 2.0),
        ("limit", "none", None),
        ("optimizer", Plain(0.5), Plain(0.5)),
    ],
)
def test_override(path: str, text: object, expected: object):
    changed = override(PLAN, {path: text})
    found: object = changed
    for name in path.split("."):
        found = _step(found, name)
    assert found == expected
    assert type(found) is type(expected)
    assert override(changed, {}) == changed


def test_overrides_apply_together_and_a_kind_before_its_fields():
    changed = override(PLAN, {"optimizer.momentum": "0.5", "optimizer": "Plain"})
    assert changed.optimizer == Plain(0.5)


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("jobs.motion.batchsize", "3", "jobs.motion: no field 'batchsize'; did you mean 'batch_size'?"),
        ("jobs.moton.batch_size", "3", "jobs: no 'moton'; did you mean 'motion'?"),
        ("jobs.motion.batch_size", "x", "jobs.motion.batch_size: must be a whole number; got 'x'"),
        ("jobs.motion.batch_size.x", "1", "jobs.motion.batch_size: is 64 and has no field 'x'"),
        ("job.motion", "1", "Plan: no field 'job'; did you mean 'jobs'?"),
        ("sizes", "4,5,6", "sizes: must have 2 values; got [4, 5, 6]"),
        ("shapes.7", "Square", "shapes: no item '7'; it has 2, counted from 0"),
        ("shape", "Sqare", "shape: no kind 'Sqare'; did you mean 'square'?"),
    ],
)
def test_override_errors(path: str, text: str, message: str):
    with pytest.raises(ConfigError) as caught:
        override(PLAN, {path: text})
    assert str(caught.value) == message


def test_differences():
    changed = override(PLAN, {"jobs.motion.batch_size": "32", "optimizer": "Plain"})
    assert differences(PLAN, PLAN) == []
    assert differences(PLAN, changed) == [
        ("jobs.motion.batch_size", 64, 32),
        ("optimizer.kind", "Decoupled", "Plain"),
        ("optimizer.betas", [0.9, 0.999], "(absent)"),
        ("optimizer.momentum", "(absent)", 0.9),
    ]


def test_an_experiment_survives_json_and_names_its_wrong_key():
    from training_tiny import experiment
    from tubelet.training.experiment import AdamW, Experiment, Init

    made = experiment(tasks=("motion", "digit"), optimizer=AdamW(), init=(Init(source="hf:org/name"),))
    data = to_json(made)
    assert data["model"]["kind"] == "vivit"
    assert from_json(Experiment, data) == made
    data["tasks"]["motion"]["batchsize"] = data["tasks"]["motion"].pop("batch_size")
    with pytest.raises(ConfigError) as caught:
        from_json(Experiment, data)
    assert str(caught.value) == "tasks.motion: no field 'batchsize'; did you mean 'batch_size'?"
